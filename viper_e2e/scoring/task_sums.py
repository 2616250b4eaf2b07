"""task_sums.py: what each clip adds to the measures of a task, and the measures that sums come to.

Leading axes of sums are resamples.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from viper_e2e.scoring.corpus_measures import further_of_sums, further_sums
from viper_e2e.tasks import Task, measures_of

HOLDS_FROM = 0.5
"""A label holds from this probability on."""


def clip_sums(
    task: Task, predicted: Float[np.ndarray, "N C"], true: Float[np.ndarray, "N C"]
) -> Float[np.ndarray, "N S"]:
    """What each clip adds."""
    if task.kind == "class":
        cells = true.argmax(1) * task.size + predicted.argmax(1) if len(true) else np.zeros(0, int)
        return np.eye(task.size**2)[cells]
    if task.kind == "labels":
        wanted, said = true >= HOLDS_FROM, predicted >= HOLDS_FROM
        return np.concatenate([wanted & said, ~wanted & said, wanted & ~said, ~wanted & ~said], 1).astype(float)
    x, y = predicted, true
    basic = np.concatenate([np.ones_like(x), x, y, x * x, y * y, x * y, np.abs(x - y)], 1)
    return np.concatenate([basic, further_sums(task, predicted, true)], 1) if task.measures else basic


def measures_of_sums(task: Task, sums: Float[np.ndarray, "R S"]) -> dict[str, Float[np.ndarray, "R"]]:
    with np.errstate(divide="ignore", invalid="ignore"):
        if task.kind == "class":
            return _of_classes(sums.reshape(*sums.shape[:-1], task.size, task.size))
        if task.kind == "labels":
            found = _of_labels(sums.reshape(*sums.shape[:-1], 4, task.size))
            return {name: found[name] for name in measures_of(task)}
        size = 7 * task.size
        found = _of_numbers(sums[..., :size].reshape(*sums.shape[:-1], 7, task.size))
        return found | further_of_sums(task, sums[..., size:])


def _of_classes(table: Float[np.ndarray, "R C C"]) -> dict[str, Float[np.ndarray, "R"]]:
    """``uar``: mean recall of the classes that occur; ``war``: share of clips that are right."""
    right, occurs, said = np.diagonal(table, axis1=-2, axis2=-1), table.sum(-1), table.sum(-2)
    recall, f1 = right / occurs, 2 * right / (occurs + said)
    total = occurs.sum(-1)
    return {
        "uar": _mean(recall, occurs > 0),
        "war": right.sum(-1) / total,
        "weighted_f1": np.where(occurs > 0, f1 * occurs, 0.0).sum(-1) / total,
        "macro_f1": _mean(f1, occurs + said > 0),
    }


def _of_labels(table: Float[np.ndarray, "R 4 C"]) -> dict[str, Float[np.ndarray, "R"]]:
    """``macro_f1``: over labels, 0 of one that never holds and is never said; ``uar``: of both recalls."""
    hits, wrongly, missed, _ = np.moveaxis(table, -2, 0)
    of_each = of_each_label(table)
    f1 = np.where(hits + wrongly + missed > 0, 2 * hits / (2 * hits + wrongly + missed), 0.0)
    micro = 2 * hits.sum(-1) / (2 * hits + wrongly + missed).sum(-1)
    num_clips = table.sum(-2)
    return {
        "macro_f1": np.where(num_clips[..., 0] > 0, f1.mean(-1), np.nan),
        "micro_f1": micro,
        **{name: values.mean(-1) for name, values in of_each.items()},
    }


def of_each_label(table: Float[np.ndarray, "R 4 C"]) -> dict[str, Float[np.ndarray, "R C"]]:
    """Of both its sides, that it holds and that it does not.

    ``uar``: mean of both recalls, where both occur (the weighted accuracy of CMU-MOSEI); ``weighted_f1``: F1 of
    both, each by how often it occurs.
    """
    hits, wrongly, missed, rightly_not = np.moveaxis(table, -2, 0)
    right, occurs = np.stack([hits, rightly_not], -1), np.stack([hits + missed, rightly_not + wrongly], -1)
    said = np.stack([hits + wrongly, rightly_not + missed], -1)
    num_clips = table.sum(-2)
    with np.errstate(divide="ignore", invalid="ignore"):
        f1 = np.where(occurs > 0, 2 * right / (occurs + said) * occurs, 0.0)
        return {
            "uar": _mean(right / occurs, occurs > 0),
            "accuracy": right.sum(-1) / num_clips,
            "weighted_f1": f1.sum(-1) / num_clips,
        }


def _of_numbers(table: Float[np.ndarray, "R 7 C"]) -> dict[str, Float[np.ndarray, "R"]]:
    """Means over the columns. ``icc``: ICC(3,1) of prediction and label (Shrout and Fleiss 1979).

    A column whose labels do not vary is in no correlation; a prediction that does not vary correlates as 0.
    """
    count, sum_x, sum_y, square_x, square_y, product, distance = np.moveaxis(table, -2, 0)
    mean_x, mean_y = sum_x / count, sum_y / count
    square_x, square_y, product = square_x / count, square_y / count, product / count
    var_x, var_y, cov = square_x - mean_x**2, square_y - mean_y**2, product - mean_x * mean_y
    x_varies, y_varies = var_x > 1e-11 * square_x, var_y > 1e-11 * square_y
    pearson = np.where(x_varies, cov / np.sqrt(np.where(x_varies, var_x * var_y, 1.0)), 0.0).clip(-1, 1)
    mse = (square_x - 2 * product + square_y).clip(0)
    return {
        "pearson": _mean(pearson, y_varies),
        "ccc": _mean(2 * cov / (var_x + var_y + (mean_x - mean_y) ** 2), y_varies),
        "icc": _mean(2 * cov / (var_x + var_y), y_varies),
        "mse": mse.mean(-1),
        "rmse": np.sqrt(mse).mean(-1),
        "mae": (distance / count).mean(-1),
    }


def _mean(values: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Over the last axis, of those that are there; NaN where none is."""
    return np.where(there, values, 0.0).sum(-1) / there.sum(-1)
