"""label_moments.py: means, deviations and ranges of training labels, a shard at a time where there are many."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

MAX_ROWS_AT_ONCE = 2**20
"""Clips whose labels are laid side by side in memory; of more, each shard's are read twice."""


class LabelMoments(NamedTuple):
    """Moments over clips that have all of a task's labels."""

    num_clips: int
    means: Float64[np.ndarray, " E"]
    deviations: Float64[np.ndarray, " E"]
    lows: Float64[np.ndarray, " E"]
    highs: Float64[np.ndarray, " E"]


def moments_of(rows: Float64[np.ndarray, "N E"]) -> LabelMoments:
    """Moments of rows without a gap."""
    if not len(rows):
        empty = np.zeros(rows.shape[1])
        return LabelMoments(0, empty, empty, empty, empty)
    return LabelMoments(len(rows), rows.mean(0), rows.std(0), rows.min(0), rows.max(0))


def moments_in_parts(parts: Callable[[], Iterable[np.ndarray]], columns: slice) -> LabelMoments:
    """The same of rows that come in parts, each time ``parts`` is called, without those that have a gap.

    Rounded otherwise than `moments_of`, whose sums are made in another order.
    """
    width = columns.stop - columns.start
    count, sums, squares = 0, np.zeros(width), np.zeros(width)
    lows, highs = np.full(width, np.inf), np.full(width, -np.inf)
    for rows in (known_rows(part, columns) for part in parts()):
        count, sums = count + len(rows), sums + rows.sum(0)
        lows = np.minimum(lows, rows.min(0, initial=np.inf))
        highs = np.maximum(highs, rows.max(0, initial=-np.inf))
    if not count:
        return moments_of(np.empty((0, width)))
    means = sums / count
    for rows in (known_rows(part, columns) for part in parts()):
        squares += ((rows - means) ** 2).sum(0)
    return LabelMoments(count, means, np.sqrt(squares / count), lows, highs)


def known_rows(rows: Float64[np.ndarray, "N E"], columns: slice) -> Float64[np.ndarray, "K C"]:
    """Rows of some columns that have no gap."""
    own = rows[:, columns]
    return own[~np.isnan(own).any(1)]
