"""reliability.py: whether probabilities mean what they say: ECE, Brier, bins, score against confidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from viper_e2e.model import Predictions
from viper_e2e.scoring.bootstrap import Interval, Over, drawn, finite_or_none, interval_of, resamples
from viper_e2e.tasks import HOLDS_FROM, Task

NUM_BINS = 15
"""Number of bins of equal width, as in Guo et al. 2017."""
NUM_NUMBER_BINS = 10
"""Number of bins with about equally many values: numbers have no range that all of them fill."""


@dataclass(frozen=True)
class Bin:
    """Predictions that are about the same."""

    said: float
    """Their mean: a confidence, or a number."""
    found: float
    """Share of them that was right, or held; for numbers the mean of the labels."""
    count: int


@dataclass(frozen=True)
class Reliability:
    """Reliability of a task's probabilities, on clips that have its label."""

    ece: float
    """Expected calibration error: mean distance of confidence and share of right ones, over bins (Guo et al.
    2017). Of labels: of the probability that one holds, and the share that does, over all labels."""
    brier: float
    """Mean squared distance of probabilities and labels (Brier 1950); summed over classes, a mean of labels."""
    intervals: Mapping[str, Interval]
    """95 % bootstrap intervals of both; empty below 2 clips."""
    bins: tuple[Bin, ...]
    num_clips: int
    over: Over
    """Units of the intervals."""
    caution: str
    """See `Drawn`."""

    def to_json(self) -> dict[str, Any]:
        return {
            "ece": finite_or_none(self.ece),
            "brier": finite_or_none(self.brier),
            "num_clips": self.num_clips,
            "intervals_95": {
                n: [finite_or_none(i.low), finite_or_none(i.high)] for n, i in self.intervals.items()
            },
            "intervals_over": self.over,
            **({"intervals_caution": self.caution} if self.caution else {}),
        }


@dataclass(frozen=True)
class Selective:
    """Scores of a task when only the most confident predictions are kept."""

    kept: Float[np.ndarray, "N"]
    """Share of clips, rising to 1."""
    scores: Mapping[str, Float[np.ndarray, "N"]]
    """Measure → its value on the clips that are kept."""

    @property
    def area(self) -> float:
        """Under the curve of errors (1 − the first measure) against the share kept; smaller is better."""
        first = next(iter(self.scores.values()))
        return float(np.mean(1 - first)) if len(first) else float("nan")


def known_clips(predictions: Predictions, columns: slice) -> np.ndarray:
    """Whether each clip was read and has all labels of a task."""
    return predictions.scored & ~np.isnan(predictions.true[:, columns]).any(1)


def subjects_of(predictions: Predictions, known: np.ndarray) -> np.ndarray | None:
    return None if predictions.subjects is None else np.array(predictions.subjects, object)[known]


def reliability(
    task: Task,
    predicted: Float[np.ndarray, "N C"],
    true: Float[np.ndarray, "N C"],
    subjects: np.ndarray | None = None,
    *,
    num_resamples: int = 1000,
    seed: int = 0,
) -> Reliability:
    """Reliability of a task of classes or labels. If raters chose several classes, the most chosen is right."""
    said, found = _events(task, predicted, true)
    place = np.minimum((said * NUM_BINS).astype(int), NUM_BINS - 1)
    one_hot = np.eye(NUM_BINS)[place]  # N L B
    parts = [one_hot.sum(1), (one_hot * said[..., None]).sum(1), (one_hot * found[..., None]).sum(1)]
    squares = (predicted - true) ** 2
    brier = squares.sum(1) if task.kind == "class" else squares.mean(1)
    sums = np.concatenate([*parts, brier[:, None], np.ones((len(true), 1))], 1)
    total = sums.sum(0)
    ece, mean_brier = _ece_and_brier(total[None])
    intervals = {}
    over, groups, caution = drawn(sums, subjects)
    if len(sums) >= 2 and num_resamples:
        draws = [_ece_and_brier(counts @ groups) for counts in resamples(len(groups), num_resamples, seed)]
        eces, briers = (np.concatenate(values) for values in zip(*draws, strict=True))
        # Clips that are drawn twice make bins look worse than they are: moved back by that bias.
        eces = np.maximum(eces - (np.nanmean(eces) - ece[0]), 0.0)
        intervals = {"ece": interval_of(eces, 0.95), "brier": interval_of(briers, 0.95)}
    counts, confidences, rights = total[: 3 * NUM_BINS].reshape(3, NUM_BINS)
    bins = tuple(
        Bin(float(confidence / count), float(right / count), int(count))
        for count, confidence, right in zip(counts, confidences, rights, strict=True)
        if count > 0
    )
    return Reliability(float(ece[0]), float(mean_brier[0]), intervals, bins, len(sums), over, caution)


