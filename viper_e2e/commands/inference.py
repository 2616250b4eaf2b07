"""inference.py: `viper infer`: from what was named to one record for each clip, written, drawn and shown."""

from __future__ import annotations

from argparse import Namespace
from collections import deque
from collections.abc import Iterator, Sequence, Set
from itertools import islice
from pathlib import Path

from viper_e2e.commands.common import load_model, set_computing
from viper_e2e.commands.pictures import check_pictures, draw_pictures
from viper_e2e.commands.reading_options import shard_limits
from viper_e2e.errors import ExitCode, ViperError
from viper_e2e.loading.windows import ShardClip
from viper_e2e.model.records import Record, failed, summary_of, without_faceless
from viper_e2e.model.viper import ViPER
from viper_e2e.report import tables
from viper_e2e.runtime.console import AS_IT_IS, console, progress_bar, tell_problems
from viper_e2e.runtime.processes import Processes
from viper_e2e.scoring.journal import ResultJournal, Subset, identity_of, scoring_accelerator
from viper_e2e.scoring.prediction import (
    LONG_SECONDS,
    ClipFiles,
    find_inputs,
    name_of,
    predict_share,
    predict_windows,
)
from viper_e2e.scoring.tabular import check_output, summary_path, write_records
from viper_e2e.shards import ShardSet

ROWS = 1
"""What records of clips look like; those that another version wrote down are not taken over."""


def run_infer(options: Namespace) -> int:
    """Score what was named; table on stdout, records in ``--output``."""
    if options.hop_seconds and not options.window_seconds:
        raise ViperError("--hop-seconds is the time between windows; add --window-seconds, e.g. 12")
    found = find_inputs(options.inputs, shard_limits(options))
    found.tell()
    sources = found.sources
    _check_outputs(sources, options)
    model = load_model(options)
    processes = Processes(scoring_accelerator(model.device))
    with processes.telling_failures():
        for source in sources if processes.is_main else ():
            if isinstance(source, ShardSet):
                tell_problems(source.problems)
        set_computing(model, options, processes)
        parts = _parts(model, options, processes)
        clips = _score(model, sources, options, processes, parts)
    if not processes.is_main:
        return ExitCode.OK
    if parts is not None:
        _write(clips, model, options, parts)
    all_drawn = draw_pictures(sources, _without_unusable(sources, clips), model, options)
    _show(clips, model, options)
    return _exit_code(clips, is_whole=found.is_whole and all_drawn)


def _check_outputs(sources: list[ClipFiles | ShardSet], options: Namespace) -> None:
    """Refuse what cannot be written before anything is computed; into ``--out`` goes a table in any case."""
    check_pictures(sources, options)
    if options.out and not options.output:
        options.output = str(Path(options.out, "scores.csv"))
    if options.output:
        check_output(Path(options.output))
        if Path(f"{options.output}.parts").is_file():
            raise ViperError(f"{options.output}.parts: is in the way of what is scored; move it")
    if options.summary:
        if not options.output:
            raise ViperError("--summary goes beside the windows of --output; name both")
        check_output(Path(options.summary), "--summary")


# --- scoring --------------------------------------------------------------------------------------


def _parts(model: ViPER, options: Namespace, processes: Processes) -> ResultJournal | None:
    """Where each process writes down what it has scored as it goes; None without ``--output``."""
    if options.output:
        how = (ROWS, options.faces, options.render is not None, options.window_seconds, options.hop_seconds)
        return ResultJournal(Path(f"{options.output}.parts"), identity_of(model, options, *how), processes)
    if processes.count > 1:
        raise ViperError("several processes need --output, beside which each writes its share")
    return None


def _score(
    model: ViPER,
    sources: list[ClipFiles | ShardSet],
    options: Namespace,
    processes: Processes,
    parts: ResultJournal | None,
) -> list[list[Record]]:
    """The records of every clip in order, of a window each or one; in further processes of their share alone.

    What was written down by an interrupted run is not scored again.
    """
    names = [name_of(source, i) for source in sources for i in range(len(source))]
    known: dict[str, list[Record]] = parts.known() if parts is not None else {}
    with progress_bar(disable=not processes.is_main) as bar:
        done = sum(name in known for name in names)
        task = bar.add_task("scoring", total=len(names), completed=done, note="")
        for name, records in _scored(model, sources, known.keys(), options, processes):
            known[name] = records
            if parts is not None:
                parts.add({name: records})
            bar.update(task, advance=processes.count, note=Path(records[0]["clip"]).name)
    if parts is not None and processes.count > 1:
        known = parts.known()
    clips = _one_for_each(model, sources, known)
    if options.no_face == "nan":
        clips = [[without_faceless(record) for record in records] for records in clips]
    return clips


