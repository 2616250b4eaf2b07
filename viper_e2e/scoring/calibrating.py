"""calibrating.py: a calibration fitted on one half of some clips, and measured on the other."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from viper_e2e.errors import ViperError
from viper_e2e.labels import LabelSet
from viper_e2e.model import Calibration, Line, Predictions, Steps, TaskCalibration
from viper_e2e.scoring.bootstrap import Interval, Over
from viper_e2e.scoring.corpus_measures import fitted_thresholds
from viper_e2e.scoring.reliability import Bin, known_clips, number_bins, reliability, subjects_of
from viper_e2e.scoring.task_scores import task_scores
from viper_e2e.tasks import BLENDS, HOLDS_FROM, Task

FEWEST = 10
"""Clips of a half, below which nothing is fitted or measured on it."""
FEWEST_FOR_STEPS = 30
"""Isotonic regression follows each clip where there are few."""
SHARPEST = 100.0
"""Largest inverse temperature: where all clips of the half are right, none would be large enough."""

Measures = Mapping[str, tuple[float, Interval | None]]


@dataclass(frozen=True)
class TaskReport:
    """Effect of calibration on a task, on clips that its map was not fitted on."""

    task: Task
    fitted: TaskCalibration
    before: Measures
    after: Measures
    bins_before: tuple[Bin, ...]
    bins_after: tuple[Bin, ...]
    over: Over
    """Units of the measures' intervals."""
    caution: str
    """See `Drawn`."""


@dataclass(frozen=True)
class CalibrationMethod:
    """Methods of calibration for each kind of task."""

    numbers: str = "affine"
    """Method for intensities and numbers: `affine`, `isotonic`, `none`."""
    classes: str = "temperature"
    """Method for classes and labels: `temperature`, `none`."""
    coverage: float = 0.9
    seed: int = 0
    """Seed of the split of clips, or subjects, into halves."""


def fit_calibration(
    predictions: Predictions, method: CalibrationMethod, content_id: str, *, num_resamples: int = 1000
) -> tuple[Calibration, list[TaskReport], list[str]]:
    """A calibration of every task with enough labelled clips, what it does, and notes.

    ``predictions``: uncalibrated, of clips that the model was not trained on; ``content_id``: of these clips.
    The map of a task is fitted on one half of its clips, or of their subjects, and its intervals on the other:
    so that these hold for clips like them (split conformal, Papadopoulos et al. 2002). `ViperError` where no
    task has enough.
    """
    reports, notes, lacking = [], [], []
    for task, columns in predictions.labels.parts:
        known = known_clips(predictions, columns)
        own = predictions.only(known)
        first = first_half(_groups(own), method.seed) if _has_map(task, method) else np.zeros(len(own), bool)
        wanted = fewest(task, method)
        if first.sum() < wanted[0] or (~first).sum() < wanted[1]:
            of_subjects = " in two halves without a common subject" if _has_map(task, method) else ""
            least = (
                max(2 * wanted[0] - 1, 2 * wanted[1]) if wanted[0] else wanted[1]
            )  # the first half is the larger
            lacking.append(f"{task.name} has {len(own)} labelled clips of at least {least}{of_subjects}")
            continue
        fitted, told = _fit_task(task, columns, own, first, method)
        reports.append(_report(task, columns, own.only(~first), fitted, num_resamples))
        notes += told
    if not reports:
        raise ViperError(f"too few clips to calibrate: {'; '.join(lacking)}")
    notes += [f"left as it is: {line}" for line in lacking]
    clips: dict[str, Any] = {"clips": len(predictions), "sha256": content_id}
    subjects = set(predictions.subjects or [None])
    clips |= {"subjects": None if None in subjects else len(subjects)}
    tasks = {report.task.name: report.fitted for report in reports}
    return Calibration(tasks, method.coverage, clips), reports, notes


def fewest(task: Task, method: CalibrationMethod) -> tuple[int, int]:
    """Clips that either half needs: for the map, and for the intervals."""
    first = 0
    if _has_map(task, method):
        first = FEWEST_FOR_STEPS if method.numbers == "isotonic" and _is_number(task) else FEWEST
    return first, max(FEWEST, fewest_for(method.coverage))


