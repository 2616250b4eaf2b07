"""bootstrap.py: resamples of subjects or clips, and percentile intervals of what they come to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

Over = Literal["subjects", "clips"]
"""What bootstrap intervals are over."""


@dataclass(frozen=True)
class Interval:
    low: float
    high: float


class Drawn(NamedTuple):
    """What a bootstrap draws, each with all of its clips: subjects where all are known, else clips."""

    over: Over
    sums: Float[np.ndarray, "G S"]
    """Of each subject or clip."""


def drawn(sums: Float[np.ndarray, "N S"], subjects: np.ndarray | None) -> Drawn:
    """Subjects, whose clips are no independent draws; clips where one's subject is unknown or all are of one.

    The one place where this is decided: whatever has an interval asks here, and says what was drawn.
    """
    if subjects is None or any(subject is None for subject in subjects):
        return Drawn("clips", sums)
    _, place = np.unique(subjects.astype(str), return_inverse=True)
    groups = np.zeros((place.max(initial=-1) + 1, sums.shape[1]))
    np.add.at(groups, place, sums)
    return Drawn("subjects", groups) if len(groups) > 1 else Drawn("clips", sums)


def resamples(num_rows: int, num_resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each row is drawn with replacement (Efron 1979), a resample per line, in blocks of at most
    32 MB."""
    rng = np.random.default_rng(seed)
    block = max(1, 4_000_000 // num_rows)
    for start in range(0, num_resamples, block):
        size = min(block, num_resamples - start)
        yield rng.multinomial(num_rows, np.full(num_rows, 1 / num_rows), size=size).astype(np.float64)


def interval_of(values: np.ndarray, level: float) -> Interval:
    values = values[~np.isnan(values)]
    if not len(values):
        return Interval(float("nan"), float("nan"))
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def finite_or_none(value: float) -> float | None:
    return value if np.isfinite(value) else None
