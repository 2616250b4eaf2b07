"""task_sums.py: sums over clips for the measures of a task, and the measures from sums.

Leading axes of sums are resamples.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from viper_e2e.scoring.corpus_measures import further_of_sums, further_sums
from viper_e2e.tasks import HOLDS_FROM, Task, measures_of

NUM_SUMS = 7
"""Sums of each column of numbers: clips, Σx, Σy, Σx², Σy², Σxy, Σ|x − y|."""

MIN_RELATIVE_VARIANCE = 1e-11
"""Least variance relative to the mean square. Below it, float32 values and sums cannot tell a column from
a constant."""

CORRELATIONS = ("pearson", "ccc", "icc")


class Measured(NamedTuple):
    """Measures of a task from sums; NaN where one is undefined."""

    values: dict[str, Float[np.ndarray, "R"]]
    """Measure → value of the task."""
    by_column: dict[str, Float[np.ndarray, "R C"]]
    """Measure → value of each class, label or number, and ``num_clips``."""


def has_label(task: Task, true: Float[np.ndarray, "N C"]) -> Bool[np.ndarray, "N"]:
    """Clips that count for a task: a class or several labels are known as a whole, numbers each for itself."""
    known = ~np.isnan(true)
    return known.all(1) if task.kind in ("class", "labels") else known.any(1)


def clip_sums(
    task: Task, predicted: Float[np.ndarray, "N C"], true: Float[np.ndarray, "N C"]
) -> Float[np.ndarray, "N S"]:
    """The terms of each clip, of those that `has_label`."""
    if task.kind == "class":
        cells = true.argmax(1) * task.size + predicted.argmax(1) if len(true) else np.zeros(0, int)
        return np.eye(task.size**2)[cells]
    if task.kind == "labels":
        wanted, said = true >= HOLDS_FROM, predicted >= HOLDS_FROM
        return np.concatenate([wanted & said, ~wanted & said, wanted & ~said, ~wanted & ~said], 1).astype(float)
    known = ~np.isnan(true)
    x, y = (np.where(known, values, 0.0).astype(np.float64) for values in (predicted, true))
    basic = np.concatenate([known.astype(float), x, y, x * x, y * y, x * y, np.abs(x - y)], 1)
    if not task.measures:
        return basic
    whole = known.all(1)
    further = further_sums(task, predicted[whole], true[whole])
    spread = np.zeros((len(true), further.shape[1]))
    spread[whole] = further
    return np.concatenate([basic, spread], 1)


def measures_of_sums(task: Task, sums: Float[np.ndarray, "R S"]) -> Measured:
    with np.errstate(divide="ignore", invalid="ignore"):
        if task.kind == "class":
            return _of_classes(sums.reshape(*sums.shape[:-1], task.size, task.size))
        if task.kind == "labels":
            values, by_column = _of_labels(sums.reshape(*sums.shape[:-1], 4, task.size))
            # Of each label alone there is more to say where its corpus reports more.
            more = by_column if task.measures else {name: by_column[name] for name in OF_EACH}
            return Measured({name: values[name] for name in measures_of(task)}, more)
        size = NUM_SUMS * task.size
        of_each = _of_each_number(sums[..., :size].reshape(*sums.shape[:-1], NUM_SUMS, task.size))
        return Measured(_of_numbers(of_each) | further_of_sums(task, sums[..., size:]), of_each)


OF_EACH = ("recall", "precision", "f1", "num_clips")
"""Measures of each class and label."""


def _of_each(
    right: Float[np.ndarray, "R C"], occurs: Float[np.ndarray, "R C"], said: Float[np.ndarray, "R C"]
) -> dict[str, Float[np.ndarray, "R C"]]:
    values = (right / occurs, right / said, 2 * right / (occurs + said), occurs)
    return dict(zip(OF_EACH, values, strict=True))


def _of_classes(table: Float[np.ndarray, "R C C"]) -> Measured:
    """``uar``: mean recall of the classes that occur; ``war``: share of clips that are right."""
    right, occurs, said = np.diagonal(table, axis1=-2, axis2=-1), table.sum(-1), table.sum(-2)
    of_each, total = _of_each(right, occurs, said), occurs.sum(-1)
    values = {
        "uar": _mean(of_each["recall"], occurs > 0),
        "war": right.sum(-1) / total,
        "weighted_f1": np.where(occurs > 0, of_each["f1"] * occurs, 0.0).sum(-1) / total,
        "macro_f1": _mean(of_each["f1"], occurs + said > 0),
    }
    return Measured(values, of_each)


def _of_labels(table: Float[np.ndarray, "R 4 C"]) -> Measured:
    """``macro_f1``: over labels, 0 of one that never holds and is never said; ``uar``: of both recalls."""
    hits, wrongly, missed, _ = np.moveaxis(table, -2, 0)
    of_sides = _of_both_sides(table)
    f1 = np.where(hits + wrongly + missed > 0, 2 * hits / (2 * hits + wrongly + missed), 0.0)
    micro = 2 * hits.sum(-1) / (2 * hits + wrongly + missed).sum(-1)
    num_clips = table.sum(-2)
    values = {
        "macro_f1": np.where(num_clips[..., 0] > 0, f1.mean(-1), np.nan),
        "micro_f1": micro,
        **{name: of_each.mean(-1) for name, of_each in of_sides.items()},
    }
    return Measured(values, _of_each(hits, hits + missed, hits + wrongly) | of_sides)


def _of_both_sides(table: Float[np.ndarray, "R 4 C"]) -> dict[str, Float[np.ndarray, "R C"]]:
    """Measures of both sides of a label, that it holds and that it does not.

    ``uar``: mean of both recalls, where both occur (the weighted accuracy of CMU-MOSEI); ``weighted_f1``: F1 of
    both, each by how often it occurs.
    """
    hits, wrongly, missed, rightly_not = np.moveaxis(table, -2, 0)
    right, occurs = np.stack([hits, rightly_not], -1), np.stack([hits + missed, rightly_not + wrongly], -1)
    said = np.stack([hits + wrongly, rightly_not + missed], -1)
    num_clips = table.sum(-2)
    f1 = np.where(occurs > 0, 2 * right / (occurs + said) * occurs, 0.0)
    return {
        "uar": _mean(right / occurs, occurs > 0),
        "accuracy": right.sum(-1) / num_clips,
        "weighted_f1": f1.sum(-1) / num_clips,
    }


def _of_each_number(table: Float[np.ndarray, "R 7 C"]) -> dict[str, Float[np.ndarray, "R C"]]:
    """``icc``: ICC(3,1) of prediction and label (Shrout and Fleiss 1979).

    No correlation of a column whose labels do not vary, no Pearson of one whose predictions do not.
    """
    count, sum_x, sum_y, square_x, square_y, product, distance = np.moveaxis(table, -2, 0)
    mean_x, mean_y = sum_x / count, sum_y / count
    square_x, square_y, product = square_x / count, square_y / count, product / count
    var_x, var_y, cov = square_x - mean_x**2, square_y - mean_y**2, product - mean_x * mean_y
    x_varies, y_varies = (
        variance > MIN_RELATIVE_VARIANCE * square for variance, square in ((var_x, square_x), (var_y, square_y))
    )
    mse = (square_x - 2 * product + square_y).clip(0)
    return {
        "pearson": np.where(x_varies & y_varies, cov / np.sqrt(var_x * var_y), np.nan).clip(-1, 1),
        "ccc": np.where(y_varies, 2 * cov / (var_x + var_y + (mean_x - mean_y) ** 2), np.nan),
        "icc": np.where(y_varies, 2 * cov / (var_x + var_y), np.nan),
        "mse": mse,
        "rmse": np.sqrt(mse),
        "mae": distance / count,
        "num_clips": count,
    }


def _of_numbers(of_each: dict[str, Float[np.ndarray, "R C"]]) -> dict[str, Float[np.ndarray, "R"]]:
    """Means over the columns, each on the clips that have its label.

    A column whose labels do not vary says nothing about a model and is in no mean of correlations. A prediction
    that does not vary correlates as 0: left out, it would make a model better by giving up on an emotion.
    """
    varies, occurs = ~np.isnan(of_each["ccc"]), of_each["num_clips"] > 0
    return {
        name: _mean(np.where(np.isnan(values), 0.0, values), varies if name in CORRELATIONS else occurs)
        for name, values in of_each.items()
        if name != "num_clips"
    }


def _mean(values: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Over the last axis, of those that are there; NaN where none is."""
    return np.where(there, values, 0.0).sum(-1) / there.sum(-1)
