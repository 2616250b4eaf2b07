"""evaluation.py: `viper eval`: scores a model on shards: metrics, predictions, plots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from viper_e2e.commands.common import load_model, score_shards, tell_failed
from viper_e2e.commands.evaluation_plots import draw_all, drawings, face_strips
from viper_e2e.commands.pictures import draw
from viper_e2e.commands.reading_options import shard_limits
from viper_e2e.commands.submission import check_submission, submission_labels, write_submission
from viper_e2e.commands.training_clips import training_clips_among
from viper_e2e.config import AblateConfig, EvalConfig
from viper_e2e.errors import ExitCode, ViperError
from viper_e2e.labels import LabelSet
from viper_e2e.model import Predictions, ViPER, checkpoint, yardstick_line
from viper_e2e.report import stdout_console, tables, write_page
from viper_e2e.runtime import AS_IT_IS, console, count_of, settle_folder, versions, written_whole
from viper_e2e.scoring import (
    GroupScores,
    LabelMap,
    Scores,
    finite_or_none,
    groups_of,
    measured_coverage,
    readable,
    refuse_empty,
    score_groups,
    scores_of,
    scores_record,
    task_reliability,
)
from viper_e2e.shards import ShardError, ShardSet, without_query
from viper_e2e.splits import folds_from


def run_eval(options: EvalConfig) -> int:
    """Score shards once and write everything that can be said of it into ``--out``."""
    shards, out = ShardSet(options.shards, limits=shard_limits(options)), Path(options.out)
    settle_folder(out, "--out")
    if options.fold:
        shards = folds_from(shards, options.folds).of_fold(shards, options.fold)
    refuse_empty(shards, options.shards)
    model = load_model(options)
    columns = submission_labels(model.labels, shards.labels)
    labels = measured_labels(model, shards.labels)
    shards, mapping = _labelled(shards, model, options)
    groups = groups_of(shards, [name.strip() for words in options.by for name in words.split(",")])
    if options.submission:
        check_submission(shards, columns, out / "submission.csv")
    found, processes, journal = score_shards(model, shards, options, out)
    if not processes.is_main:
        return ExitCode.OK
    predictions = Predictions.of(found, labels, model.modalities, shards)
    predictions = _settle_faceless(predictions, options)
    predictions = predictions if mapping is None else mapping.measured(predictions)
    _tell_calibration_clips(model, shards)
    # Of a fold the shards are those of training, and its clips are not.
    if not options.fold and (told := training_clips_among(model, shards, options.checkpoint)):
        console.print(told, style="yellow", **AS_IT_IS)
    evaluation = Evaluation(predictions, score_groups(predictions, groups), model, shards, options)
    made = evaluation.write_numbers()
    if options.submission:
        made.append(write_submission(predictions, model, columns, out / "submission.csv"))
    if processes.count == 1:
        journal.remove()
    pictures = draw_all(predictions, out) if evaluation.scores is not None else {}
    made += pictures.values()
    for path in made:
        console.print(f"wrote {path}", **AS_IT_IS)
    num_wanted = sum(len(names) for names, _ in drawings(predictions, out))
    all_drawn = evaluation.scores is None or len(pictures) == num_wanted
    if options.report:
        all_drawn &= draw(out / "report.html", lambda: evaluation.write_page(pictures))
    evaluation.show()
    blind = set(np.array(predictions.keys)[predictions.faceless]) if options.no_face == "nan" else set()
    if without := [key for key in predictions.keys_without_number if key not in blind]:
        console.print(f"[yellow]no finite number for {', '.join(without)}: left out of all metrics[/yellow]")
    tell_failed(predictions)
    if not predictions.valid.any():
        return ExitCode.NOTHING_DONE
    fine = predictions.valid.all() and not without and not shards.left_out and all_drawn
    return ExitCode.OK if fine else ExitCode.SOME_FAILED


def measured_labels(model: ViPER, corpus: LabelSet | None) -> LabelSet:
    """The model's labels with what the corpus that is scored is measured by, and what was fitted for it."""
    labels = model.labels if corpus is None else model.labels.measured_as(corpus)
    of_tasks = {} if model.calibration is None else model.calibration.tasks
    found = {name: one.thresholds for name, one in of_tasks.items() if one.thresholds}
    return labels.with_thresholds(labels.thresholds | found)


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
        raise ViperError(f"--map: {without_query(options.shards)} has no labels to map")
    if options.submission:
        raise ViperError("--submission needs all labels of the model; leave out --map")
    words = [] if options.map == ["same"] else options.map
    mapping = LabelMap.of(shards.labels, model.labels, words)
    for line in (*mapping.notes, *mapping.lost(shards)):
        console.print(f"--map: {line}", style="yellow", **AS_IT_IS)
    return mapping.applied(shards), mapping


def _tell_calibration_clips(model: ViPER, shards: ShardSet) -> None:
    if model.calibration is not None and model.calibration.clips["sha256"] == shards.content_id():
        told = "the model was calibrated on these clips: it looks better calibrated here than it is"
        console.print(told, style="yellow")


