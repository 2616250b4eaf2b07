"""metrics.py: Pearson, CCC and MSE over a whole set from sums, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from viper_e2e.errors import ViperError
from viper_e2e.model import Predictions

NUM_SUMS = 6
"""Per column: weight, Σx, Σy, Σx², Σy², Σxy."""

MIN_RELATIVE_VARIANCE = 1e-11
"""Of the mean square. Below it a column is constant: that is as far as float32 values and sums can tell."""


@dataclass(frozen=True)
class Scores:
    """Agreement of predictions with labels, per emotion and as means over emotions.

    NaN where it is undefined: a correlation of a column that does not vary. Emotions whose *labels* do not
    vary say nothing about a model and are left out of the means of Pearson and CCC. A *prediction* that does
    not vary counts as 0 there: left out, it would make a model better by giving up on an emotion.
    """

    names: tuple[str, ...]
    num_clips: int
    pearson: tuple[float, ...]
    ccc: tuple[float, ...]
    mse: tuple[float, ...]
    mean_pearson: float
    mean_ccc: float
    mean_mse: float
    constant_labels: tuple[str, ...]
    """Emotions left out of the means."""
    constant_predictions: tuple[str, ...]
    """Emotions whose Pearson counts as 0 in the mean."""

    @property
    def note(self) -> str:
        """What the means do not say, as a sentence for tables; empty if nothing."""
        parts = []
        if self.constant_labels:
            parts.append(f"labels do not vary, left out of the means: {', '.join(self.constant_labels)}")
        if self.constant_predictions:
            parts.append(f"predictions do not vary, counted as 0: {', '.join(self.constant_predictions)}")
        return "; ".join(parts)


Over = Literal["subjects", "clips"]
"""What bootstrap intervals are over."""


@dataclass(frozen=True)
class Interval:
    low: float
    high: float


@dataclass(frozen=True)
class Intervals:
    """Bootstrap intervals of `Scores`, per emotion and for the means."""

    pearson: tuple[Interval, ...]
    ccc: tuple[Interval, ...]
    mse: tuple[Interval, ...]
    mean_pearson: Interval
    mean_ccc: Interval
    mean_mse: Interval
    over: Over = "clips"


class Drawn(NamedTuple):
    """What a bootstrap draws, each with all of its clips: subjects where all are known, else clips."""

    over: Over
    sums: Float[np.ndarray, "G S"]
    """Of each subject or clip."""


def empty_sums(num_outputs: int, device: torch.device | str = "cpu") -> Float[Tensor, "6 E"]:
    """Where a set's sums start; `sums += batch_sums(…)`, and over processes one sum of one tensor."""
    return torch.zeros(NUM_SUMS, num_outputs, dtype=torch.float64, device=device)


@torch.no_grad()
def batch_sums(
    predictions: Float[Tensor, "B E"], targets: Float[Tensor, "B E"], weights: Float[Tensor, "B"]
) -> Float[Tensor, "6 E"]:
    """What a batch adds, float64, on the CPU, since not every device has it.

    Rows of weight 0 (padding, unreadable, unlabelled) may hold anything; a label that is NaN is missing.
    """
    predictions, targets, weights = predictions.cpu(), targets.cpu(), weights.cpu()
    counts = (weights > 0)[:, None] & ~targets.isnan()
    x = torch.where(counts, predictions.double(), 0.0)
    y = torch.where(counts, targets.double(), 0.0)
    terms = torch.stack([counts.double(), x, y, x * x, y * y, x * y])
    return (terms * weights.double()[None, :, None]).sum(1)


def scores(sums: Float[Tensor, "6 E"], names: tuple[str, ...]) -> Scores:
    """Scores of the set whose sums these are. ``names``: the emotions, in the order of the columns."""
    assert sums.shape[1] == len(names), (tuple(sums.shape), names)
    table = sums.cpu().numpy()
    result = _score(table)
    constant_labels, constant_predictions = result.constant_labels, result.constant_predictions
    return Scores(
        names,
        round(float(table[0].max(initial=0.0))),
        pearson=tuple(result.pearson.tolist()),
        ccc=tuple(result.ccc.tolist()),
        mse=tuple(result.mse.tolist()),
        mean_pearson=float(result.mean_pearson),
        mean_ccc=float(result.mean_ccc),
        mean_mse=float(result.mean_mse),
        constant_labels=tuple(np.array(names)[constant_labels].tolist()),
        constant_predictions=tuple(np.array(names)[constant_predictions & ~constant_labels].tolist()),
    )


