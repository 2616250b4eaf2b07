"""evaluation.py: `viper eval`: everything that can be said of a model on shards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch

from viper_e2e.clip import DecodedClip
from viper_e2e.commands.common import load_model, reading_of, score_shards, tell_failed
from viper_e2e.commands.reading_options import shard_limits
from viper_e2e.config import AblateConfig, EvalConfig, looks_at_face
from viper_e2e.encoders import PreparedClip
from viper_e2e.errors import ClipError, ExitCode, ViperError
from viper_e2e.labels import HUME_REACTION, LabelSet, name_of, order_of
from viper_e2e.loading import DecodeSample
from viper_e2e.model import Predictions, ViPER, checkpoint, submission_ids, yardstick_line
from viper_e2e.report import (
    class_confusion,
    confusion_matrices,
    extremes,
    figures,
    has_dominant,
    reliability_plot,
    selective_plot,
    tables,
    words,
    write_page,
)
from viper_e2e.runtime import (
    AS_IT_IS,
    console,
    settle_folder,
    versions,
    written_whole,
)
from viper_e2e.scoring import (
    GroupScores,
    Hooks,
    Intervals,
    LabelMap,
    Scores,
    Subset,
    finite_or_none,
    groups_of,
    labels_record,
    measure,
    measured_coverage,
    readable,
    refuse_empty,
    reliability,
    score,
    score_groups,
    scores_record,
    selective,
    task_record,
    task_reliability,
    task_scores,
)
from viper_e2e.shards import ShardError, ShardSet, without_query
from viper_e2e.tasks import Task
from viper_e2e.training import folds_from

STRIP_SIZE = 96
"""Side of the face crops shown in the report, in pixels."""


def run_eval(options: EvalConfig) -> int:
    """Score shards once and write everything that can be said of it into ``--out``."""
    shards, out = ShardSet(options.shards, limits=shard_limits(options)), Path(options.out)
    settle_folder(out, "--out")
    if options.fold:
        shards = folds_from(shards, options.folds).of_fold(shards, options.fold)
    refuse_empty(shards, options.shards)
    model = load_model(options)
    columns = _submission_labels(model.labels, shards.labels)
    shards, mapping = _labelled(shards, model, options)
    groups = groups_of(shards, [name.strip() for words in options.by for name in words.split(",")])
    if options.submission:
        _check_submission(shards, columns, out / "submission.csv")
    found, processes, journal = score_shards(model, shards, options, out)
    if not processes.is_main:
        return ExitCode.OK
    predictions = Predictions.of(found, model.labels, model.modalities, shards)
    predictions = _settle_faceless(predictions, options)
    predictions = predictions if mapping is None else mapping.measured(predictions)
    _tell_calibration_clips(model, shards)
    by_group = score_groups(predictions, groups)
    made, scores, intervals = _write_numbers(predictions, by_group, model, shards, options)
    if options.submission:
        made.append(_write_submission(predictions, model, columns, out / "submission.csv"))
    if processes.count == 1:
        journal.remove()
    pictures = _draw(predictions, out) if scores is not None else {}
    made += pictures.values()
    if options.report:
        made.append(_write_report(predictions, scores, intervals, pictures, model, shards, options))
    for path in made:
        console.print(f"wrote {path}", **AS_IT_IS)
    if scores is not None:
        _show(predictions, scores, intervals, by_group)
    blind = set(np.array(predictions.keys)[predictions.faceless]) if options.no_face == "nan" else set()
    if without := [key for key in predictions.keys_without_number if key not in blind]:
        console.print(f"[yellow]no finite number for {', '.join(without)}: in no metric[/yellow]")
    tell_failed(predictions)
    if not predictions.valid.any():
        return ExitCode.NOTHING_DONE
    all_drawn = scores is None or len(pictures) == sum(len(names) for names, _ in drawings(predictions, out))
    fine = predictions.valid.all() and not without and not shards.left_out and all_drawn
    return ExitCode.OK if fine else ExitCode.SOME_FAILED


def _show(
    predictions: Predictions, scores: Scores, intervals: Intervals | None, by_group: Sequence[GroupScores]
) -> None:
    """Each task in its own measures; intensities alone emotion by emotion; then groups."""
    shown = tables.stdout_console()
    made = [tables.metrics_table(scores, intervals)]
    if predictions.labels.tasks:
        made = [table for one in task_scores(predictions).values() for table in tables.task_tables(one)]
    made += [table for one in by_group for table in tables.group_tables(one)]
    for table in made:
        shown.print(table)
        if len(made) > 1:
            shown.print()


def _labelled(shards: ShardSet, model: ViPER, options: EvalConfig) -> tuple[ShardSet, LabelMap | None]:
    """Shards with the model's labels; with ``--map`` of those that both have, and what is left out is said."""
    if not options.map:
        try:
            return shards.labelled_as(model.labels, "the model"), None
        except ShardError as error:
            raise ViperError(
                f"{error}; --map THEIRS=OURS measures what both have (--map same: by equal names)"
            ) from error
    if shards.labels is None:
        raise ViperError(f"--map: {without_query(options.shards)} has no labels to be mapped")
    if options.submission:
        raise ViperError("--submission has all the model's labels; leave out --map")
    words = [] if options.map == ["same"] else options.map
    mapping = LabelMap.of(shards.labels, model.labels, words)
    for line in (*mapping.told, *mapping.lost(shards)):
        console.print(f"--map: {line}", style="yellow", **AS_IT_IS)
    return mapping.applied(shards), mapping


