"""stratifying.py: deals groups of clips to folds of similar size and labels, from a seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from viper_e2e.errors import ViperError
from viper_e2e.labels import LabelSet
from viper_e2e.shards import ShardSet
from viper_e2e.tasks import Task

NUM_QUANTILES = 5
"""Number of quantiles of a number's values: strata of the same size."""
NONE = "none"


def dealt_groups(
    groups: Sequence[str], strata: Float[np.ndarray, "N S"], num_folds: int, seed: int
) -> dict[str, int]:
    """The fold, 0 … ``num_folds - 1``, of each group.

    ``groups``: of each clip. ``strata``: what each clip counts for; each column is shared out evenly. The
    group with the largest share of anything comes first, each goes where the folds' shares then differ least
    (as in scikit-learn's StratifiedGroupKFold), and no fold stays empty. Which of equals comes first is drawn.
    The order of the clips does not count. `ViperError` for more folds than groups.
    """
    names, place = np.unique(np.array(groups, dtype=object).astype(str), return_inverse=True)
    if num_folds > len(names):
        raise ViperError(f"{num_folds} folds of {len(names)} groups: there are too few")
    counts = np.zeros((len(names), strata.shape[1] + 1))
    # The last column is the clips themselves, so that folds are of one size too.
    np.add.at(counts, place, np.column_stack([strata, np.ones(len(place))]))
    counts /= counts.sum(0).clip(1e-12)
    # Raw draws of PCG64 stay the same in every version of NumPy (NEP 19).
    drawn = np.argsort(np.random.PCG64(np.random.SeedSequence([seed, num_folds])).random_raw(len(names)))
    largest = drawn[np.argsort(-counts[drawn].max(1).round(12), kind="stable")]
    shares, num_groups = np.zeros((num_folds, counts.shape[1])), np.zeros(num_folds, int)
    dealt: dict[str, int] = {}
    for number, group in enumerate(largest):
        empty = np.flatnonzero(num_groups == 0)
        open_folds = empty if len(empty) == len(largest) - number else np.arange(num_folds)
        # Shares if it were in each of these folds: a table each.
        after = shares + np.eye(num_folds)[open_folds][:, :, None] * counts[group]
        fold = int(open_folds[int(after.std(1).sum(1).round(12).argmin())])
        shares[fold] += counts[group]
        num_groups[fold] += 1
        dealt[str(names[group])] = fold
    return dealt


def strata_of(
    shards: ShardSet, rows: Sequence[int], stratify: str = ""
) -> tuple[Float[np.ndarray, "N S"], str]:
    """Strata of these clips, to share out evenly, and their name in words.

    ``stratify``: the name of a task, or ``none``; empty: the first class, else the first task. A class counts
    by its clips, labels by those that hold, a number by fifths of its values, intensities by the strongest.
    Where the label is missing a clip counts for nothing but itself.
    """
    if stratify == NONE or shards.labels is None:
        return np.zeros((len(rows), 0)), NONE
    task, columns = _chosen(shards.labels, stratify)
    unlabelled = (np.nan,) * len(shards.labels)
    table = np.array([shards.entry(row).intensities or unlabelled for row in rows], dtype=np.float64)
    values = table.reshape(len(rows), len(shards.labels))[:, columns]
    known = np.isfinite(values.sum(1))
    if task.kind == "number" or task.size == 1:
        bins = _quantile_of(values[:, 0], known)
        return np.eye(NUM_QUANTILES)[bins] * known[:, None], f"fifths of {task.name}"
    if task.kind == "labels":
        return np.where(known[:, None], values >= 0.5, False).astype(np.float64), task.name
    strongest = np.where(known, np.where(known[:, None], values, 0.0).argmax(1), 0)
    what = task.name if task.kind == "class" else f"the strongest of {task.name}"
    return np.eye(task.size)[strongest] * known[:, None], what


def _chosen(labels: LabelSet, stratify: str) -> tuple[Task, slice]:
    parts = labels.parts
    if not stratify:
        return next((part for part in parts if part[0].kind == "class"), parts[0])
    found = [part for part in parts if part[0].name == stratify]
    if not found:
        there = ", ".join(task.name for task, _ in parts)
        raise ViperError(f"--stratify {stratify}: there is no such task; there are {there}, and {NONE}")
    return found[0]


def _quantile_of(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """0 … 4 by the fifth that a value is in; 0 where it is missing. Equal values are in one."""
    if not known.any():
        return np.zeros(len(values), int)
    edges = np.quantile(values[known], np.arange(1, NUM_QUANTILES) / NUM_QUANTILES)
    return np.where(known, np.searchsorted(edges, np.where(known, values, 0.0), side="right"), 0)