def number_bins(predicted: Float[np.ndarray, "*N"], true: Float[np.ndarray, "*N"]) -> tuple[Bin, ...]:
    """Numbers in order of what was predicted, in parts of about equal size."""
    order = np.argsort(predicted, axis=None, kind="stable")
    parts = np.array_split(order, min(NUM_NUMBER_BINS, max(len(order) // 5, 1)))
    flat = predicted.ravel(), true.ravel()
    return tuple(Bin(float(flat[0][p].mean()), float(flat[1][p].mean()), len(p)) for p in parts if len(p))


def selective(task: Task, predicted: Float[np.ndarray, "N C"], true: Float[np.ndarray, "N C"]) -> Selective:
    """Classes: WAR and UAR of the clips whose winning class is most probable; labels: their accuracy, by
    the mean confidence of a clip's labels."""
    if task.kind == "class":
        confidence, right = predicted.max(1), predicted.argmax(1) == true.argmax(1)
    else:
        confidence = np.maximum(predicted, 1 - predicted).mean(1)
        right = ((predicted >= HOLDS_FROM) == (true >= HOLDS_FROM)).mean(1)
    order = np.argsort(-confidence, kind="stable")
    num_kept = np.arange(1, len(order) + 1)
    scores = {"accuracy": np.cumsum(right[order]) / num_kept}
    if task.kind == "class":
        is_true = np.eye(task.size)[true[order].argmax(1)]
        occurs, hits = np.cumsum(is_true, 0), np.cumsum(is_true * right[order, None], 0)
        recall = np.where(occurs > 0, hits / np.maximum(occurs, 1), 0.0)
        scores = {"war": scores["accuracy"], "uar": recall.sum(1) / (occurs > 0).sum(1).clip(1)}
    return Selective(num_kept / max(len(order), 1), scores)


def task_reliability(predictions: Predictions) -> dict[str, tuple[Reliability, Selective]]:
    """Both for every task of classes or labels, by name."""
    found = {}
    for task, columns in predictions.labels.parts:
        known = known_clips(predictions, columns)
        if task.kind in ("class", "labels") and known.any():
            rows = predictions.predicted[known][:, columns], predictions.true[known][:, columns]
            measured = reliability(task, *rows, subjects_of(predictions, known))
            found[task.name] = measured, selective(task, *rows)
    return found


def _events(task: Task, predicted: np.ndarray, true: np.ndarray) -> Sequence[np.ndarray]:
    """Confidence and whether it was right: one of each clip, or of each of its labels; N L."""
    if task.kind == "class":
        right = predicted.argmax(1) == true.argmax(1)
        return predicted.max(1)[:, None], right[:, None].astype(float)
    return predicted, (true >= HOLDS_FROM).astype(float)


def _ece_and_brier(sums: Float[np.ndarray, "R S"]) -> tuple[np.ndarray, np.ndarray]:
    counts, confidences, rights = (sums[:, i * NUM_BINS : (i + 1) * NUM_BINS] for i in range(3))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.abs(confidences - rights).sum(1) / counts.sum(1), sums[:, -2] / sums[:, -1]