def fewest_for(coverage: float) -> int:
    """Clips below which no interval but an endless one has this coverage."""
    return math.ceil(coverage / (1 - coverage) - 1e-9)


def conformal_quantile(scores: Float[np.ndarray, "N"], coverage: float) -> float:
    """The ⌈(N + 1) × coverage⌉-th smallest: of N + 1 exchangeable scores the last is at most this with that
    chance (Vovk et al. 2005; Lei et al. 2018, algorithm 2)."""
    place = math.ceil((len(scores) + 1) * coverage - 1e-9)
    assert 1 <= place <= len(scores), "as many as `fewest_for` says"
    return float(np.sort(scores)[place - 1])


def first_half(groups: Sequence[str], seed: int) -> np.ndarray:
    """Whether each clip is in the first half: whole groups (subjects), drawn by name and seed."""
    names, sizes = np.unique(np.array(groups, str), return_counts=True)
    drawn = [hashlib.sha256(f"{seed} {name}".encode("utf-8", "surrogatepass")).digest() for name in names]
    order = sorted(range(len(names)), key=drawn.__getitem__)
    before = np.concatenate([[0], np.cumsum(sizes[order])[:-1]]) if len(names) else np.zeros(0)
    chosen = {str(names[i]) for i, n in zip(order, before, strict=True) if 2 * n + sizes[i] <= len(groups)}
    return np.array([str(group) in chosen for group in groups], bool)


# --- one task -------------------------------------------------------------------------------------


def _fit_task(
    task: Task, columns: slice, own: Predictions, first: np.ndarray, method: CalibrationMethod
) -> tuple[TaskCalibration, list[str]]:
    values, true = own.predicted[:, columns], own.true[:, columns]
    made, notes = _fit_map(task, values[first], true[first], method, own.labels.names[columns])
    if _is_number(task):
        within = bool((true >= task.minimum).all() and (true <= task.maximum).all())
        made = replace(made, bounds=(task.minimum, task.maximum) if within else None)
    made = replace(made, num_fitted=int(first.sum()), num_held_out=int((~first).sum()))
    reach = _reach(task, made.apply(values[~first]), true[~first], method.coverage)
    thresholds = None
    if set(task.measures).intersection(BLENDS):
        thresholds = fitted_thresholds(made.apply(values), true, task.alone)
    return replace(made, reach=reach, thresholds=thresholds), notes


def _report(
    task: Task, columns: slice, rest: Predictions, fitted: TaskCalibration, num_resamples: int
) -> TaskReport:
    """``rest``: the clips that it was not fitted on, uncalibrated."""
    true, subjects = rest.true[:, columns], subjects_of(rest, np.ones(len(rest), bool))
    names = ("rmse", "mae", "ccc") if _is_number(task) else ("ece", "brier")
    measures: list[Measures] = []
    bins: list[tuple[Bin, ...]] = []
    for values in (rest.predicted[:, columns], fitted.apply(rest.predicted[:, columns])):
        if _is_number(task):
            of_task = replace(rest, labels=_labels_of(task, columns, rest), predicted=values, true=true)
            (scores,) = task_scores(of_task, num_resamples=num_resamples).values()
            measures.append({name: (scores.values[name], scores.intervals.get(name)) for name in names})
            bins.append(number_bins(values, true))
            over, caution = scores.over, scores.caution
        else:
            found = reliability(task, values, true, subjects, num_resamples=num_resamples)
            measures.append({name: (getattr(found, name), found.intervals.get(name)) for name in names})
            bins.append(found.bins)
            over, caution = found.over, found.caution
    return TaskReport(task, fitted, measures[0], measures[1], bins[0], bins[1], over, caution)


def _labels_of(task: Task, columns: slice, rest: Predictions) -> LabelSet:
    return LabelSet(rest.labels.columns[columns], task.minimum, task.maximum)


