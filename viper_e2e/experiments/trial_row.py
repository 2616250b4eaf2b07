"""trial_row.py: rows of a sweep's table: a trial's settings, and its scores or why it failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from viper_e2e.report import rank
from viper_e2e.scoring import as_measured
from viper_e2e.tasks import names_none
from viper_e2e.training import MEASURES, titled_measures

MEANS = ("mean_pearson", "mean_ccc", "mean_mse")


@dataclass(frozen=True)
class Rescored:
    """Scores of a trial's best model, with an interval."""

    low: float | None
    high: float | None
    """Ends of the interval of the measure that judges; None without one."""
    intervals_over: str | None
    """``subjects`` or ``clips``; earlier versions did not say it."""
    intervals_caution: str | None
    """Why an interval is too narrow."""
    pearson: Mapping[str, float | None] | None
    """Pearson of each emotion; earlier versions lack it for tasks."""


@dataclass(frozen=True)
class TrialRow:
    """A trial that has ended, by the epoch of its ``checkpoints/best``."""

    trial: str
    """Name of its folder."""
    settings: Mapping[str, str]
    """Its own settings: name → value, as written."""
    failed: str = ""
    """Why it diverged; then nothing below is known."""
    epoch: int | None = None
    """Epoch, from 1."""
    measure: str = ""
    """The judging measure, as people read it."""
    score: float | None = None
    """Larger is better; None where it is undefined."""
    mean_pearson: float | None = None
    mean_ccc: float | None = None
    mean_mse: float | None = None
    tasks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The ``kind`` and measures of each task."""
    rescored: Rescored | None = None
    same_as: str = ""
    """An earlier trial in which every number is the same."""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TrialRow:
        """Earlier versions wrote no ``measure``."""
        own = {one.name: data[one.name] for one in fields(cls) if one.name in data}
        rescored = [data.get(one.name) for one in fields(Rescored)] if "low" in data else None
        return cls(**own, rescored=None if rescored is None else Rescored(*rescored))

    def to_json(self) -> dict[str, Any]:
        means = {name: getattr(self, name) for name in MEANS}
        own: dict[str, Any] = {"trial": self.trial, "settings": dict(self.settings)}
        if self.failed:
            return own | {"failed": self.failed, "epoch": None, "score": None} | means
        own |= {"epoch": self.epoch, "measure": self.measure, "value": self.value, "score": self.score}
        own |= means | ({"tasks": self.tasks} if self.tasks else {})
        own |= asdict(self.rescored) if self.rescored is not None else {}
        return own | ({"same_as": self.same_as} if self.same_as else {})

    @property
    def value(self) -> float | None:
        """The measure itself: an error has no sign."""
        return None if self.score is None else as_measured(self.score, self.measure)

    @property
    def other_measures(self) -> dict[str, float | None]:
        """Measures beside the one that judges, by the titles of their columns."""
        if names_none({name: one["kind"] for name, one in self.tasks.items()}):
            others = [(title, key) for title, key in MEASURES if f"mean {title}" != self.measure]
            return {title: getattr(self, f"mean_{key}") for title, key in others}
        titled = {
            f"{task} {title}": one[name]
            for task, one in self.tasks.items()
            for title, name in titled_measures(one)
        }
        return {title: value for title, value in titled.items() if title != self.measure}


def ranked(rows: Sequence[TrialRow]) -> list[TrialRow]:
    """The best first, of equals the earlier; then what has no score, since its predictions do not vary; what
    failed last."""
    return sorted(rows, key=lambda row: (not row.failed, rank(row.score, row.mean_mse)), reverse=True)


def without_effect(rows: Sequence[TrialRow]) -> list[tuple[str, str, list[str]]]:
    """Trials that repeat the training of an earlier one: each one's name, that of the other, and the
    settings that make no difference."""
    settings = {row.trial: row.settings for row in rows}
    return [
        (
            row.trial,
            row.same_as,
            [name for name, value in row.settings.items() if settings[row.same_as][name] != value],
        )
        for row in rows
        if row.same_as
    ]