def _one_for_each(
    model: ViPER, sources: Sequence[ClipFiles | ShardSet], known: dict[str, list[Record]]
) -> list[list[Record]]:
    """Records of everything that was named: whatever became of a clip, it is never left out."""
    clips = []
    for source in sources:
        for i in range(len(source)):
            reason = "no process has scored it; run the same command again"
            lost = [failed(source.entry(i).key, reason, model.modalities)]
            clips.append(known.get(name_of(source, i), lost))
        if isinstance(source, ShardSet):
            clips += [[failed(key, why, model.modalities)] for key, why in source.unusable]
    if not clips:
        raise ViperError("nothing to score: there is no clip in what was named; `viper check` says why")
    assert len(clips) == sum(len(s) + len(getattr(s, "unusable", ())) for s in sources)
    return clips


def _without_unusable(
    sources: Sequence[ClipFiles | ShardSet], clips: Sequence[list[Record]]
) -> list[list[Record]]:
    """Records of the clips that are numbered in their sources."""
    found, rest = [], iter(clips)
    for source in sources:
        found += islice(rest, len(source))
        deque(islice(rest, len(getattr(source, "unusable", ()))), maxlen=0)
    return found


def _scored(
    model: ViPER,
    sources: list[ClipFiles | ShardSet],
    known: Set[str],
    options: Namespace,
    processes: Processes,
) -> Iterator[tuple[str, list[Record]]]:
    """Name and records of each clip of this process's share that is not known yet."""
    for source in sources:
        missing = [i for i in range(len(source)) if name_of(source, i) not in known]
        found = _scored_of(model, source, missing, options, processes) if missing else ()
        for i, records in found:
            if isinstance(source, ClipFiles) and source.has_changed(i):
                for record in records:
                    told = filter(None, (record["warning"], "the file was changed while it was scored"))
                    record["warning"] = "; ".join(told)
            yield name_of(source, i), records


def _scored_of(
    model: ViPER, source: ClipFiles | ShardSet, missing: list[int], options: Namespace, processes: Processes
) -> Iterator[tuple[int, list[Record]]]:
    """Number and records of this process's share of some clips of one source."""
    boxes = options.faces or options.render is not None
    how = {"clip_timeout_seconds": options.clip_timeout_seconds, "max_restarts": options.max_worker_restarts}
    if options.window_seconds:
        share = missing[processes.index :: processes.count]
        for position, records in predict_windows(
            model,
            [source.paths[i] if isinstance(source, ClipFiles) else ShardClip(source, i) for i in share],
            options.window_seconds,
            options.hop_seconds or options.window_seconds / 2,
            num_workers=options.num_workers,
            **how,
            boxes=boxes,
        ):
            yield share[position], records
        return
    for position, record in predict_share(
        model,
        Subset(source, missing),
        batch_size=options.batch_size,
        num_workers=options.num_workers,
        **how,
        boxes=boxes,
        process_index=processes.index,
        num_processes=processes.count,
    ):
        yield missing[position], [record]


# --- what is said of it ---------------------------------------------------------------------------


def _write(clips: list[list[Record]], model: ViPER, options: Namespace, parts: ResultJournal) -> None:
    """The rows of all clips and, of windows, their means; only then are the parts of no use any more."""
    output = Path(options.output)
    summary = Path(options.summary) if options.summary else None
    if options.window_seconds and summary is None:
        summary = summary_path(output)
    emotions = model.labels.names
    try:
        write_records([r for records in clips for r in records], output, emotions=emotions, bom=options.bom)
        if summary is not None:
            write_records([summary_of(c) for c in clips], summary, emotions=emotions, bom=options.bom)
    except ViperError as error:
        raise ViperError(f"{error}; nothing is lost: the same command goes on from {parts.folder}") from error
    if parts.processes.count == 1:
        parts.remove()  # of several processes a late one may be started again, and finds all done
    console.print(f"records: {output}", **AS_IT_IS)
    if summary is not None:
        console.print(f"whole clips: {summary}", **AS_IT_IS)


def _show(clips: list[list[Record]], model: ViPER, options: Namespace) -> None:
    """The table on stdout: each clip, or its windows and then their mean."""
    shown = [record for records in clips for record in records]
    if options.window_seconds:
        shown = [record for records in clips for record in _with_mean(records)]
    else:
        _tell_long_clips(shown)
    limits = (model.labels.minimum, model.labels.maximum)
    tables.stdout_console().print(tables.records_table(shown, model.labels.names, limits=limits))


def _with_mean(records: list[Record]) -> list[Record]:
    return [*records, summary_of(records)] if any(record["valid"] for record in records) else records


def _exit_code(clips: list[list[Record]], *, is_whole: bool) -> int:
    if not any(record["valid"] for records in clips for record in records):
        return ExitCode.NOTHING_DONE
    is_whole = is_whole and all(record["valid"] for records in clips for record in records)
    return ExitCode.OK if is_whole else ExitCode.SOME_FAILED


def _tell_long_clips(records: list[Record]) -> None:
    for record in records:
        if record["valid"] and record["duration_seconds"] > LONG_SECONDS:
            console.print(
                f"{record['clip']}: {record['duration_seconds']:.0f} s seen in "
                f"{len(record['frame_seconds'])} frames; --window-seconds 12 looks closer"
            )
