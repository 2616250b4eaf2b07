"""commands.py: `viper infer`, `export` and `import-published`, once their arguments are read."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Set
from pathlib import Path

import torch

from ..errors import ViperError
from ..model import ViPER
from ..parsing import backbone_overrides
from ..published import import_published, is_published, published_checkpoint
from ..reading_options import apply_reading_options, shard_limits
from ..records import Record, check_output, write_records
from ..report import figures, tables
from ..report.render import render
from ..shards import ShardSet
from .compiling import check_compiler, compile_model
from .devices import own_device
from .display import console, progress_bar, tell_problems
from .parts import Parts, Remaining, identity_of, scoring_accelerator
from .precision import compute_dtype, settled
from .prediction import LONG_SECONDS, ClipFiles, find_inputs, name_of, predict_share, predict_windows
from .processes import Processes

ALL_FINE, NOTHING_DONE, SOME_FAILED = 0, 1, 2


def overrides_of(options: Namespace) -> dict[str, str]:
    """Where backbones and the sentence bank are to be looked for first."""
    overrides = backbone_overrides(options.backbone)
    return overrides | ({"sentence_bank": options.sentence_bank} if options.sentence_bank else {})


def load_model(options: Namespace) -> ViPER:
    """The checkpoint's model, frozen, on the chosen device; a released one is converted first."""
    source, overrides = options.checkpoint, overrides_of(options)
    device = own_device(getattr(options, "device", None))
    if getattr(options, "compile", False):
        check_compiler(torch.device(device))
    if is_published(source):
        imported = published_checkpoint(source, overrides=overrides)
        source = imported.folder
        for note in imported.notes:
            console.print(f"[yellow]note: {note}[/yellow]")
    model = ViPER.from_pretrained(source, overrides=overrides)
    if hasattr(options, "max_bytes"):
        apply_reading_options(model.config.decoding, options)
    return model.to(device)


def set_computing(model: ViPER, options: Namespace, processes: Processes) -> None:
    """As ``--mixed-precision`` and ``--compile`` ask; ``options`` holds what ``auto`` came to from here on."""
    options.mixed_precision = settled(options.mixed_precision, model, processes)
    model.set_compute_dtype(compute_dtype(options.mixed_precision))
    if options.compile:
        compile_model(model)


def run_infer(options: Namespace) -> int:
    """Score what was named; table on stdout, records in ``--output``."""
    sources = find_inputs(options.inputs, shard_limits(options))
    clip = _check_outputs(sources, options)
    model = load_model(options)
    processes = Processes(scoring_accelerator(model.device))
    with processes.telling_failures():
        for source in sources if processes.is_main else ():
            if isinstance(source, ShardSet):
                tell_problems(source)
        set_computing(model, options, processes)
        records = _score(model, sources, options, processes)
    if not processes.is_main:
        return ALL_FINE
    if not options.window_seconds:
        _tell_long_clips(records)
    limits = (model.labels.minimum, model.labels.maximum)
    tables.stdout_console().print(tables.records_table(records, model.labels.names, limits=limits))
    if options.output:
        write_records(records, Path(options.output))
        console.print(f"records: {options.output}")
    if records[0]["valid"] and options.plot:
        console.print(f"plot: {figures.windows_plot(records, Path(options.plot))}")
    if records[0]["valid"] and options.render:
        decoding = model.config.decoding
        out = render(
            clip,
            records[0],
            Path(options.render),
            limits=limits,
            clip_limits=decoding.limits,
            video_track=decoding.video_track,
        )
        console.print(f"video: {out}")
    failures = sum(not record["valid"] for record in records)
    if failures == len(records):
        return NOTHING_DONE
    return SOME_FAILED if failures else ALL_FINE


def _check_outputs(sources: list[ClipFiles | ShardSet], options: Namespace) -> Path | None:
    """Refuse outputs that cannot be made before anything is computed; the clip that ``--render`` draws."""
    if options.hop_seconds and not options.window_seconds:
        raise ViperError("--hop-seconds is the time between windows; add --window-seconds, e.g. 12")
    if options.output:
        check_output(Path(options.output))
    wants_one = [name for name in ("render", "plot") if getattr(options, name)]
    if not wants_one:
        return None
    if len(sources) != 1 or len(sources[0]) != 1 or not isinstance(sources[0], ClipFiles):
        raise ViperError(f"--{wants_one[0]} takes exactly one clip file")
    if options.plot and not options.window_seconds:
        raise ViperError("--plot shows windows over time; add --window-seconds, e.g. 12")
    if options.render and options.window_seconds:
        raise ViperError("--render shows the whole clip; leave out --window-seconds")
    for name, suffix in (("render", ".mp4"), ("plot", ".png")):
        path = getattr(options, name)
        if path and (Path(path).suffix.lower() != suffix or not Path(path).parent.is_dir()):
            raise ViperError(f"--{name} {path}: name a {suffix} file in a folder that exists")
    return sources[0].paths[0]


