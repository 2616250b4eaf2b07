"""task_scores.py: each task in its field's measures: recalls and F1 of classes, agreement of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from viper_e2e.errors import ViperError
from viper_e2e.labels import LabelSet, name_of
from viper_e2e.model import Predictions
from viper_e2e.scoring.bootstrap import Interval, Over, drawn, interval_of, resamples
from viper_e2e.scoring.corpus_measures import notes_of
from viper_e2e.scoring.task_sums import Measured, clip_sums, has_label, measures_of_sums
from viper_e2e.tasks import COMBINED, OVERALL, UNNAMED, CombinedMeasure, Task, measures_of

MAIN_MEASURE = {"intensities": "pearson", "class": "uar", "labels": "macro_f1", "number": "ccc"}
"""Measures that choose checkpoints by default, by kind of task."""
SMALLER_IS_BETTER = ("mse", "rmse", "mae")


@dataclass(frozen=True)
class TaskScores:
    """Scores of a task on the clips that have its label and could be read."""

    task: Task
    names: tuple[str, ...]
    """Names of its columns, without the task's name."""
    num_clips: int
    values: Mapping[str, float]
    """Measure → value; NaN where it is undefined."""
    intervals: Mapping[str, Interval]
    """95 % bootstrap intervals; empty below 2 clips."""
    by_column: Mapping[str, Mapping[str, float]]
    """Column → measure → value: recall, precision and F1 of a class or a label, agreement of a number; and
    ``num_clips``, how many have it."""
    confusion: tuple[tuple[int, ...], ...] = ()
    """Confusion matrix of classes: rows are true, columns predicted."""
    notes: str = ""
    """Notes beside them."""
    over: Over = "clips"
    """Units of the intervals."""
    caution: str = ""
    """See `Drawn`."""
    num_drawn: int = 0
    """How many of them there are."""
    column_intervals: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)
    """Intervals of ``by_column``, if there are ``intervals``."""

    @property
    def constant_labels(self) -> tuple[str, ...]:
        """Numbers whose labels do not vary: they are in no mean of correlations."""
        return tuple(name for name, row in self.by_column.items() if np.isnan(row["ccc"]))

    @property
    def constant_predictions(self) -> tuple[str, ...]:
        """Numbers whose predictions do not vary: their Pearson counts as 0 in the mean."""
        undefined = (name for name, row in self.by_column.items() if np.isnan(row["pearson"]))
        return tuple(name for name in undefined if name not in self.constant_labels)


@dataclass(frozen=True)
class Scores:
    """Agreement of the predictions of a set of clips with their labels."""

    tasks: Mapping[str, TaskScores]
    """Each in its own measures."""
    whole: TaskScores
    """All columns as numbers of one task, whatever they belong to."""

    @property
    def of_one_task(self) -> bool:
        """Whether that is the one task there is, of a corpus that names none."""
        return self.tasks.get(UNNAMED) is self.whole


def scores_of(predictions: Predictions, *, num_resamples: int = 1000, seed: int = 0) -> Scores:
    """``num_resamples`` 0: without intervals."""
    tasks = task_scores(predictions, num_resamples=num_resamples, seed=seed)
    labels = predictions.labels
    if not labels.names_tasks:
        return Scores(tasks, tasks[UNNAMED])
    columns = Task("", "intensities", len(labels), labels.minimum, labels.maximum)
    ruler = Ruler(columns, ((columns, slice(0, len(labels))),))
    return Scores(tasks, _scores_of(ruler, predictions, num_resamples, seed))


def task_scores(predictions: Predictions, *, num_resamples: int = 1000, seed: int = 0) -> dict[str, TaskScores]:
    """Scores of every task; `OVERALL` of several together. ``num_resamples`` 0: without intervals."""
    return {
        ruler.task.name: _scores_of(ruler, predictions, num_resamples, seed)
        for ruler in rulers(predictions.labels)
    }


def main_measure(task: Task) -> str:
    """The main measure of a task."""
    return MAIN_MEASURE[task.kind] if task.kind in MAIN_MEASURE else task.measures[0]


def main_score(scores: Mapping[str, TaskScores], best_by: str = "") -> float:
    """Score that judges a checkpoint, larger is better: ``TASK.MEASURE``, or the mean of the main measures.

    Tasks of which no clip has a label do not count; NaN where the measure is undefined for any other.
    """
    if best_by:
        task, measure = split_best_by(best_by, [one.task for one in scores.values()])
        value = scores[task].values[measure]
        return -value if measure in SMALLER_IS_BETTER else value
    own = [one for one in scores.values() if one.num_clips and one.task.kind != COMBINED]
    measured = [one.values[main_measure(one.task)] for one in own]
    return float(np.mean(measured)) if measured else float("nan")


def interval_of_main(scores: Mapping[str, TaskScores], best_by: str = "") -> dict[str, Any]:
    """The interval of `main_score`, as files and plots have it, where that is one measure, as it is measured:
    ``low``, ``high``, ``intervals_over`` and ``intervals_caution``, None where there is none."""
    unknown = dict.fromkeys(("low", "high", "intervals_over", "intervals_caution"))
    own = [one.task for one in scores.values() if best_by or (one.num_clips and one.task.kind != COMBINED)]
    if not best_by and len(own) != 1:
        return unknown
    task, measure = split_best_by(best_by, own) if best_by else (own[0].name, main_measure(own[0]))
    found, one = scores[task].intervals.get(measure), scores[task]
    if found is None or not np.isfinite(found.low):
        return unknown
    told = {"intervals_over": one.over, "intervals_caution": one.caution or None}
    return {"low": found.low, "high": found.high} | told