def bootstrap(
    predictions: Float[np.ndarray, "N E"],
    targets: Float[np.ndarray, "N E"],
    *,
    num_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    subjects: Sequence[str | None] | None = None,
) -> Intervals:
    """Percentile intervals over what is drawn with replacement (Efron 1979). Only labelled, readable rows.

    The same seed and rows give the same intervals. ``subjects``: of each row; `drawn` says when they are drawn
    in place of clips. Raises `ViperError` for fewer than two rows.
    """
    if len(predictions) < 2:
        raise ViperError(f"{len(predictions)} labelled clip(s): intervals need at least 2")
    x, y = predictions.astype(np.float64), targets.astype(np.float64)
    known = ~np.isnan(y)
    x, y = np.where(known, x, 0.0), np.where(known, y, 0.0)
    terms = np.stack([known, x, y, x * x, y * y, x * y], 1).reshape(len(x), -1)
    over, sums = drawn(terms, None if subjects is None else np.array(subjects, object))
    draws = [
        _score((counts @ sums).reshape(len(counts), NUM_SUMS, -1))
        for counts in resamples(len(sums), num_resamples, seed)
    ]
    found = [np.concatenate(values) for values in list(zip(*draws, strict=True))[:6]]
    pearson, ccc, mse = (tuple(interval_of(column, level) for column in values.T) for values in found[:3])
    mean_pearson, mean_ccc, mean_mse = (interval_of(values, level) for values in found[3:])
    return Intervals(pearson, ccc, mse, mean_pearson, mean_ccc, mean_mse, over)


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
    """How often each row is drawn, a resample per line, in blocks of at most 32 MB."""
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


def scores_of(predictions: Predictions) -> Scores:
    """Pearson, CCC and MSE over all clips that were read and are labelled."""
    sums = batch_sums(
        torch.from_numpy(predictions.predicted),
        torch.from_numpy(predictions.true),
        torch.from_numpy(predictions.scored.astype(np.float64)),
    )
    return scores(sums, predictions.labels.names)


def measure(predictions: Predictions) -> tuple[Scores, Intervals]:
    """Scores over the labelled, readable clips, with 95 % bootstrap intervals over what is `drawn`."""
    scored = predictions.only(predictions.scored)
    return scores_of(predictions), bootstrap(scored.predicted, scored.true, subjects=scored.subjects)


def scores_record(scores: Scores) -> dict[str, Any]:
    """Scores as JSON: means first, then one object per measure; undefined values become ``None``."""
    plain = asdict(scores)
    names = plain.pop("names")
    for measure in ("pearson", "ccc", "mse"):
        plain[measure] = {n: finite_or_none(v) for n, v in zip(names, plain[measure], strict=True)}
        plain[f"mean_{measure}"] = finite_or_none(plain[f"mean_{measure}"])
    return plain


def finite_or_none(value: float) -> float | None:
    return value if np.isfinite(value) else None


class _Table(NamedTuple):
    """Scores of one set, or of many resamples at once (leading axes)."""

    pearson: np.ndarray
    ccc: np.ndarray
    mse: np.ndarray
    mean_pearson: np.ndarray | np.float64
    mean_ccc: np.ndarray | np.float64
    mean_mse: np.ndarray | np.float64
    constant_labels: np.ndarray
    constant_predictions: np.ndarray


def _score(sums: Float[np.ndarray, "*R 6 E"]) -> _Table:
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_x, mean_y, square_x, square_y, product = np.moveaxis(sums[..., 1:, :] / sums[..., :1, :], -2, 0)
        var_x, var_y = square_x - mean_x**2, square_y - mean_y**2
        cov = product - mean_x * mean_y
        # Written so that NaN (no rows at all) counts as constant.
        constant_x = ~(var_x > MIN_RELATIVE_VARIANCE * square_x)
        constant_y = ~(var_y > MIN_RELATIVE_VARIANCE * square_y)
        pearson = np.where(constant_x | constant_y, np.nan, cov / np.sqrt(var_x * var_y)).clip(-1, 1)
        ccc = np.where(constant_y, np.nan, 2 * cov / (var_x + var_y + (mean_x - mean_y) ** 2))
        mse = (square_x - 2 * product + square_y).clip(0)
        num_columns = (~constant_y).sum(-1)
        mean_pearson = np.where(constant_x | constant_y, 0.0, pearson).sum(-1) / num_columns
        mean_ccc = np.where(constant_y, 0.0, ccc).sum(-1) / num_columns
        has_rows = sums[..., 0, :] > 0
        mean_mse = np.where(has_rows, mse, 0.0).sum(-1) / has_rows.sum(-1)
    return _Table(pearson, ccc, mse, mean_pearson, mean_ccc, mean_mse, constant_y, constant_x)
