"""evaluation.py: `viper eval` and `viper ablate`: everything that can be said of a model on shards."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import combinations
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from viper_e2e.commands.common import load_model, set_computing
from viper_e2e.commands.reading_options import shard_limits
from viper_e2e.errors import ClipError, ExitCode, ViperError
from viper_e2e.labels import HUME_REACTION, LabelSet, order_of
from viper_e2e.loading.clip_reader import DecodeSample
from viper_e2e.loading.loader import ClipLoader
from viper_e2e.model import checkpoint
from viper_e2e.model.predictions import SEEING, Predictions, submission_ids
from viper_e2e.model.prepared import PreparedClip
from viper_e2e.model.pretrained import yardstick_line
from viper_e2e.model.viper import ViPER, ViPEROutput
from viper_e2e.report import figures, tables
from viper_e2e.report.confusion import confusion_matrices, has_dominant
from viper_e2e.report.page import extremes, write_page
from viper_e2e.runtime.console import AS_IT_IS, console, progress_bar, table, tell_problems
from viper_e2e.runtime.outfiles import settle_folder, written_whole
from viper_e2e.runtime.processes import Processes
from viper_e2e.runtime.version import versions
from viper_e2e.scoring.evaluation import predictions_of, score, scored_rows, scores_record
from viper_e2e.scoring.journal import ResultJournal, Subset, identity_of, scoring_accelerator
from viper_e2e.scoring.metrics import Intervals, Scores, batch_sums, bootstrap
from viper_e2e.scoring.metrics import scores as scores_of_sums
from viper_e2e.scoring.sources import refuse_empty
from viper_e2e.scoring.tabular import readable
from viper_e2e.shards import ShardSet, without_query

NUM_PICTURES = 4
"""Of a model that sees, with labels of which one may be dominant."""

STRIP_SIZE = 96
"""Side of the face crops shown in the report, in pixels."""


def run_eval(options: Namespace) -> int:
    """Score shards once and write everything that can be said of it into ``--out``."""
    shards, out = ShardSet(options.shards, limits=shard_limits(options)), Path(options.out)
    settle_folder(out, "--out")
    refuse_empty(shards, options.shards)
    model = load_model(options)
    columns = _submission_labels(model.labels, shards.labels)
    shards = shards.labelled_as(model.labels, "the model")
    if options.submission:
        _check_submission(shards, columns, out / "submission.csv")
    processes = Processes(scoring_accelerator(model.device))
    with processes.telling_failures():
        if processes.is_main:
            tell_problems(shards.problems)
        set_computing(model, options, processes)
        parts = ResultJournal(out / "parts", identity_of(model, options), processes)
        predictions = _score(model, shards, parts, options)
    if predictions is None:
        return ExitCode.OK
    predictions = _settle_faceless(predictions.with_failed(shards.unusable), options)
    made, scores, intervals = _write_numbers(predictions, model, shards, options)
    if options.submission:
        made.append(_write_submission(predictions, model, columns, out / "submission.csv"))
    if processes.count == 1:
        parts.remove()
    pictures = _draw(predictions, out) if scores is not None else {}
    made += pictures.values()
    if options.report:
        made.append(_write_report(predictions, scores, intervals, pictures, model, shards, options))
    for path in made:
        console.print(f"wrote {path}", **AS_IT_IS)
    if scores is not None:
        tables.stdout_console().print(tables.metrics_table(scores, intervals))
    blind = set(np.array(predictions.keys)[predictions.faceless]) if options.no_face == "nan" else set()
    if without := [key for key in predictions.keys_without_number if key not in blind]:
        console.print(f"[yellow]no finite number for {', '.join(without)}: in no metric[/yellow]")
    if not predictions.valid.any():
        return ExitCode.NOTHING_DONE
    num_pictures = NUM_PICTURES - (not has_dominant(predictions.labels)) - (not _sees(predictions))
    all_drawn = scores is None or len(pictures) == num_pictures
    fine = predictions.valid.all() and not without and not shards.left_out and all_drawn
    return ExitCode.OK if fine else ExitCode.SOME_FAILED


def _settle_faceless(predictions: Predictions, options: Namespace) -> Predictions:
    """Say how many clips show no face, and leave their numbers out where that is wanted."""
    num_empty = int((predictions.valid & ~predictions.present.any(1)).sum())
    if num_empty:
        told = "in which nothing could be seen or heard: their numbers are what the model says of nothing"
        console.print(f"{num_empty} clips {told}", style="yellow")
    num_faceless = int(predictions.faceless.sum())
    if num_faceless and options.no_face == "nan":
        console.print(f"{num_faceless} clips without any face: no numbers, in no metric (--no-face nan)")
        return predictions.without_faceless()
    if num_faceless:
        told = "their whole pictures were scored (--no-face nan leaves them out)"
        console.print(f"{num_faceless} clips without any face: {told}", style="yellow")
    return predictions


def _write_numbers(
    predictions: Predictions, model: ViPER, shards: ShardSet, options: Namespace
) -> tuple[list[Path], Scores | None, Intervals | None]:
    """Everything that was computed, before anything is drawn or shown."""
    out = Path(options.out)
    predictions.write_csv(out / "predictions.csv", bom=options.bom)
    if predictions.scored.sum() < 2:
        console.print("no two labelled clips could be read: predictions only, no metrics")
        return [out / "predictions.csv"], None, None
    scores, intervals = measure(predictions)
    record = _metrics_record(scores, intervals, options.mixed_precision)
    record |= _source_record(model, shards, options) | {"num_failed": int((~predictions.valid).sum())}
    record["num_without_face"] = int(predictions.faceless.sum())
    if predictions.keys_without_number:
        record["without_number"] = predictions.keys_without_number
    with written_whole(out / "metrics.json") as partial:
        checkpoint.write_json(partial, readable(record))
    return [out / "predictions.csv", out / "metrics.json"], scores, intervals


def _write_report(
    predictions: Predictions,
    scores: Scores | None,
    intervals: Intervals | None,
    pictures: dict[str, Path],
    model: ViPER,
    shards: ShardSet,
    options: Namespace,
) -> Path:
    return write_page(
        Path(options.out) / "report.html",
        predictions,
        scores,
        intervals,
        figures=pictures,
        strips=_strips(model, shards, predictions),
        config=asdict(model.config),
        versions=versions(),
        yardstick=yardstick_line(model.provenance),
        title=_title(options.checkpoint, options.shards),
    )


def _title(source: str, pattern: str) -> str:
    """The names of model and shards, not where on some machine they lie."""
    parts = [part for part in PurePath(source).parts if part not in ("checkpoints", "/", ".", "..")]
    # A run's checkpoints are all called `best`; a hub's models are called after their owners too.
    return f"{'/'.join(parts[-2:])} on {without_query(pattern).rpartition('/')[2]}"


def measure(predictions: Predictions) -> tuple[Scores, Intervals]:
    """Scores over the labelled, readable clips, with 95 % bootstrap intervals."""
    scored = predictions.scored
    return score(predictions), bootstrap(predictions.predicted[scored], predictions.true[scored])


def _loader(model: ViPER, shards: Any, accelerator: Accelerator, options: Namespace) -> ClipLoader:
    return ClipLoader(
        shards,
        DecodeSample(model.decoder),
        batch_size=options.batch_size,
        shuffle=False,
        num_workers=options.num_workers,
        clip_timeout_seconds=options.clip_timeout_seconds,
        max_restarts=options.max_worker_restarts,
        process_index=accelerator.process_index,
        num_processes=accelerator.num_processes,
    )


def _score(model: ViPER, shards: ShardSet, parts: ResultJournal, options: Namespace) -> Predictions | None:
    """Score what an earlier, interrupted run has not; the first process gets the whole, the others nothing."""
    processes = parts.processes
    names = [f"{shards.entry(i).key} {shards.clip_id(i)}" for i in range(len(shards))]
    known = parts.known().keys() & set(names)
    remaining = Subset(shards, [i for i, name in enumerate(names) if name not in known])
    accelerator = processes.accelerator
    with (
        _loader(model, remaining, accelerator, options) as loader,
        progress_bar(disable=not processes.is_main) as bar,
    ):
        task = bar.add_task("scoring", total=len(shards), completed=len(known), note="")
        for rows in scored_rows(model, loader):
            parts.add({names[remaining.indices[row["position"]]]: row for row in rows})
            bar.update(task, advance=len(rows) * processes.count)
    outcomes = parts.known()
    if not processes.is_main:
        return None
    # Where a clip stands is what these shards say, not those of an earlier run.
    rows = [outcomes[name] | {"position": i} for i, name in enumerate(names) if name in outcomes]
    return predictions_of(rows, model, shards)


def _source_record(model: ViPER, shards: ShardSet, options: Namespace) -> dict[str, Any]:
    """Of what something is told: the model and the clips, by what they hold rather than where they lie."""
    return {
        "checkpoint": {"source": str(options.checkpoint), "sha256": model.content_id},
        "shards": {
            "pattern": without_query(options.shards),
            "clips": len(shards),
            "sha256": shards.content_id(),
        },
    }


def _metrics_record(scores: Scores, intervals: Intervals, precision: str) -> dict[str, Any]:
    spans = tables.intervals_record(intervals, scores.names)
    return scores_record(scores) | {"intervals_95": spans, "mixed_precision": precision, "versions": versions()}


def _sees(predictions: Predictions) -> bool:
    """Whether faces were looked for at all."""
    return any(name in SEEING for name in predictions.modalities)


def _draw(predictions: Predictions, out: Path) -> dict[str, Path]:
    """Caption → picture, of those that could be drawn."""
    scatter, faces = out / "scatter.png", out / "error_against_faces.png"
    drawings: list[tuple[tuple[str, ...], Callable[[], Sequence[Path]]]] = [
        (("Predicted against true",), lambda: [figures.predicted_against_true(predictions, scatter)]),
        (
            ("True against predicted intensity, in tenths", "The dominant emotion"),
            lambda: confusion_matrices(predictions, out),
        ),
    ]
    if _sees(predictions):
        drawings.append(
            (("Error against visible faces",), lambda: [figures.error_against_faces(predictions, faces)])
        )
    pictures: dict[str, Path] = {}
    for captions, draw in drawings:
        try:
            pictures |= dict(zip(captions, draw(), strict=False))
        except figures.CANNOT_DRAW as error:
            console.print(f"{captions[0]}: not drawn: {error}", style="yellow", **AS_IT_IS)
    return pictures


def _submission_labels(model: LabelSet, corpus: LabelSet | None) -> LabelSet:
    """Titles and order of a submission: the challenge's for its own seven, else the scored corpus's."""
    for labels in (HUME_REACTION, corpus):
        if labels is not None and order_of(model.names, labels.names) is not None:
            return labels
    return model


def _check_submission(shards: ShardSet, columns: LabelSet, path: Path) -> None:
    """What would stop a submission stops it before hours of scoring."""
    entries = [shards.entry(i) for i in range(len(shards))]
    submission_ids(path, [entry.file_id for entry in entries], [entry.key for entry in entries], columns)


def _write_submission(predictions: Predictions, model: ViPER, columns: LabelSet, path: Path) -> Path:
    fallback, whose = model.labels.means, "the mean of the training labels"
    if fallback is None:
        # A released checkpoint: its authors' labels are not at hand.
        readable = predictions.valid & np.isfinite(predictions.predicted).all(1)
        if not readable.any():
            raise ViperError(f"{path}: not written, no clip could be read")
        fallback = predictions.predicted[readable].mean(0).tolist()
        whose = "the mean prediction (this checkpoint does not know its training labels)"
    unread = predictions.write_submission(path, fallback, columns)
    if unread:
        console.print(f"[yellow]{len(unread)} unreadable, given {whose}: {', '.join(unread)}[/yellow]")
    return path


@torch.no_grad()
def _strips(model: ViPER, shards: ShardSet, predictions: Predictions) -> dict[str, list[np.ndarray]]:
    """Face crops of the best and the worst clips, for people to look at."""
    best, worst = extremes(predictions)
    keys = {predictions.keys[row] for row in (*best, *worst)}
    strips = {}
    for i in range(len(shards)):
        if shards.entry(i).key not in keys:
            continue
        clip = model.prepare([shards.read(i)])[0]
        if isinstance(clip, PreparedClip):
            strips[clip.name] = model.faces.pictures(clip.pixels, clip.track.boxes, STRIP_SIZE)
    return strips


# --- which modality does what -----------------------------------------------------------------------


def run_ablate(options: Namespace) -> int:
    """Score every non-empty subset of the trained modalities from one pass of encoding."""
    shards, out = ShardSet(options.shards, limits=shard_limits(options)), Path(options.out)
    settle_folder(out, "--out")
    refuse_empty(shards, options.shards)
    model = load_model(options)
    shards = shards.labelled_as(model.labels, "the model")
    processes = Processes(scoring_accelerator(model.device))
    with processes.telling_failures():
        if processes.is_main:
            tell_problems(shards.problems)
        set_computing(model, options, processes)
        subsets = [
            chosen
            for size in range(1, len(model.modalities) + 1)
            for chosen in combinations(model.modalities, size)
        ]
        own = _scored_subsets(model, shards, subsets, processes, options)
        scored = dict(processes.gather_list(own, purpose="gathering the scores of all processes"))
    if not processes.is_main:
        return ExitCode.OK
    if len(scored) < 2:
        raise ViperError(f"{options.shards}: ablation needs at least two labelled clips that can be read")
    positions = sorted(scored)
    truth = np.array([shards.entry(position).intensities for position in positions], dtype=np.float64)
    predicted = np.array([scored[position] for position in positions], dtype=np.float64)
    rows = [_ablation_row(chosen, predicted[:, i], truth, model) for i, chosen in enumerate(subsets)]
    # Undefined where the labels, or what is predicted, do not vary: last.
    rows.sort(key=lambda row: -row["mean_pearson"] if np.isfinite(row["mean_pearson"]) else np.inf)
    return _write_ablation(rows, out, _source_record(model, shards, options))


@torch.no_grad()
def _scored_subsets(
    model: ViPER,
    shards: ShardSet,
    subsets: Sequence[tuple[str, ...]],
    processes: Processes,
    options: Namespace,
) -> list[tuple[int, list[list[float]]]]:
    """Position and a row of intensities per subset, of each usable clip of this process's share."""
    scored = []
    with (
        _loader(model, shards, processes.accelerator, options) as loader,
        progress_bar(disable=not processes.is_main) as bar,
    ):
        task = bar.add_task("scoring", total=len(shards), note="")
        for batch in loader.epoch(0):
            prepared = model.prepare(batch.clips)
            values = [_intensities(model, prepared, chosen) for chosen in subsets]
            for row, position in enumerate(batch.positions):
                if position is not None and batch.weights[row] > 0 and not isinstance(prepared[row], ClipError):
                    scored.append((position, [subset[row] for subset in values]))
            bar.update(task, completed=batch.next_position)
    return scored