def _score(
    model: ViPER, sources: list[ClipFiles | ShardSet], options: Namespace, processes: Processes
) -> list[Record]:
    """Records of all clips in order, or in further processes of their share alone.

    With ``--output`` each process writes down what it has scored as it goes, and what was written down by an
    interrupted run is not scored again.
    """
    parts = None
    known: dict[str, list[Record]] = {}
    if options.output:
        how = (options.faces, bool(options.render), options.window_seconds, options.hop_seconds)
        how += (options.mixed_precision, options.compile)
        folder = Path(f"{options.output}.parts")
        parts = Parts(folder, identity_of(options, *how), processes)
        known = parts.known()
    elif processes.count > 1:
        raise ViperError("several processes need --output, beside which each writes its share")
    names = [name_of(source, i) for source in sources for i in range(len(source))]
    with progress_bar(disable=not processes.is_main) as bar:
        task = bar.add_task("scoring", total=len(names), completed=len(known), note="")
        for name, records in _scored(model, sources, known.keys(), options, processes):
            known[name] = records
            if parts is not None:
                parts.add({name: records})
            bar.update(task, advance=processes.count, note=Path(records[0]["clip"]).name)
    if parts is not None and processes.count > 1:
        known = parts.known()
    elif parts is not None:
        parts.remove()
    return [record for name in names for record in known.get(name, ())]


def _scored(
    model: ViPER,
    sources: list[ClipFiles | ShardSet],
    known: Set[str],
    options: Namespace,
    processes: Processes,
) -> Iterator[tuple[str, list[Record]]]:
    """Name and records of each clip of this process's share that is not known yet."""
    boxes = options.faces or bool(options.render)
    how = {"clip_timeout_seconds": options.clip_timeout_seconds, "max_restarts": options.max_worker_restarts}
    for source in sources:
        missing = [i for i in range(len(source)) if name_of(source, i) not in known]
        if options.window_seconds:
            if not isinstance(source, ClipFiles):
                raise ViperError("--window-seconds takes clip files, not shards")
            hop = options.hop_seconds or options.window_seconds / 2
            share = missing[processes.index :: processes.count]
            for position, records in predict_windows(
                model,
                [source.paths[i] for i in share],
                options.window_seconds,
                hop,
                num_workers=options.num_workers,
                **how,
                boxes=boxes,
            ):
                yield name_of(source, share[position]), records
            continue
        for position, record in predict_share(
            model,
            Remaining(source, missing),
            batch_size=options.batch_size,
            num_workers=options.num_workers,
            **how,
            boxes=boxes,
            process_index=processes.index,
            num_processes=processes.count,
        ):
            yield name_of(source, missing[position]), [record]


def _tell_long_clips(records: list[Record]) -> None:
    for record in records:
        if record["valid"] and record["duration_seconds"] > LONG_SECONDS:
            console.print(
                f"{record['clip']}: {record['duration_seconds']:.0f} s seen in "
                f"{len(record['frame_seconds'])} frames; --window-seconds 12 looks closer"
            )


def run_export(options: Namespace) -> int:
    """Write a folder that needs nothing outside of itself."""
    out = Path(options.out)
    if out.exists():
        raise ViperError(f"{out}: exists already; name a new folder")
    load_model(options).save_pretrained(out, self_contained=True)
    console.print(f"wrote {out}")
    return ALL_FINE


def run_import(options: Namespace) -> int:
    """Convert one of the authors' released checkpoints into our folder format."""
    out = Path(options.out)
    if out.exists():
        raise ViperError(f"{out}: exists already; name a new folder")
    imported = import_published(options.source, out, overrides=overrides_of(options))
    for note in imported.notes:
        console.print(f"[yellow]note: {note}[/yellow]")
    console.print(f"wrote {imported.folder} ({', '.join(imported.modalities)})")
    return ALL_FINE