def as_measured(score: float, measure: str) -> float:
    """Value of ``TASK.MEASURE`` from a score, which is larger for better models: errors lose their sign."""
    return 0.0 - score if measure.rpartition(".")[2] in SMALLER_IS_BETTER else score


def split_best_by(best_by: str, tasks: Sequence[Task]) -> tuple[str, str]:
    """``"emotion.uar"`` → task and measure. `ViperError` for what is not measured."""
    name, _, measure = best_by.rpartition(".")
    by_name = {task.name: task for task in tasks}
    if name not in by_name or measure not in measures_of(by_name[name]):
        there = "; ".join(f"{task.name}.{{{','.join(measures_of(task))}}}" for task in tasks)
        raise ViperError(f"--best-by {best_by}: not measured; there are {there}")
    return name, measure


@dataclass(frozen=True)
class Ruler:
    """Measures of one task, or of several together: sums over clips, and scores made of these."""

    task: Task
    parts: tuple[tuple[Task, slice], ...]
    """The tasks that are looked at, each with its columns."""
    combined: tuple[CombinedMeasure, ...] = ()

    def known(self, true: Float[np.ndarray, "N E"]) -> Bool[np.ndarray, "N"]:
        """Whether each clip has a label of any of them."""
        return np.logical_or.reduce([has_label(task, true[:, columns]) for task, columns in self.parts])

    def clip_sums(
        self, predicted: Float[np.ndarray, "N E"], true: Float[np.ndarray, "N E"]
    ) -> Float[np.ndarray, "N S"]:
        """Summands of each clip; none for a task whose label it lacks."""
        made = []
        for task, columns in self.parts:
            known = has_label(task, true[:, columns])
            own = clip_sums(task, predicted[known][:, columns], true[known][:, columns])
            made.append(np.zeros((len(true), own.shape[1])))
            made[-1][known] = own
        return np.concatenate(made, 1)

    def measured(self, sums: Float[np.ndarray, "R S"]) -> Measured:
        if not self.combined:
            return measures_of_sums(self.task, sums)
        found: dict[str, Float[np.ndarray, "R"]] = {}
        for task, _ in self.parts:
            size = clip_sums(task, *np.zeros((2, 0, task.size))).shape[1]
            values, sums = measures_of_sums(task, sums[..., :size]).values, sums[..., size:]
            found |= {f"{task.name}.{name}": value for name, value in values.items()}
        terms = {one.name: [weight * found[term] for term, weight in one.terms] for one in self.combined}
        return Measured({name: np.sum(values, axis=0) for name, values in terms.items()}, {})

    @property
    def notes(self) -> str:
        """Notes beside the measures."""
        formulas = "; ".join(f"{one.name} = {one.formula}" for one in self.combined)
        return formulas or notes_of(self.task)


def rulers(labels: LabelSet) -> tuple[Ruler, ...]:
    """One for each task, and a last one for its combined measures if there are any."""
    made = [Ruler(task, ((task, columns),)) for task, columns in labels.parts]
    if labels.combined:
        wanted = {name for one in labels.combined for name in one.tasks}
        parts = tuple((task, columns) for task, columns in labels.parts if task.name in wanted)
        together = Task(OVERALL, COMBINED, 0, measures=tuple(one.name for one in labels.combined))
        made.append(Ruler(together, parts, labels.combined))
    return tuple(made)


def _scores_of(ruler: Ruler, predictions: Predictions, num_resamples: int, seed: int) -> TaskScores:
    task, known = ruler.task, predictions.scored & ruler.known(predictions.true)
    sums = ruler.clip_sums(predictions.predicted[known], predictions.true[known])
    subjects = None if predictions.subjects is None else np.array(predictions.subjects, object)[known]
    over, groups, caution = drawn(sums, subjects)
    of_all = ruler.measured(sums.sum(0)[None])
    draws = (
        [ruler.measured(counts @ groups) for counts in resamples(len(groups), num_resamples, seed)]
        if len(sums) >= 2
        else []
    )
    columns = () if ruler.combined else predictions.labels.own_titles(task, ruler.parts[0][1])
    names = tuple(map(name_of, columns))
    table = sums.sum(0).reshape(task.size, task.size) if task.kind == "class" else ()
    return TaskScores(
        task,
        names,
        len(sums),
        {name: float(value[0]) for name, value in of_all.values.items()},
        _intervals([draw.values for draw in draws]),
        {
            column: {name: float(value[0, place]) for name, value in of_all.by_column.items()}
            for place, column in enumerate(names)
        },
        tuple(tuple(int(cell) for cell in row) for row in table),
        ruler.notes,
        over,
        caution,
        len(groups),
        {
            column: _intervals(
                [{name: value[:, place] for name, value in draw.by_column.items()} for draw in draws]
            )
            for place, column in enumerate(names)
        },
    )


def _intervals(draws: Sequence[Mapping[str, Float[np.ndarray, "R"]]]) -> dict[str, Interval]:
    """95 % of what each measure comes to in resamples, which come in several blocks."""
    names = draws[0] if draws else ()
    return {name: interval_of(np.concatenate([draw[name] for draw in draws]), 0.95) for name in names}
