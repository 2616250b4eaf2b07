"""commands.py: `viper infer`, `eval` and `export`, once their arguments are read."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from .. import checkpoint
from ..clip_reader import DecodeSample
from ..decoding import ClipDecoder
from ..errors import ViperError
from ..loader import ClipLoader
from ..metrics import bootstrap
from ..model import ViPER
from ..parsing import backbone_overrides
from ..records import Record, check_output, write_records
from ..report import figures, tables
from ..report.render import render
from ..shards import ShardSet
from .display import console, progress_bar
from .evaluation import evaluate, score, scores_record
from .prediction import LONG_SECONDS, ClipFiles, find_inputs, predict, predict_windows
from .run_folder import versions

ALL_FINE, NOTHING_DONE, SOME_FAILED = 0, 1, 2


def load_model(options: Namespace) -> ViPER:
    """The checkpoint's model, frozen, on the chosen device."""
    model = ViPER.from_pretrained(options.checkpoint, overrides=backbone_overrides(options.backbone))
    device = getattr(options, "device", None) or ("cuda" if torch.cuda.is_available() else "cpu")
    return model.to(device)


def run_infer(options: Namespace) -> int:
    """Score what was named; table on stdout, records in ``--output``."""
    sources = find_inputs(options.inputs)
    for path in filter(None, (options.output,)):
        check_output(Path(path))
    only = _the_one_clip(sources, options)
    model = load_model(options)
    if options.window_seconds:
        hop = options.hop_seconds or options.window_seconds / 2
        records = _infer_windows(model, sources, options.window_seconds, hop, options.faces)
    else:
        records = _infer_clips(model, sources, options)
    console_out = tables.stdout_console()
    console_out.print(tables.records_table(records, model.labels.names))
    if options.output:
        write_records(records, Path(options.output))
        console.print(f"records: {options.output}")
    if options.plot and any(record["valid"] for record in records):
        console.print(f"plot: {figures.windows_plot(records, Path(options.plot))}")
    if options.render and records[0]["valid"]:
        console.print(f"video: {render(only, records[0], Path(options.render))}")
    failures = sum(not record["valid"] for record in records)
    if failures == len(records):
        return NOTHING_DONE
    return SOME_FAILED if failures else ALL_FINE


def _the_one_clip(sources: list[ClipFiles | ShardSet], options: Namespace) -> Path | None:
    """``--render`` and ``--plot`` speak of one clip."""
    wants_one = [name for name in ("render", "plot") if getattr(options, name)]
    if not wants_one:
        return None
    if len(sources) != 1 or len(sources[0]) != 1 or not isinstance(sources[0], ClipFiles):
        raise ViperError(f"--{wants_one[0]} takes exactly one clip file")
    if options.plot and not options.window_seconds:
        raise ViperError("--plot shows windows over time; add --window-seconds, e.g. 12")
    if options.render and options.window_seconds:
        raise ViperError("--render shows the whole clip; leave out --window-seconds")
    return sources[0].paths[0]


def _infer_clips(model: ViPER, sources: list[ClipFiles | ShardSet], options: Namespace) -> list[Record]:
    records: list[Record] = []
    with progress_bar() as bar:
        task = bar.add_task("scoring", total=sum(len(source) for source in sources), note="")
        for source in sources:
            for record in predict(
                model,
                source,
                batch_size=options.batch_size,
                num_workers=options.num_workers,
                boxes=options.faces or bool(options.render),
            ):
                records.append(record)
                bar.update(task, advance=1, note=Path(record["clip"]).name)
    for record in records:
        if record["valid"] and record["duration_seconds"] > LONG_SECONDS:
            console.print(
                f"{record['clip']}: {record['duration_seconds']:.0f} s seen in "
                f"{len(record['frame_seconds'])} frames; --window-seconds 12 looks closer"
            )
    return records


def _infer_windows(
    model: ViPER, sources: list[ClipFiles | ShardSet], window: float, hop: float, boxes: bool
) -> list[Record]:
    records: list[Record] = []
    for source in sources:
        if not isinstance(source, ClipFiles):
            raise ViperError("--window-seconds takes clip files, not shards")
        for path in source.paths:
            records += predict_windows(model, path, window, hop, boxes=boxes)
    return records


def run_eval(options: Namespace) -> int:
    """Score shards once and write everything that can be said of it into ``--out``."""
    shards = ShardSet(options.shards)
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    model = load_model(options)
    accelerator = Accelerator(cpu=model.device.type == "cpu")
    loader = ClipLoader(
        shards,
        DecodeSample(ClipDecoder(model.config.decoding)),
        batch_size=options.batch_size,
        shuffle=False,
        num_workers=options.num_workers,
        process_index=accelerator.process_index,
        num_processes=accelerator.num_processes,
    )
    with loader, progress_bar(disable=not accelerator.is_main_process) as bar:
        task = bar.add_task("scoring", total=len(shards), note="")
        predictions = evaluate(
            model,
            loader,
            accelerator,
            on_batch=lambda batch, _: bar.update(task, completed=batch.next_position),
        )
    if not accelerator.is_main_process:
        return ALL_FINE
    predictions.write_csv(out / "predictions.csv")
    made = [out / "predictions.csv"]
    if predictions.scored.sum() >= 2:
        scored = predictions.scored
        intervals = bootstrap(predictions.predicted[scored], predictions.true[scored])
        scores = score(predictions)
        metrics: dict[str, Any] = scores_record(scores) | {"intervals": tables.intervals_record(intervals)}
        checkpoint.write_json(out / "metrics.json", metrics | {"versions": versions()})
        tables.stdout_console().print(tables.metrics_table(scores, intervals))
        made += [out / "metrics.json", figures.predicted_against_true(predictions, out / "scatter.png")]
    else:
        console.print("no labelled clip could be read: predictions only, no metrics")
    for path in made:
        console.print(f"wrote {path}")
    if not predictions.valid.any():
        return NOTHING_DONE
    return ALL_FINE if predictions.valid.all() else SOME_FAILED


def run_export(options: Namespace) -> int:
    """Write a folder that needs nothing outside of itself."""
    out = Path(options.out)
    if out.exists():
        raise ViperError(f"{out}: exists already; name a new folder")
    load_model(options).save_pretrained(out, self_contained=True)
    console.print(f"wrote {out}")
    return ALL_FINE