def _fit_map(
    task: Task, values: np.ndarray, true: np.ndarray, method: CalibrationMethod, names: Sequence[str]
) -> tuple[TaskCalibration, list[str]]:
    plain = TaskCalibration(task.kind)
    if not _has_map(task, method):
        return plain, []
    if not _is_number(task):
        shares = true if task.kind == "class" else np.stack([1 - true, true], -1)
        logits = plain.logits(values)
        found = inverse_temperature(*(rows.reshape(-1, logits.shape[-1]) for rows in (logits, shares)))
        told = []
        if found in (1 / SHARPEST, SHARPEST):
            told = [f"{task.name}: temperature {1 / found:g}, the largest tried: its probabilities say little"]
        return replace(plain, inverse_temperature=found), told
    fit_one: Callable[[np.ndarray, np.ndarray], Line | Steps] = (
        fit_line if method.numbers == "affine" else fit_steps
    )
    maps, told = [], []
    for name, x, y in zip(names, values.T, true.T, strict=True):
        fitted = fit_one(x, y)
        if isinstance(fitted, Line) and fitted.slope <= 0:
            told.append(f"{name}: its labels do not increase with the predictions; left as it is")
            fitted = Line(1.0, 0.0)
        maps.append(fitted)
    return replace(plain, maps=tuple(maps)), told


def inverse_temperature(logits: Float[np.ndarray, "N C"], shares: Float[np.ndarray, "N C"]) -> float:
    """Factor of logits that gives their softmax the least cross-entropy (Guo et al. 2017).

    It is convex in the inverse temperature: the root of its derivative is found by bisection.
    """

    def slope(beta: float) -> float:
        scaled = beta * logits
        powers = np.exp(scaled - scaled.max(1, keepdims=True))
        expected = (powers / powers.sum(1, keepdims=True) * logits).sum(1)
        return float(np.mean(expected - (shares * logits).sum(1)))

    low, high = 1 / SHARPEST, SHARPEST
    if slope(low) >= 0:
        return low
    if slope(high) <= 0:
        return high
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return math.sqrt(low * high)


def fit_line(x: Float[np.ndarray, "N"], y: Float[np.ndarray, "N"]) -> Line:
    """Least squares; level where ``x`` does not vary."""
    spread = float(((x - x.mean()) ** 2).sum())
    slope = float(((x - x.mean()) * (y - y.mean())).sum()) / spread if spread > 0 else 0.0
    return Line(slope, float(y.mean() - slope * x.mean()))


def fit_steps(x: Float[np.ndarray, "N"], y: Float[np.ndarray, "N"]) -> Steps:
    """Isotonic regression by pooling adjacent violators (Ayer et al. 1955)."""
    places, place, counts = np.unique(x, return_inverse=True, return_counts=True)
    means = np.bincount(place, weights=y) / counts
    blocks: list[tuple[float, float, int]] = []  # mean, weight, number of places
    for mean, count in zip(means.tolist(), counts.tolist(), strict=True):
        blocks.append((mean, float(count), 1))
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            (a, m, i), (b, n, j) = blocks[-2:]
            blocks[-2:] = [((a * m + b * n) / (m + n), m + n, i + j)]
    xs: list[float] = []
    ys: list[float] = []
    start = 0
    for mean, _, size in blocks:
        ends = dict.fromkeys((float(places[start]), float(places[start + size - 1])))
        xs, ys, start = [*xs, *ends], [*ys, *[mean] * len(ends)], start + size
    return Steps(tuple(xs), tuple(ys))


def _reach(task: Task, values: np.ndarray, true: np.ndarray, coverage: float) -> tuple[float, ...]:
    if task.kind == "class":
        right = np.take_along_axis(values, true.argmax(1)[:, None], 1)[:, 0]
        return (conformal_quantile(1 - right, coverage),)
    distances = (
        1 - np.where(true >= HOLDS_FROM, values, 1 - values) if task.kind == "labels" else np.abs(values - true)
    )
    return tuple(conformal_quantile(column, coverage) for column in distances.T)


def _has_map(task: Task, method: CalibrationMethod) -> bool:
    return (method.numbers if _is_number(task) else method.classes) != "none"


def _is_number(task: Task) -> bool:
    return task.kind in ("intensities", "number")


def _groups(own: Predictions) -> list[str]:
    """Subjects where all are known and there are several, else clips."""
    subjects = [subject for subject in own.subjects or [None] if subject is not None]
    if len(subjects) == len(own) and len(set(subjects)) > 1:
        return subjects
    return own.keys
