"""task_scores.py: each task in its field's measures: recalls and F1 of classes, agreement of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from viper_e2e.errors import ViperError
from viper_e2e.labels import LabelSet, name_of
from viper_e2e.model import Predictions
from viper_e2e.scoring.corpus_measures import notes_of
from viper_e2e.scoring.metrics import Interval, Over, drawn, finite_or_none, interval_of, resamples
from viper_e2e.scoring.task_sums import clip_sums, measures_of_sums, of_each_label
from viper_e2e.tasks import COMBINED, OVERALL, CombinedMeasure, Task, measures_of

MAIN_MEASURE = {"intensities": "pearson", "class": "uar", "labels": "macro_f1", "number": "ccc"}
"""By which checkpoints are chosen, unless another is named."""
SMALLER_IS_BETTER = ("mse", "rmse", "mae")


@dataclass(frozen=True)
class TaskScores:
    """What a task's predictions are worth on the clips that have its label and could be read."""

    task: Task
    names: tuple[str, ...]
    """Of its columns, without the task's name."""
    num_clips: int
    values: Mapping[str, float]
    """Measure → value; NaN where it is undefined."""
    intervals: Mapping[str, Interval]
    """95 % bootstrap intervals; empty below 2 clips."""
    by_column: Mapping[str, Mapping[str, float]]
    """Of a class or a label: recall, precision, F1, and how many clips have it."""
    confusion: tuple[tuple[int, ...], ...] = ()
    """Of classes: rows are true, columns predicted."""
    notes: str = ""
    """Notes beside them."""
    over: Over = "clips"
    """What the intervals are over."""


def task_scores(predictions: Predictions, *, num_resamples: int = 1000, seed: int = 0) -> dict[str, TaskScores]:
    """Scores of every task; `OVERALL` of several together. ``num_resamples`` 0: without intervals."""
    return {
        ruler.task.name: _scores_of(ruler, predictions, num_resamples, seed)
        for ruler in rulers(predictions.labels)
    }


def main_measure(task: Task) -> str:
    """What a task is looked at by first."""
    return MAIN_MEASURE[task.kind] if task.kind in MAIN_MEASURE else task.measures[0]


def main_score(scores: Mapping[str, TaskScores], best_by: str = "") -> float:
    """What a checkpoint is judged by, larger is better: ``TASK.MEASURE``, or the mean of the main measures.

    Tasks of which no clip has a label do not count; NaN where the measure is undefined for any other.
    """
    if best_by:
        task, measure = split_best_by(best_by, [one.task for one in scores.values()])
        value = scores[task].values[measure]
        return -value if measure in SMALLER_IS_BETTER else value
    own = [one for one in scores.values() if one.num_clips and one.task.kind != COMBINED]
    measured = [one.values[main_measure(one.task)] for one in own]
    return float(np.mean(measured)) if measured else float("nan")


def interval_of_main(scores: Mapping[str, TaskScores], best_by: str = "") -> tuple[Interval, Over] | None:
    """The interval of `main_score`, and what it is over, where that is one measure, as it is measured."""
    own = [one.task for one in scores.values() if best_by or (one.num_clips and one.task.kind != COMBINED)]
    if not best_by and len(own) != 1:
        return None
    task, measure = split_best_by(best_by, own) if best_by else (own[0].name, main_measure(own[0]))
    found = scores[task].intervals.get(measure)
    return (found, scores[task].over) if found is not None and np.isfinite(found.low) else None


def as_measured(score: float, measure: str) -> float:
    """What models are ranked by, larger is better, as ``TASK.MEASURE`` itself: an error has no sign."""
    return 0.0 - score if measure.rpartition(".")[2] in SMALLER_IS_BETTER else score


def split_best_by(best_by: str, tasks: Sequence[Task]) -> tuple[str, str]:
    """``"emotion.uar"`` → task and measure. `ViperError` for what is not measured."""
    name, _, measure = best_by.rpartition(".")
    by_name = {task.name: task for task in tasks}
    if name not in by_name or measure not in measures_of(by_name[name]):
        there = "; ".join(f"{task.name}.{{{','.join(measures_of(task))}}}" for task in tasks)
        raise ViperError(f"--best-by {best_by}: not measured; there are {there}")
    return name, measure


def task_record(scores: TaskScores) -> dict[str, Any]:
    """As JSON; what is undefined becomes ``None``."""
    record: dict[str, Any] = {
        "kind": scores.task.kind,
        "num_clips": scores.num_clips,
        **{name: finite_or_none(value) for name, value in scores.values.items()},
        "intervals_95": {
            name: [finite_or_none(span.low), finite_or_none(span.high)]
            for name, span in scores.intervals.items()
        },
    }
    if scores.intervals:
        record["intervals_over"] = scores.over
    if scores.notes:
        record["told"] = scores.notes
    if scores.task.thresholds is not None:
        record["thresholds"] = dict(zip(("present_from", "equal_within"), scores.task.thresholds, strict=True))
    if scores.by_column:
        record["by_class"] = {
            name: {measure: finite_or_none(value) for measure, value in values.items()}
            for name, values in scores.by_column.items()
        }
    if scores.confusion:
        record["confusion"] = {"classes": list(scores.names), "true_by_predicted": scores.confusion}
    return record


