"""coverage.py: share of labels in the intervals and sets of a calibration, and their width."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from viper_e2e.model import Calibration, Predictions, TaskCalibration
from viper_e2e.scoring.reliability import known_clips
from viper_e2e.tasks import HOLDS_FROM, Task


def measured_coverage(predictions: Predictions, calibration: Calibration) -> dict[str, dict[str, float]]:
    """Share of labels in their intervals or sets, and their mean width or size, by task."""
    found = {}
    for task, columns in predictions.labels.parts:
        own = calibration.tasks.get(task.name)
        known = known_clips(predictions, columns)
        # Of another corpus some columns may not be there.
        whole = own is not None and len(own.reach) == (1 if task.kind == "class" else task.size)
        if own is not None and whole and known.any():
            values, true = predictions.predicted[known][:, columns], predictions.true[known][:, columns]
            found[task.name] = _of_task(task, own, values, true)
    return found


def _of_task(
    task: Task, own: TaskCalibration, values: Float[np.ndarray, "N C"], true: Float[np.ndarray, "N C"]
) -> dict[str, float]:
    if task.kind == "class":
        sets = [own.classes(row) for row in values]
        covered = np.mean([int(row.argmax()) in chosen for row, chosen in zip(true, sets, strict=True)])
        return {"covered": float(covered), "mean_size": float(np.mean(list(map(len, sets))))}
    if task.kind == "labels":
        states = [[own.states(i, p) for i, p in enumerate(row)] for row in values.tolist()]
        held = (true >= HOLDS_FROM).astype(int).tolist()
        pairs = [pair for both in zip(held, states, strict=True) for pair in zip(*both, strict=True)]
        covered = np.mean([truth in state for truth, state in pairs])
        return {"covered": float(covered), "mean_size": float(np.mean([len(state) for _, state in pairs]))}
    ends = np.array([[own.interval(i, v) for i, v in enumerate(row)] for row in values.tolist()])
    covered = ((ends[..., 0] <= true) & (true <= ends[..., 1])).mean()
    return {"covered": float(covered), "mean_width": float((ends[..., 1] - ends[..., 0]).mean())}
