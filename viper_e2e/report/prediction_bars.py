"""prediction_bars.py: a prediction as headings and bars, one part for each task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

from viper_e2e.labels import LabelSet
from viper_e2e.tasks import HOLDS_FROM, Task

MOST_CLASSES = 8
"""Most classes shown of a task: the most probable ones."""

Ends = tuple[float, float]


@dataclass(frozen=True)
class Bar:
    """A named number on its range."""

    name: str
    value: float | None
    limits: Ends
    is_chosen: bool = False
    """The class that wins, or a label that holds."""
    interval: Ends | None = None
    """Interval of a calibrated number."""


@dataclass(frozen=True)
class Part:
    """Predictions of one task."""

    heading: str
    """``"emotion: joy"``; empty where the bars say all."""
    bars: Mapping[str, Bar]
    """Bars by the name of the column."""


def parts_said(
    values: Mapping[str, float | None],
    labels: LabelSet,
    intervals: Mapping[str, Sequence[float] | None] | None = None,
) -> list[Part]:
    """Predictions by task: of a class its winner and bars of probabilities; of all others bars.

    ``values``: by name, as in a record; ``intervals``: as there.
    """
    return [_part(task, columns, values, labels, intervals or {}) for task, columns in labels.parts]


def _part(
    task: Task,
    columns: slice,
    values: Mapping[str, float | None],
    labels: LabelSet,
    intervals: Mapping[str, Sequence[float] | None],
) -> Part:
    names = labels.names[columns]
    titles = labels.own_titles(task, columns) if task.kind in ("class", "labels") else names
    numbers = [values.get(name) for name in names]
    limits = (task.minimum, task.maximum)
    if task.kind == "class":
        return _class(task, names, titles, numbers)
    bars: dict[str, Bar] = {}
    for name, title, value in zip(names, titles, numbers, strict=True):
        ends = intervals.get(name)
        holds = task.kind == "labels" and value is not None and value >= HOLDS_FROM
        bars[name] = Bar(title, value, limits, holds, None if ends is None else (ends[0], ends[1]))
    return Part(task.name if task.kind == "labels" else "", bars)


def _class(task: Task, names: Sequence[str], titles: Sequence[str], numbers: Sequence[float | None]) -> Part:
    known = [-1.0 if n is None or not isfinite(n) else n for n in numbers]
    order = sorted(range(len(known)), key=lambda i: -known[i])
    shown, winner = sorted(order[:MOST_CLASSES]), order[0] if known[order[0]] >= 0 else None
    bars = {names[i]: Bar(titles[i], numbers[i], (0.0, 1.0), i == winner) for i in shown}
    return Part(task.name if winner is None else f"{task.name}: {titles[winner]}", bars)
