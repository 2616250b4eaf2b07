"""axes.py: settings that a sweep tries, and their values: grids, and random draws."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import product
from typing import Any

import numpy as np

from viper_e2e.config import (
    LengthConfig,
    ObjectiveConfig,
    OptimizerConfig,
    Settings,
    flat,
    setting_of,
)
from viper_e2e.errors import ViperError, did_you_mean, nearest

MAX_TRIALS = 10_000
MAX_REPEATS = 100_000
"""Most repeats of earlier trials among those drawn, before a range counts as too narrow."""
LOG = "log:"
_GROUPS = (ObjectiveConfig, OptimizerConfig, LengthConfig)
_NOT_TRIED = ("unfreeze", "unfreeze_at", "seeds", "ensemble", "model.fusion.members")


@dataclass(frozen=True)
class Axis:
    """One setting and what it may be."""

    name: str
    """Name of the option of `viper train` without dashes: ``model.fusion.dropout``, ``lr``."""
    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    is_log: bool = False
    is_whole: bool = False
    """Drawn numbers are whole, both ends included."""

    @property
    def whole_ends(self) -> tuple[int, int]:
        """The first and the last whole number of the range."""
        return math.ceil(self.low), math.floor(self.high)

    @property
    def count(self) -> int | float:
        """Number of values."""
        if self.choices:
            return len(self.choices)
        first, last = self.whole_ends
        return last - first + 1 if self.is_whole else math.inf

    def draw(self, generator: np.random.Generator) -> str:
        if self.choices:
            return self.choices[int(generator.integers(len(self.choices)))]
        if self.is_log:
            value = math.exp(generator.uniform(math.log(self.low), math.log(self.high)))
        elif self.is_whole:
            return str(int(generator.integers(*self.whole_ends, endpoint=True)))
        else:
            value = generator.uniform(self.low, self.high)
        return self.written(value)

    def written(self, value: int | float | str) -> str:
        """A value for the command line, within the range even once rounded."""
        if isinstance(value, str):
            return value
        if self.is_whole:
            first, last = self.whole_ends
            return str(min(max(round(value), first), last))
        text = f"{value:.4g}"
        return text if self.low <= float(text) <= self.high else repr(float(value))

    def read(self, text: str) -> int | float | str:
        """The value that `written` has written."""
        return text if self.choices else int(text) if self.is_whole else float(text)


def read_axes(words: Sequence[str], settings: Settings, option: str) -> list[Axis]:
    """``["fusion.dropout=0.1,0.3", "lr=log:1e-4..1e-2"]`` → axes; `ViperError` for what cannot be swept.

    Values stand between commas, or between bars where they have commas themselves (``loss=mse=1,ccc=1|mse``).
    """
    known = flat(settings.to_dict())
    axes: list[Axis] = []
    for word in words:
        name, equals, text = word.partition("=")
        if not (name and equals and text):
            raise ViperError(f"{option} {word}: write a setting and its values, e.g. fusion.dropout=0.1,0.3")
        name = _setting(name, known, option)
        if any(axis.name == name for axis in axes):
            raise ViperError(f"{option} {word}: {name} is given twice")
        axes.append(_axis(name, text, known[name], f"{option} {word}", is_drawn=option == "--range"))
    return axes


def grid(axes: Sequence[Axis]) -> list[dict[str, str]]:
    """Every combination, the last axis changing fastest."""
    count = math.prod(len(axis.choices) for axis in axes)
    if count > MAX_TRIALS:
        raise ViperError(
            f"--grid: {count:,} trials, at most {MAX_TRIALS:,}; draw some with --random N --range …"
        )
    names = [axis.name for axis in axes]
    return [dict(zip(names, values, strict=True)) for values in product(*(axis.choices for axis in axes))]


def drawn(axes: Sequence[Axis], count: int, seed: int) -> list[dict[str, str]]:
    """So many combinations at random, none twice. The first of them are those of a smaller count."""
    check_count(axes, count, "--random")
    is_countable = math.isfinite(math.prod(axis.count for axis in axes))
    generator = np.random.default_rng(seed)
    trials: dict[tuple[str, ...], None] = {}
    repeats = 0
    while len(trials) < count:
        trial = tuple(axis.draw(generator) for axis in axes)
        if trial in trials:
            repeats += 1
        trials[trial] = None
        if not is_countable and repeats > MAX_REPEATS:
            raise ViperError(f"--range {axes[0].name}: has too few values of four digits for {count} trials")
    return [{axis.name: value for axis, value in zip(axes, trial, strict=True)} for trial in trials]


def check_count(axes: Sequence[Axis], count: int, option: str) -> None:
    """`ViperError` where there are fewer combinations than trials, or too many trials for one record."""
    combinations = math.prod(axis.count for axis in axes)
    if count > combinations:
        raise ViperError(
            f"{option} {count}: these ranges have {combinations:,} combinations; --grid tries each of them once"
        )
    if count > MAX_TRIALS:
        raise ViperError(f"{option} {count}: at most {MAX_TRIALS:,} trials")


def _setting(given: str, known: Mapping[str, Any], option: str) -> str:
    """Its full name."""
    name = setting_of(given).removeprefix("train.")
    name = {"head": "model.fusion.kind"}.get(name, name)
    sweepable = set(_sweepable(known))
    for candidate in (name, f"model.{name}"):
        if candidate in sweepable:
            return candidate
    for candidate in (name, f"model.{name}"):
        if candidate in known or any(other.startswith(candidate + ".") for other in known):
            raise ViperError(
                f"{option} {given}: cannot be tried in a sweep: it changes how clips are read or encoded, or "
                "how "
                "the work is done; train with it in a separate run. A sweep can try fusion.…, lr, loss and the "
                "other settings of learning"
            )
    short = {other.removeprefix("model.") for other in sweepable}
    hint = did_you_mean(nearest(name, sorted(short | sweepable)))
    raise ViperError(f"{option} {given}: no setting has this name{hint}")


def _sweepable(known: Mapping[str, Any]) -> Iterator[str]:
    names = {field.name for group in _GROUPS for field in fields(group)} - set(_NOT_TRIED)
    for name in known:
        if (name.startswith("model.fusion.") and name not in _NOT_TRIED) or name.partition(".")[0] in names:
            yield name


def _axis(name: str, text: str, value: object, place: str, *, is_drawn: bool) -> Axis:
    if ".." not in text:
        choices = tuple(part.strip() for part in text.split("|" if "|" in text else ","))
        if not all(choices):
            raise ViperError(f"{place}: a value is missing between commas")
        if len({_value(choice) for choice in choices}) < len(choices):
            raise ViperError(f"{place}: a value is given twice")
        return Axis(name, choices)
    if not is_drawn:
        raise ViperError(
            f"{place}: a grid has single values, e.g. 0.1,0.3; ranges are for --range, with --random N or "
            "--optuna N"
        )
    is_log = text.startswith(LOG)
    low, _, high = text.removeprefix(LOG).partition("..")
    try:
        ends = float(low), float(high)
    except ValueError as error:
        raise ViperError(f"{place}: write LOW..HIGH or log:LOW..HIGH in numbers") from error
    if not (math.isfinite(ends[0]) and math.isfinite(ends[1]) and ends[0] < ends[1]) or (
        is_log and ends[0] <= 0
    ):
        raise ViperError(f"{place}: the first number must be below the second{', above 0' * is_log}")
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    axis = Axis(name, (), *ends, is_log, is_whole)
    if not axis.count:
        raise ViperError(f"{place}: there is no whole number between them")
    return axis


def _value(text: str) -> float | str:
    """The same for what means the same: ``1e-3`` and ``0.001``."""
    try:
        return float(text)
    except ValueError:
        return text