def _tell_calibration_clips(model: ViPER, shards: ShardSet) -> None:
    if model.calibration is not None and model.calibration.clips["sha256"] == shards.content_id():
        told = (
            "these are the clips that the model was calibrated on: how well it is calibrated says little here"
        )
        console.print(told, style="yellow")


def _settle_faceless(predictions: Predictions, options: EvalConfig) -> Predictions:
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
    predictions: Predictions,
    by_group: Sequence[GroupScores],
    model: ViPER,
    shards: ShardSet,
    options: EvalConfig,
) -> tuple[list[Path], Scores | None, Intervals | None]:
    """Everything that was computed, before anything is drawn or shown."""
    out = Path(options.out)
    predictions.write_csv(out / "predictions.csv", bom=options.bom)
    if predictions.scored.sum() < 2:
        console.print("no two labelled clips could be read: predictions only, no metrics")
        return [out / "predictions.csv"], None, None
    scores, intervals = measure(predictions)
    record = _metrics_record(scores, intervals, options.mixed_precision)
    record |= source_record(model, shards, options) | {"num_failed": int((~predictions.valid).sum())}
    if predictions.labels.tasks:
        record["tasks"] = {name: task_record(one) for name, one in task_scores(predictions).items()}
        for name, (found, curve) in task_reliability(predictions).items():
            area = {"area_of_error_by_share_kept": finite_or_none(curve.area)}
            record["tasks"][name]["reliability"] = found.to_json() | area
    if model.calibration is not None:
        covered = measured_coverage(predictions, model.calibration)
        record["calibration"] = {"clips": dict(model.calibration.clips), "found": covered}
        record["calibration"]["coverage"] = model.calibration.coverage
    if by_group:
        record["by"] = {one.name: one.to_json() for one in by_group}
    record["labels"] = labels_record(predictions.labels)
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
    options: EvalConfig,
) -> Path:
    return write_page(
        Path(options.out) / "report.html",
        predictions,
        scores,
        intervals,
        figures=pictures,
        strips=_strips(model, shards, predictions, options),
        config=asdict(model.config),
        versions=versions(),
        yardstick=yardstick_line(model.provenance),
        title=_title(options.checkpoint, options.shards),
        tasks=task_scores(predictions) if predictions.labels.tasks and scores is not None else None,
    )


