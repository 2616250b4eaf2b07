"""corpus_measures.py: measures that single corpora ask for: blended emotions, numbers in steps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from viper_e2e.labels import LabelSet
from viper_e2e.model import Predictions
from viper_e2e.tasks import BLENDS, Task

# --- blends -----------------------------------------------------------------------------------------

DEFAULT_THRESHOLDS = (0.1, 0.1)
"""Thresholds where none were fitted: those that the authors of BLEMORE begin with."""
THRESHOLDS = np.linspace(0.05, 0.95, 20)
"""Candidates for either threshold."""


@dataclass(frozen=True)
class Blends:
    """The one or two emotions of each of N clips."""

    present: Bool[np.ndarray, "N C"]
    order: Int[np.ndarray, "N"]
    """Order of two emotions: 1 if the first is more salient, -1 if the other is, 0 if they are equal."""


def said_blends(values: Float[np.ndarray, "N C"], alone: int | None, thresholds: tuple[float, float]) -> Blends:
    """Decide blends from a model's saliences, as BLEMORE's authors do.

    The most salient emotion is present; the second as well where both are at least the first threshold, and
    neither is the one that stands ``alone``. Two that differ by the second threshold at most are equal.
    (`probs2dict` in `model/post_process.py` of github.com/BlEmoRe/blemore-common; Lachmann et al. 2026.)
    """
    from_value, within = thresholds
    top = np.argsort(-values, axis=1, kind="stable")[:, :2]
    strong, weak = np.take_along_axis(values, top, 1).T
    is_two = (strong >= from_value) & (weak >= from_value) & (weak > 0)
    if alone is not None:
        # As strong as the neutral one, an emotion wins.
        swapped = (top[:, 0] == alone) & (strong == weak) & is_two
        top = np.where(swapped[:, None], top[:, ::-1], top)
        is_two &= (top != alone).all(1)
    present = np.zeros(values.shape, bool)
    np.put_along_axis(present, top[:, :1], True, 1)
    rows = np.flatnonzero(is_two)
    present[rows, top[rows, 1]] = True
    leads = np.where(top[:, 0] < top[:, 1], 1, -1)
    return Blends(present, np.where(is_two & (strong - weak > within), leads, 0))


def labelled_blends(true: Float[np.ndarray, "N C"]) -> Blends:
    """Every emotion with a salience is present; saliences are compared in whole percent."""
    percent = np.round(100 * true).astype(int)
    present = percent > 0
    columns = np.arange(true.shape[1])
    first = np.where(present, columns, true.shape[1]).min(1).clip(max=true.shape[1] - 1)
    last = np.where(present, columns, -1).max(1).clip(min=0)
    rows = np.arange(len(true))
    return Blends(present, np.sign(percent[rows, first] - percent[rows, last]))


def blend_sums(
    task: Task, predicted: Float[np.ndarray, "N C"], true: Float[np.ndarray, "N C"]
) -> Float[np.ndarray, "N 4"]:
    """Per clip: 1, whether the right emotions are present, whether two are, and whether these stand in the
    right order."""
    said = said_blends(predicted, task.alone, task.thresholds or DEFAULT_THRESHOLDS)
    return _blend_sums(said, labelled_blends(true))


def _blend_sums(said: Blends, wanted: Blends) -> Float[np.ndarray, "N 4"]:
    right = (said.present == wanted.present).all(1)
    is_two = wanted.present.sum(1) == 2
    ordered = right & is_two & (said.order == wanted.order)
    return np.stack([np.ones(len(right)), right, is_two, ordered], 1).astype(float)


def fitted_thresholds(
    predicted: Float[np.ndarray, "N C"], true: Float[np.ndarray, "N C"], alone: int | None
) -> tuple[float, float]:
    """The pair on a grid with the best mean of both accuracies, the first of several.

    (`grid_search_thresholds` in the authors' `model/post_process.py`, with its weight of a half.)
    """
    wanted = labelled_blends(true)
    best, found = -1.0, DEFAULT_THRESHOLDS
    for from_value in THRESHOLDS.tolist():
        for within in THRESHOLDS.tolist():
            sums = _blend_sums(said_blends(predicted, alone, (from_value, within)), wanted).sum(0)
            score = sums[1] / max(sums[0], 1) + sums[3] / max(sums[2], 1)
            if score > best:
                best, found = score, (from_value, within)
    return found


def with_thresholds(predictions: Predictions) -> LabelSet:
    """The labels of predictions, with thresholds of their blends fitted on these very clips."""
    labels, fitted = predictions.labels, {}
    for task, columns in labels.parts:
        true = predictions.true[:, columns]
        known = predictions.scored & ~np.isnan(true).any(1)
        if set(task.measures).intersection(BLENDS) and known.any():
            predicted = predictions.predicted[known][:, columns]
            fitted[task.name] = fitted_thresholds(predicted, true[known], task.alone)
    return labels.with_thresholds(labels.thresholds | fitted)


def notes_of(task: Task) -> str:
    """Notes beside a task's measures."""
    if not set(task.measures).intersection(BLENDS):
        return ""
    from_value, within = task.thresholds or DEFAULT_THRESHOLDS
    how = "fitted" if task.thresholds else "never fitted: training with validation clips does so"
    return f"an emotion is present from {from_value:.3g} on, two within {within:.3g} are equal ({how})"


# --- numbers in steps -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Steps:
    """Edges that turn a number into one of several classes."""

    edges: tuple[float, ...] = ()
    """Between the classes; a value on an edge belongs to the class below, unless ``from_edge``."""
    from_edge: bool = False
    rounded_to: int = 0
    """Classes are whole numbers from minus this to this, halves to the even one."""
    without_zero: bool = False
    """Clips labelled 0 are left out."""

    @property
    def size(self) -> int:
        return 2 * self.rounded_to + 1 if self.rounded_to else len(self.edges) + 1

    def of(self, values: Float[np.ndarray, "N"]) -> Int[np.ndarray, "N"]:
        """Classes of values, in float32, in which a label of 0.1 lies on the edge of 0.1."""
        x = values.astype(np.float32)
        if self.rounded_to:
            return np.round(x.clip(-self.rounded_to, self.rounded_to)).astype(int) + self.rounded_to
        return np.digitize(x, np.array(self.edges, np.float32), right=not self.from_edge)


STEPS = {
    "has0": Steps((0.0,), from_edge=True),
    "non0": Steps((0.0,), without_zero=True),
    "whole5": Steps(rounded_to=2),
    "whole7": Steps(rounded_to=3),
    "steps2": Steps((0.0,)),
    "steps3": Steps((-0.1, 0.1)),
    "steps5": Steps((-0.7, -0.1, 0.1, 0.7)),
}
"""Measures of CMU-MOSEI and CH-SIMS, as papers compute them (`__eval_mosei_regression` and
`__eval_sims_regression` of MMSA's `metricsTop.py`, github.com/thuiar/MMSA): negative or not; negative or
positive without those labelled 0; rounded to whole numbers; and CH-SIMS's two, three and five steps."""
IN_STEPS = {
    "acc2_has0": ("has0", "accuracy"),
    "f1_has0": ("has0", "f1"),
    "acc2_non0": ("non0", "accuracy"),
    "f1_non0": ("non0", "f1"),
    "acc5": ("whole5", "accuracy"),
    "acc7": ("whole7", "accuracy"),
    "acc2_steps": ("steps2", "accuracy"),
    "f1_steps": ("steps2", "f1"),
    "acc3_steps": ("steps3", "accuracy"),
    "acc5_steps": ("steps5", "accuracy"),
}
"""Measure → steps, and a note on them; F1 is weighted."""


def step_sums(
    steps: Steps, predicted: Float[np.ndarray, "N 1"], true: Float[np.ndarray, "N 1"]
) -> Float[np.ndarray, "N S"]:
    """Per clip its cell of the confusion of steps, true by predicted."""
    cells = np.eye(steps.size**2)[steps.of(true[:, 0]) * steps.size + steps.of(predicted[:, 0])]
    return np.where(true == 0, 0.0, cells) if steps.without_zero else cells


def of_steps(table: Float[np.ndarray, "R S S"]) -> dict[str, Float[np.ndarray, "R"]]:
    right, occurs, said = np.diagonal(table, axis1=-2, axis2=-1), table.sum(-1), table.sum(-2)
    f1 = np.where(occurs > 0, 2 * right / (occurs + said) * occurs, 0.0)
    return {"accuracy": right.sum(-1) / occurs.sum(-1), "f1": f1.sum(-1) / occurs.sum(-1)}


# --- all of a task ----------------------------------------------------------------------------------


def further_sums(
    task: Task, predicted: Float[np.ndarray, "N C"], true: Float[np.ndarray, "N C"]
) -> Float[np.ndarray, "N S"]:
    """Summands of each clip for the further measures of a task."""
    made = [np.zeros((len(true), 0))]
    if set(task.measures).intersection(BLENDS):
        made.append(blend_sums(task, predicted, true))
    made += [step_sums(STEPS[name], predicted, true) for name in _steps_of(task)]
    return np.concatenate(made, 1)


def further_of_sums(task: Task, sums: Float[np.ndarray, "R S"]) -> dict[str, Float[np.ndarray, "R"]]:
    """Measures from sums over clips; NaN if no clip counts."""
    found: dict[str, Float[np.ndarray, "R"]] = {}
    if set(task.measures).intersection(BLENDS):
        total, right, twos, ordered = np.moveaxis(sums[..., :4], -1, 0)
        found, sums = {"presence": right / total, "salience": ordered / twos}, sums[..., 4:]
    for name in _steps_of(task):
        size = STEPS[name].size
        table, sums = sums[..., : size**2], sums[..., size**2 :]
        values = of_steps(table.reshape(*table.shape[:-1], size, size))
        found |= {measure: values[what] for measure, (steps, what) in IN_STEPS.items() if steps == name}
    return {name: found[name] for name in task.measures}


def _steps_of(task: Task) -> list[str]:
    return list(dict.fromkeys(IN_STEPS[name][0] for name in task.measures if name in IN_STEPS))
