"""bootstrap.py: resamples of subjects or clips, and percentile intervals of what they come to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

Over = Literal["subjects", "clips"]
"""Units that a bootstrap draws."""
FEW, FAR_TOO_FEW = 20, 10
"""Percentile intervals over fewer are too narrow (Hesterberg 2015; of clusters Cameron, Gelbach and Miller
2008). Those of a mean over n have z √((n − 1) / n) / t of the width that they should have: 0.11 of it over 2,
0.63 over 5, 0.82 over 10, 0.91 over 20."""


@dataclass(frozen=True)
class Interval:
    low: float
    high: float


class Drawn(NamedTuple):
    """Units that a bootstrap draws with all of their clips: subjects if all are known, else clips."""

    over: Over
    sums: Float[np.ndarray, "G S"]
    """Sums of each subject or clip."""
    caution: str
    """Why intervals are too narrow, in words; empty where they are not."""


def drawn(sums: Float[np.ndarray, "N S"], subjects: np.ndarray | None) -> Drawn:
    """Subjects, whose clips are no independent draws; clips where one's subject is unknown or all are of one.

    The one place where this is decided: whatever has an interval asks here, and says what was drawn.
    """
    num_unknown = len(sums) if subjects is None else sum(subject is None for subject in subjects)
    if subjects is None or num_unknown:
        return Drawn("clips", sums, _caution(len(sums), num_unknown))
    _, place = np.unique(subjects.astype(str), return_inverse=True)
    groups = np.zeros((place.max(initial=-1) + 1, sums.shape[1]))
    np.add.at(groups, place, sums)
    if len(groups) < 2:
        return Drawn("clips", sums, "all of one subject: nothing is known of others")
    return Drawn("subjects", groups, _caution(len(groups)))


def _caution(count: int, num_unknown: int = 0) -> str:
    """``num_unknown``: clips of which it is not known who is seen; of others it is, unless they are all."""
    told = []
    if count < FEW:
        told.append(f"only {count}: {'far ' if count < FAR_TOO_FEW else ''}too narrow")
    if 0 < num_unknown < count:
        told.append(
            f"the subjects of {num_unknown:,} of {count:,} are not known, so that none are drawn: too narrow "
            "where people recur"
        )
    return "; ".join(told)


def resamples(num_rows: int, num_resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Counts of each row, drawn with replacement (Efron 1979), a resample per line, in blocks of at most
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