def _title(source: str, pattern: str) -> str:
    """The names of model and shards, not where on some machine they lie."""
    parts = [part for part in PurePath(source).parts if part not in ("checkpoints", "/", ".", "..")]
    # A run's checkpoints are all called `best`; a hub's models are called after their owners too.
    return f"{'/'.join(parts[-2:])} on {without_query(pattern).rpartition('/')[2]}"


def source_record(model: ViPER, shards: ShardSet, options: EvalConfig | AblateConfig) -> dict[str, Any]:
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
    return any(map(looks_at_face, predictions.modalities))


Drawing = tuple[tuple[str, ...], Callable[[], Sequence[Path]]]
"""Captions, and what makes as many pictures."""


def drawings(predictions: Predictions, out: Path) -> list[Drawing]:
    """All that is drawn of an evaluation: of each task in its kind, then of all."""
    found: list[Drawing] = []
    for task, part in predictions.by_task():
        name = name_of(task.name)
        of_task, suffix = (f": {words(name)}", f"_{name}") if predictions.labels.tasks else ("", "")
        if task.kind in ("class", "labels") and part.scored.any():
            found.append(((f"Said and found{of_task}",), partial(_reliability, part, task, out)))
            found.append(((f"Score against confidence{of_task}",), partial(_selective, part, task, out)))
        if task.kind == "class" and part.scored.any():
            found.append(((f"Confusion{of_task}",), partial(class_confusion, part, name, out)))
        elif task.kind in ("intensities", "number") and (part.scored.any() or not suffix):
            scatter = out / f"scatter{suffix}.png"
            found.append(((f"Predicted against true{of_task}",), partial(_scatter, part, scatter)))
            captions = [f"True against predicted intensity, in tenths{of_task}"]
            captions += [f"The dominant emotion{of_task}"] * has_dominant(part.labels)
            found.append((tuple(captions), partial(confusion_matrices, part, out, suffix)))
    if _sees(predictions):
        faces = out / "error_against_faces.png"
        found.append(
            (("Error against visible faces",), lambda: [figures.error_against_faces(predictions, faces)])
        )
    return found


def _scatter(predictions: Predictions, path: Path) -> list[Path]:
    return [figures.predicted_against_true(predictions, path)]


def _reliability(predictions: Predictions, task: Task, out: Path) -> list[Path]:
    one, name = reliability(task, *_of_scored(predictions), num_resamples=0), name_of(task.name)
    return [reliability_plot(one, task.kind, name, out / f"reliability_{name}.png")]


def _selective(predictions: Predictions, task: Task, out: Path) -> list[Path]:
    curve, name = selective(task, *_of_scored(predictions)), name_of(task.name)
    return [selective_plot(curve, tables.MEASURES, name, out / f"confidence_{name}.png")]


def _of_scored(predictions: Predictions) -> tuple[np.ndarray, np.ndarray]:
    return predictions.predicted[predictions.scored], predictions.true[predictions.scored]


def _draw(predictions: Predictions, out: Path) -> dict[str, Path]:
    """Caption → picture, of those that could be drawn."""
    pictures: dict[str, Path] = {}
    for captions, draw in drawings(predictions, out):
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


def _strips(
    model: ViPER, shards: ShardSet, predictions: Predictions, options: EvalConfig
) -> dict[str, list[np.ndarray]]:
    """Face crops of the best and the worst clips, for people to look at."""
    keys = {predictions.keys[row] for rows in extremes(predictions) for row in rows}
    shown = Subset(shards, [i for i in range(len(shards)) if shards.entry(i).key in keys])
    strips: dict[str, list[np.ndarray]] = {}

    def keep(_: int, decoded: DecodedClip | ClipError) -> None:
        with torch.no_grad():
            (clip,) = model.prepare([decoded])
        if isinstance(clip, PreparedClip) and clip.pixels is not None:
            strips[clip.name] = model.faces.pictures(clip.pixels, clip.track.boxes, STRIP_SIZE)

    decode, hooks = DecodeSample(model.decoder), Hooks(on_clip=keep)
    for _ in score(None, shown, reading_of(options), decode=decode, hooks=hooks):
        pass
    return strips
