"""calibration.py: a model's numbers -> calibrated ones, with an interval or a set of classes around each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite
from typing import Any

import numpy as np
from jaxtyping import Float64

from viper_e2e.labels import LabelSet, name_of
from viper_e2e.runtime import count_of
from viper_e2e.tasks import HOLDS_FROM, LEAST_PROBABILITY, Task

FORMAT, SCHEMA = "viper_e2e calibration", 1


@dataclass(frozen=True)
class Line:
    """``slope × value + intercept``."""

    slope: float
    intercept: float

    def __call__(self, values: Float64[np.ndarray, "N"]) -> Float64[np.ndarray, "N"]:
        return self.slope * values + self.intercept


@dataclass(frozen=True)
class Steps:
    """Rising values ``y`` at rising ``x``, straight lines in between, level beyond both ends."""

    x: tuple[float, ...]
    y: tuple[float, ...]

    def __call__(self, values: Float64[np.ndarray, "N"]) -> Float64[np.ndarray, "N"]:
        return np.interp(values, self.x, self.y)


@dataclass(frozen=True)
class TaskCalibration:
    """The calibration of one task's columns."""

    kind: str
    """The task's."""
    inverse_temperature: float = 1.0
    """Factor of the logits of classes and labels (Guo et al. 2017)."""
    maps: tuple[Line | Steps, ...] = ()
    """A map for each column of intensities and numbers; none: unchanged."""
    bounds: tuple[float, float] | None = None
    """Smallest and largest value of intensities and numbers, where they are known to have some."""
    reach: tuple[float, ...] = ()
    """Split-conformal. Of numbers: how far a label may lie from what is predicted, by column. Of a class (one
    number) and of labels (by column): how improbable something may be and still belong to the set. Empty:
    unknown."""
    num_fitted: int = 0
    """Clips that the map was fitted on."""
    num_held_out: int = 0
    """Other clips, which the reach is of."""
    thresholds: tuple[float, float] | None = None
    """Thresholds of blends, as in `Task`, fitted on calibrated numbers."""

    def apply(self, values: Float64[np.ndarray, "N C"]) -> Float64[np.ndarray, "N C"]:
        """Calibrate predictions of N clips; a row with NaN keeps it."""
        if self.kind == "class":
            return _softmax(self.inverse_temperature * self.logits(values))
        if self.kind == "labels":
            return _softmax(self.inverse_temperature * self.logits(values))[..., 1]
        if self.maps:
            values = np.stack([to(values[:, i]) for i, to in enumerate(self.maps)], 1)
        return values if self.bounds is None else values.clip(*self.bounds)

    def logits(
        self, probabilities: Float64[np.ndarray, "N C"]
    ) -> Float64[np.ndarray, "N C"] | Float64[np.ndarray, "N C 2"]:
        """Whose softmax gives them: of a class over its words, of each label over fails and holds."""
        if self.kind == "labels":
            return np.stack([_log(1 - probabilities), _log(probabilities)], -1)
        return _log(probabilities)

    def interval(self, column: int, value: float) -> tuple[float, float]:
        """Around a calibrated number."""
        low, high = value - self.reach[column], value + self.reach[column]
        return (low, high) if self.bounds is None else (max(low, self.bounds[0]), min(high, self.bounds[1]))

    def classes(self, probabilities: Float64[np.ndarray, " C"]) -> list[int]:
        """The set of a class: all that are probable enough, and the most probable one in any case."""
        likely = set(np.flatnonzero(1 - probabilities <= self.reach[0]).tolist())
        return sorted(likely | {int(probabilities.argmax())})

    def states(self, column: int, probability: float) -> list[int]:
        """The set of a label: 1 that it holds, 0 that it does not, or both."""
        likely = {
            state for state, p in enumerate((1 - probability, probability)) if 1 - p <= self.reach[column]
        }
        return sorted(likely | {int(probability >= HOLDS_FROM)})


