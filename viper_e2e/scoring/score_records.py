"""score_records.py: scores as JSON, as every file of ours has them."""

from __future__ import annotations

from typing import Any

from viper_e2e.scoring.bootstrap import Interval, finite_or_none
from viper_e2e.scoring.task_scores import Scores, TaskScores

AGREEMENT = ("pearson", "ccc", "mse")
"""Measures of all columns: the mean over them, and each of them."""


def scores_record(scores: Scores) -> dict[str, Any]:
    """All columns as numbers (``mean_pearson``, ``pearson`` by column, …), then each of the ``tasks``.

    What is undefined becomes ``None``.
    """
    whole = scores.whole
    record: dict[str, Any] = {"num_clips": whole.num_clips}
    for measure in AGREEMENT:
        record[measure] = {name: finite_or_none(row[measure]) for name, row in whole.by_column.items()}
        record[f"mean_{measure}"] = finite_or_none(whole.values[measure])
    record["constant_labels"] = whole.constant_labels
    record["constant_predictions"] = whole.constant_predictions
    if whole.intervals:
        record["intervals_95"] = _intervals_of_all(whole)
        record["intervals_over"] = whole.over
        record |= {"intervals_caution": whole.caution} if whole.caution else {}
    record["tasks"] = {name: task_record(one) for name, one in scores.tasks.items()}
    return record


def _intervals_of_all(whole: TaskScores) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for measure in AGREEMENT:
        record[f"mean_{measure}"] = _pair(whole.intervals[measure])
        record[measure] = {name: _pair(spans[measure]) for name, spans in whole.column_intervals.items()}
    return record


def _pair(interval: Interval) -> list[float] | None:
    return None if finite_or_none(interval.low) is None else [interval.low, interval.high]


def task_record(scores: TaskScores) -> dict[str, Any]:
    """Record for JSON; undefined values become ``None``."""
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
        record |= {"intervals_caution": scores.caution} if scores.caution else {}
    if scores.notes:
        record["told"] = scores.notes
    if scores.task.thresholds is not None:
        record["thresholds"] = dict(zip(("present_from", "equal_within"), scores.task.thresholds, strict=True))
    if scores.task.kind in ("class", "labels"):
        record["by_class"] = {
            name: {measure: finite_or_none(value) for measure, value in values.items()}
            for name, values in scores.by_column.items()
        }
    if scores.confusion:
        record["confusion"] = {"classes": list(scores.names), "true_by_predicted": scores.confusion}
    return record
