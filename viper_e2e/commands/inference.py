"""inference.py: `viper infer`: from the named inputs to one record for each clip, written, drawn and shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from viper_e2e.commands.common import load_model, scored, set_computing
from viper_e2e.commands.pictures import check_pictures, draw_pictures
from viper_e2e.commands.reading_options import shard_limits
from viper_e2e.config import InferConfig, reads_words
from viper_e2e.errors import ExitCode, ViperError
from viper_e2e.loading import ClipSource, notes_on_reading
from viper_e2e.model import Prediction, ViPER, record_of, summary_of
from viper_e2e.report import records_table, stdout_console
from viper_e2e.runtime import AS_IT_IS, Processes, console, count_of, tell_problems
from viper_e2e.scoring import (
    FileWords,
    Inputs,
    ResultJournal,
    Wanted,
    check_output,
    find_inputs,
    identity_of,
    scoring_accelerator,
    summary_path,
    write_records,
)

LONG_SECONDS = 60.0
"""A clip longer than this is better scored in windows."""

ROWS = 1
"""Version of the records of clips; those of another version are not reused."""


def run_infer(options: InferConfig) -> int:
    """Score what was named; table on stdout, records in ``--output``."""
    if options.hop_seconds and not options.window_seconds:
        raise ViperError("--hop-seconds is the time between windows; add --window-seconds, e.g. 12")
    limits = shard_limits(options)
    found = find_inputs(options.inputs, limits)
    found.tell()
    options = _with_outputs(found.sources, options)
    wanted = _wanted(options)
    model = load_model(options)
    _hand_over_words(found, model, options)
    sources = found.sources
    processes = Processes(scoring_accelerator(model.device))
    with processes.telling_failures():
        if processes.is_main:
            tell_problems(found.shards.problems if found.shards is not None else ())
            tell_problems(notes_on_reading(limits.remote_reading, sources))
        options = set_computing(model, options, processes)
        journal = _journal(model, options, processes)
        # A lone clip needs no padding.
        options = replace(options, batch_size=min(options.batch_size, max(map(len, sources))))
        clips = _by_clip(scored(model, sources, options, processes, journal, wanted), options)
    if not processes.is_main:
        return ExitCode.OK
    if journal is not None and options.output:
        _write(clips, model, options, Path(options.output), journal)
    numbered = [
        [record_of(one, model.labels, model.calibration) for one in clip]
        for clip in clips
        if clip[0].index >= 0
    ]
    all_drawn = draw_pictures(sources, numbered, model, options)
    _show(clips, model, options)
    return _exit_code(clips, is_whole=found.is_whole and all_drawn)


def _hand_over_words(found: Inputs, model: ViPER, options: InferConfig) -> None:
    """Add the sources of words, if the model reads any."""
    reads = reads_words(model.modalities)
    if options.text is not None:
        if not reads:
            raise ViperError(f"--text: this model reads no words; it has {', '.join(model.modalities)}")
        if not options.text.strip():
            raise ViperError("--text is empty; leave it out if nothing is said")
        if found.files is None or found.shards is not None or len(found.files) != 1:
            raise ViperError(
                "--text is what is said in one clip; name only that clip, or put a .txt beside each"
            )
    if reads and found.files is not None:
        found.files = found.files.with_words(FileWords(options.text, options.words_language))


def _with_outputs(sources: Sequence[ClipSource], options: InferConfig) -> InferConfig:
    """Refuse what cannot be written before anything is computed; into ``--out`` goes a table in any case."""
    check_pictures(sources, options)
    option = "--output" if options.output else "--out"
    if options.out and not options.output:
        options = replace(options, output=str(Path(options.out, "scores.csv")))
    if options.output:
        check_output(Path(options.output), option)
        if Path(f"{options.output}.parts").is_file():
            raise ViperError(f"{options.output}.parts: is in the way: scored clips go there; move it")
    if options.summary:
        if not options.output:
            raise ViperError("--summary needs --output, which gets the windows; name both")
        check_output(Path(options.summary), "--summary")
    return options


# --- scoring --------------------------------------------------------------------------------------


def _journal(model: ViPER, options: InferConfig, processes: Processes) -> ResultJournal | None:
    """Journal in which each process records its scores; None without ``--output``."""
    if options.output:
        how = (ROWS, options.faces, options.render is not None, options.window_seconds, options.hop_seconds)
        return ResultJournal(Path(f"{options.output}.parts"), identity_of(model, options, *how), processes)
    if processes.count > 1:
        raise ViperError("several processes need --output: each writes its share beside it")
    return None


def _wanted(options: InferConfig) -> Wanted:
    windows = None
    if options.window_seconds:
        windows = options.window_seconds, options.hop_seconds or options.window_seconds / 2
    return Wanted(frames=True, boxes=options.faces or options.render is not None, windows=windows)


def _by_clip(found: Sequence[Sequence[Prediction]], options: InferConfig) -> list[list[Prediction]]:
    """The predictions of each clip of all sources, whatever became of it: one, or one for each window."""
    clips: list[list[Prediction]] = []
    for of_source in found:
        of_clips = groupby(enumerate(of_source), lambda at: at[1].index if at[1].index >= 0 else -1 - at[0])
        clips += [[one for _, one in clip] for _, clip in of_clips]
    if not clips:
        raise ViperError("nothing to score: no clip was found in what you named; `viper check` says why")
    if options.no_face == "nan":
        clips = [[one.without_faceless() for one in clip] for clip in clips]
    return clips


# --- what users see ------------------------------------------------------------------------------


def _write(
    clips: list[list[Prediction]], model: ViPER, options: InferConfig, output: Path, journal: ResultJournal
) -> None:
    """The rows of all clips and, of windows, their means; only then are the parts of no use any more."""
    summary = Path(options.summary) if options.summary else None
    if options.window_seconds and summary is None:
        summary = summary_path(output)
    labels = model.labels
    try:
        write_records(
            [record_of(one, labels, model.calibration) for clip in clips for one in clip],
            output,
            emotions=labels.names,
            bom=options.bom,
        )
        if summary is not None:
            write_records(
                [record_of(summary_of(c), labels, model.calibration) for c in clips],
                summary,
                emotions=labels.names,
                bom=options.bom,
            )
    except ViperError as error:
        raise ViperError(
            f"{error}; nothing is lost: the same command continues from {journal.folder}"
        ) from error
    if journal.processes.count == 1:
        journal.remove()  # of several processes a late one may be started again, and finds all done
    console.print(f"records: {output}", **AS_IT_IS)
    if summary is not None:
        console.print(f"whole clips: {summary}", **AS_IT_IS)


def _show(clips: list[list[Prediction]], model: ViPER, options: InferConfig) -> None:
    """The table on stdout: each clip, or its windows and then their mean."""
    shown = [one for clip in clips for one in clip]
    if options.window_seconds:
        shown = [one for clip in clips for one in _with_mean(clip)]
    else:
        _tell_long_clips(shown)
    limits = (model.labels.minimum, model.labels.maximum)
    records = [record_of(one, model.labels) for one in shown]
    stdout_console().print(records_table(records, model.labels.names, limits=limits))


def _with_mean(windows: list[Prediction]) -> list[Prediction]:
    return [*windows, summary_of(windows)] if any(window.is_valid for window in windows) else windows


def _exit_code(clips: list[list[Prediction]], *, is_whole: bool) -> int:
    if not any(one.is_valid for clip in clips for one in clip):
        return ExitCode.NOTHING_DONE
    is_whole = is_whole and all(one.is_valid for clip in clips for one in clip)
    return ExitCode.OK if is_whole else ExitCode.SOME_FAILED


def _tell_long_clips(predictions: list[Prediction]) -> None:
    for one in predictions:
        seconds = one.duration_seconds or 0.0
        if one.is_valid and seconds > LONG_SECONDS:
            console.print(
                f"{one.clip}: {seconds:.0f} s seen in "
                f"{count_of(len(one.frame_seconds or ()), 'frame')}; --window-seconds 12 scores it window by "
                "window"
            )