@dataclass(frozen=True)
class Ruler:
    """Measures of one task, or of several together: sums over clips, and scores made of these."""

    task: Task
    parts: tuple[tuple[Task, slice], ...]
    """The tasks that are looked at, each with its columns."""
    combined: tuple[CombinedMeasure, ...] = ()

    def known(self, true: Float[np.ndarray, "N E"]) -> Bool[np.ndarray, "N"]:
        """Which clips have a label of any of them."""
        return np.logical_or.reduce([_has_label(true, columns) for _, columns in self.parts])

    def clip_sums(
        self, predicted: Float[np.ndarray, "N E"], true: Float[np.ndarray, "N E"]
    ) -> Float[np.ndarray, "N S"]:
        """What each clip adds; nothing to a task whose label it lacks."""
        made = []
        for task, columns in self.parts:
            has_label = _has_label(true, columns)
            own = clip_sums(task, predicted[has_label][:, columns], true[has_label][:, columns])
            made.append(np.zeros((len(true), own.shape[1])))
            made[-1][has_label] = own
        return np.concatenate(made, 1)

    def measures(self, sums: Float[np.ndarray, "R S"]) -> dict[str, Float[np.ndarray, "R"]]:
        if not self.combined:
            return measures_of_sums(self.task, sums)
        found: dict[str, Float[np.ndarray, "R"]] = {}
        for task, _ in self.parts:
            size = clip_sums(task, *np.zeros((2, 0, task.size))).shape[1]
            values, sums = measures_of_sums(task, sums[..., :size]), sums[..., size:]
            found |= {f"{task.name}.{name}": value for name, value in values.items()}
        terms = {one.name: [weight * found[term] for term, weight in one.terms] for one in self.combined}
        return {name: np.sum(values, axis=0) for name, values in terms.items()}


def rulers(labels: LabelSet) -> tuple[Ruler, ...]:
    """One for each task, and a last one for its combined measures if there are any."""
    made = [Ruler(task, ((task, columns),)) for task, columns in labels.parts]
    if labels.combined:
        wanted = {name for one in labels.combined for name in one.tasks}
        parts = tuple((task, columns) for task, columns in labels.parts if task.name in wanted)
        together = Task(OVERALL, COMBINED, 0, measures=tuple(one.name for one in labels.combined))
        made.append(Ruler(together, parts, labels.combined))
    return tuple(made)


def _has_label(true: Float[np.ndarray, "N E"], columns: slice) -> Bool[np.ndarray, "N"]:
    return ~np.isnan(true[:, columns]).any(1)


def _scores_of(ruler: Ruler, predictions: Predictions, num_resamples: int, seed: int) -> TaskScores:
    task, known = ruler.task, predictions.scored & ruler.known(predictions.true)
    sums = ruler.clip_sums(predictions.predicted[known], predictions.true[known])
    total = sums.sum(0)
    intervals: dict[str, Interval] = {}
    subjects = None if predictions.subjects is None else np.array(predictions.subjects, object)[known]
    over, groups = drawn(sums, subjects)
    if len(sums) >= 2 and num_resamples:
        draws = [ruler.measures(counts @ groups) for counts in resamples(len(groups), num_resamples, seed)]
        intervals = {
            name: interval_of(np.concatenate([draw[name] for draw in draws]), 0.95) for name in draws[0]
        }
    values = {name: float(value[0]) for name, value in ruler.measures(total[None]).items()}
    if ruler.combined:
        formulas = "; ".join(f"{one.name} = {one.formula}" for one in ruler.combined)
        return TaskScores(task, (), len(sums), values, intervals, {}, notes=formulas, over=over)
    columns = ruler.parts[0][1]
    names = tuple(map(name_of, predictions.labels.own_titles(task, columns)))
    by_column: dict[str, dict[str, float]] = {}
    confusion: tuple[tuple[int, ...], ...] = ()
    if task.kind == "class":
        table = total.reshape(task.size, task.size)
        by_column = _by_column(names, table.diagonal(), table.sum(1), table.sum(0))
        confusion = tuple(tuple(int(cell) for cell in row) for row in table)
    elif task.kind == "labels":
        hits, wrongly, missed, _ = total.reshape(4, task.size)
        by_column = _by_column(names, hits, hits + missed, hits + wrongly)
        if task.measures:
            each = of_each_label(total.reshape(1, 4, task.size))
            for place, row in enumerate(by_column.values()):
                row |= {measure: float(values[0, place]) for measure, values in each.items()}
    return TaskScores(task, names, len(sums), values, intervals, by_column, confusion, notes_of(task), over)


def _by_column(
    names: Sequence[str], right: np.ndarray, occurs: np.ndarray, said: np.ndarray
) -> dict[str, dict[str, float]]:
    with np.errstate(divide="ignore", invalid="ignore"):
        rows = zip(right / occurs, right / said, 2 * right / (occurs + said), occurs, strict=True)
        measures = ("recall", "precision", "f1", "num_clips")
        return {
            name: dict(zip(measures, map(float, row), strict=True))
            for name, row in zip(names, rows, strict=True)
        }