def _intensities(model: ViPER, prepared: list[Any], chosen: tuple[str, ...]) -> list[list[float]]:
    """Of a batch whose clips show these modalities alone."""
    hidden = torch.tensor([name not in chosen for name in model.modalities], device=model.device)
    output: ViPEROutput = model.fuse(prepared, hidden=hidden.expand(len(prepared), -1))
    return output.intensities.cpu().double().tolist()


def _ablation_row(
    chosen: tuple[str, ...], predicted: np.ndarray, true: np.ndarray, model: ViPER
) -> dict[str, Any]:
    sums = batch_sums(torch.from_numpy(predicted), torch.from_numpy(true), torch.ones(len(true)))
    span = bootstrap(predicted, true).mean_pearson
    result = scores_of_sums(sums, model.labels.names)
    return {
        "modalities": list(chosen),
        "mean_pearson": result.mean_pearson,
        "low": span.low,
        "high": span.high,
        "pearson": dict(zip(result.names, result.pearson, strict=True)),
    }


def _write_ablation(rows: list[dict[str, Any]], out: Path, source: dict[str, Any]) -> int:
    cells = [
        (", ".join(row["modalities"]), f"{row['mean_pearson']:.3f}", f"[{row['low']:.3f}, {row['high']:.3f}]")
        for row in rows
    ]
    with written_whole(out / "ablation.json") as partial:
        checkpoint.write_json(partial, readable({"rows": rows, **source, "versions": versions()}))
    console.print(f"wrote {out / 'ablation.json'}", **AS_IT_IS)
    code = ExitCode.OK
    try:
        console.print(f"wrote {figures.ablation_plot(rows, out / 'ablation.png')}", **AS_IT_IS)
    except figures.CANNOT_DRAW as error:
        console.print(f"{out / 'ablation.png'}: not drawn: {error}", style="yellow", **AS_IT_IS)
        code = ExitCode.SOME_FAILED
    tables.stdout_console().print(table("ablation", ("modalities", "mean Pearson", "95 % interval"), cells))
    return code