@dataclass(frozen=True)
class Calibration:
    """Maps fitted on clips that a model was not trained on; saved beside its weights."""

    tasks: Mapping[str, TaskCalibration]
    """Calibrations by task; absent tasks stay unchanged."""
    coverage: float
    """Share of clips whose label lies in its interval or set, if they are like those that were fitted on."""
    clips: Mapping[str, Any]
    """Those that were fitted on: ``clips``, ``sha256`` of their content, ``subjects``."""

    def apply(self, values: Float64[np.ndarray, "N E"], labels: LabelSet) -> Float64[np.ndarray, "N E"]:
        """Calibrated values of all columns of a label set."""
        made = values.copy()
        for _, columns, own in self._parts(labels):
            made[:, columns] = own.apply(values[:, columns])
        return made

    def said(self, intensities: Mapping[str, float | None], labels: LabelSet) -> dict[str, Any]:
        """Entries of a record: ``intervals`` {name: [lower, upper]}, ``sets`` {name: […]}, ``coverage``.

        ``intensities``: calibrated ones. ``None`` where there is no number. A class has the set of its
        words under the task's name, a label 0, 1 or both under its own.
        """
        intervals: dict[str, list[float] | None] = {}
        sets: dict[str, list[Any] | None] = {}
        values = [intensities.get(name) for name in labels.names]
        row = np.array([np.nan if value is None else value for value in values], np.float64)
        for task, columns, own in self._parts(labels):
            if not own.reach:
                continue
            known, names = bool(np.isfinite(row[columns]).all()), labels.names[columns]
            if task.kind == "class":
                words = labels.own_titles(task, columns)
                chosen = own.classes(row[columns]) if known else []
                sets[name_of(task.name)] = [words[i] for i in chosen] if known else None
                continue
            for i, (name, value) in enumerate(zip(names, row[columns].tolist(), strict=True)):
                if task.kind == "labels":
                    sets[name] = own.states(i, value) if known else None
                else:
                    intervals[name] = list(own.interval(i, value)) if known else None
        return {"intervals": intervals, "sets": sets, "coverage": self.coverage}

    def _parts(self, labels: LabelSet) -> Iterator[tuple[Task, slice, TaskCalibration]]:
        for task, columns in labels.parts:
            if task.name in self.tasks:
                yield task, columns, self.tasks[task.name]

    @property
    def line(self) -> str:
        """Line to print where it is applied."""
        told = f"calibrated on {count_of(self.clips['clips'], 'clip')}: {', '.join(self.tasks)}"
        return f"{told}; intervals and sets for {100 * self.coverage:g} % of clips"

    # --- as a file of a checkpoint ----------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "schema": SCHEMA,
            "coverage": self.coverage,
            "clips": dict(self.clips),
            "tasks": {name: _task_to_json(one) for name, one in self.tasks.items()},
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any], labels: LabelSet) -> Calibration:
        """The inverse. `ValueError` for what was not made of a model with these labels."""
        if (found.get("format"), found.get("schema")) != (FORMAT, SCHEMA):
            raise ValueError("not a calibration of this version")
        try:
            kinds = {task.name: task for task, _ in labels.parts}
            tasks = {name: _task_from_json(one, kinds[name]) for name, one in found["tasks"].items()}
            coverage, clips = float(found["coverage"]), dict(found["clips"])
            if not 0 < coverage < 1 or not isinstance(clips["clips"], int):
                raise ValueError("coverage or clips")
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(repr(error)) from error
        return cls(tasks, coverage, clips)


def _task_to_json(one: TaskCalibration) -> dict[str, Any]:
    return {
        "kind": one.kind,
        "inverse_temperature": one.inverse_temperature,
        "maps": [vars(to) for to in one.maps],
        "bounds": one.bounds,
        "reach": one.reach,
        "num_fitted": one.num_fitted,
        "num_held_out": one.num_held_out,
        **({} if one.thresholds is None else {"thresholds": one.thresholds}),
    }


def _task_from_json(found: Mapping[str, Any], task: Task) -> TaskCalibration:
    """`ValueError` for anything that `_task_to_json` would not write of this task."""
    maps = tuple(_map_from_json(one) for one in found["maps"])
    reach = _numbers(found["reach"])
    bounds = None if found["bounds"] is None else _numbers(found["bounds"])
    inverse_temperature = _numbers([found["inverse_temperature"]])[0]
    if found["kind"] != task.kind or inverse_temperature <= 0 or len(maps) not in (0, task.size):
        raise ValueError(f"task {task.name!r}")
    if len(reach) not in (0, 1 if task.kind == "class" else task.size) or min(reach, default=0.0) < 0:
        raise ValueError(f"reach of {task.name!r}")
    if bounds is not None and (len(bounds) != 2 or bounds[0] > bounds[1]):
        raise ValueError(f"bounds of {task.name!r}")
    pair = None if bounds is None else (bounds[0], bounds[1])
    counts = int(found["num_fitted"]), int(found["num_held_out"])
    thresholds = _numbers(found["thresholds"]) if "thresholds" in found else None
    if thresholds is not None and len(thresholds) != 2:
        raise ValueError(f"thresholds of {task.name!r}")
    fitted = None if thresholds is None else (thresholds[0], thresholds[1])
    return TaskCalibration(task.kind, inverse_temperature, maps, pair, reach, *counts, fitted)


def _map_from_json(found: Mapping[str, Any]) -> Line | Steps:
    if found.keys() == {"slope", "intercept"}:
        return Line(*_numbers([found["slope"], found["intercept"]]))
    x, y = _numbers(found["x"]), _numbers(found["y"])
    if not x or len(x) != len(y) or any(b <= a for a, b in pairwise(x)):
        raise ValueError("steps")
    return Steps(x, y)


def _numbers(found: object) -> tuple[float, ...]:
    if not isinstance(found, list) or not all(isinstance(n, int | float) and isfinite(n) for n in found):
        raise ValueError(f"{found!r} are not finite numbers")
    return tuple(map(float, found))


def _log(probabilities: Float64[np.ndarray, "*N"]) -> Float64[np.ndarray, "*N"]:
    return np.log(np.maximum(probabilities, LEAST_PROBABILITY))


def _softmax(logits: Float64[np.ndarray, "*N C"]) -> Float64[np.ndarray, "*N C"]:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)