def _settle_faceless(predictions: Predictions, options: EvalConfig) -> Predictions:
    """Say what clips lack, and how many show no face, whose numbers are left out where that is wanted."""
    num_empty = int((predictions.valid & ~predictions.present.any(1)).sum())
    if num_empty:
        told = "in which nothing could be seen or heard: the model answered without any input"
        console.print(f"{count_of(num_empty, 'clip')} {told}", style="yellow")
    elif predictions.valid.any():
        for name in predictions.absent:
            console.print(f"{name}: no clip has this modality; the model scored without it", style="yellow")
    num_faceless = int(predictions.faceless.sum())
    if num_faceless and options.no_face == "nan":
        console.print(
            f"{count_of(num_faceless, 'clip')} without any face: left out of all metrics (--no-face nan)"
        )
        return predictions.without_faceless()
    if num_faceless:
        told = "their whole pictures were scored (--no-face nan leaves them out)"
        console.print(f"{count_of(num_faceless, 'clip')} without any face: {told}", style="yellow")
    return predictions


@dataclass(frozen=True)
class Evaluation:
    """Predictions of a set of clips by one model and their scores, to be written and shown."""

    predictions: Predictions
    by_group: Sequence[GroupScores]
    model: ViPER
    shards: ShardSet
    options: EvalConfig

    @cached_property
    def scores(self) -> Scores | None:
        """None where fewer than two labelled clips could be read."""
        return scores_of(self.predictions) if self.predictions.scored.sum() > 1 else None

    def write_numbers(self) -> list[Path]:
        """Everything that was computed, before anything is drawn or shown."""
        predictions, out = self.predictions, Path(self.options.out)
        has_all = predictions.labels.names == self.model.labels.names  # under --map some may be missing
        calibration = self.model.calibration if has_all else None
        predictions.write_csv(out / "predictions.csv", bom=self.options.bom, calibration=calibration)
        if self.scores is None:
            console.print("fewer than two labelled clips could be read: predictions only, no metrics")
            return [out / "predictions.csv"]
        with written_whole(out / "metrics.json") as partial:
            checkpoint.write_json(partial, readable(self._record(self.scores)))
        return [out / "predictions.csv", out / "metrics.json"]

    def _record(self, scores: Scores) -> dict[str, Any]:
        predictions, calibration = self.predictions, self.model.calibration
        record = scores_record(scores) | source_record(self.model, self.shards, self.options)
        record |= {"mixed_precision": self.options.mixed_precision, "versions": versions()}
        record["num_failed"] = int((~predictions.valid).sum())
        for name, (found, curve) in task_reliability(predictions).items():
            area = {"area_of_error_by_share_kept": finite_or_none(curve.area)}
            record["tasks"][name]["reliability"] = found.to_json() | area
        if calibration is not None:
            covered = measured_coverage(predictions, calibration)
            record["calibration"] = {"clips": dict(calibration.clips), "found": covered}
            record["calibration"]["coverage"] = calibration.coverage
        if self.by_group:
            record["by"] = {one.name: one.to_json() for one in self.by_group}
        record["labels"] = predictions.labels.to_json()
        record["num_without_face"] = int(predictions.faceless.sum())
        if predictions.keys_without_number:
            record["without_number"] = predictions.keys_without_number
        return record

    def write_page(self, pictures: dict[str, Path]) -> Path:
        """``pictures``: by caption."""
        return write_page(
            Path(self.options.out) / "report.html",
            self.predictions,
            self.scores,
            figures=pictures,
            strips=face_strips(self.model, self.shards, self.predictions, self.options),
            config=asdict(self.model.config),
            versions=versions(),
            yardstick=yardstick_line(self.model.provenance),
            title=_title(self.options.checkpoint, self.options.shards),
        )

    def show(self) -> None:
        """Tables of the scores, then of groups."""
        if self.scores is None:
            return
        shown, made = stdout_console(), tables.scores_tables(self.scores)
        made += [table for one in self.by_group for table in tables.group_tables(one)]
        for table in made:
            shown.print(table)
            if len(made) > 1:
                shown.print()


def _title(source: str, pattern: str) -> str:
    """The names of model and shards, not where on some machine they lie."""
    parts = [part for part in PurePath(source).parts if part not in ("checkpoints", "/", ".", "..")]
    # A run's checkpoints are all called `best`; a hub's models are called after their owners too.
    return f"{'/'.join(parts[-2:])} on {without_query(pattern).rpartition('/')[2]}"


def source_record(model: ViPER, shards: ShardSet, options: EvalConfig | AblateConfig) -> dict[str, Any]:
    """Record of the model and clips of a result, by their content rather than their place."""
    return {
        "checkpoint": {"source": str(options.checkpoint), "sha256": model.content_id},
        "shards": {
            "pattern": without_query(options.shards),
            "clips": len(shards),
            "sha256": shards.content_id(),
        },
    }
