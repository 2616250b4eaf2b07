"""axes.py: which settings a sweep tries and with which values: grids, and what is drawn at random."""

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
)
from viper_e2e.errors import ViperError
from viper_e2e.runtime import nearest

MAX_TRIALS = 10_000
LOG = "log:"
_GROUPS = (ObjectiveConfig, OptimizerConfig, LengthConfig)
_NOT_TRIED = ("unfreeze", "unfreeze_at", "seeds", "ensemble", "model.fusion.members")


@dataclass(frozen=True)
class Axis:
    """One setting and what it may be."""

    name: str
    """As the command line of `viper train` has it behind its dashes: ``model.fusion.dropout``, ``lr``."""
    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    is_log: bool = False
    is_whole: bool = False
    """Drawn numbers are whole, both ends included."""

    def draw(self, generator: np.random.Generator) -> str:
        if self.choices:
            return self.choices[int(generator.integers(len(self.choices)))]
        if self.is_log:
            value = math.exp(generator.uniform(math.log(self.low), math.log(self.high)))
        elif self.is_whole:
            return str(int(generator.integers(int(self.low), int(self.high), endpoint=True)))
        else:
            value = generator.uniform(self.low, self.high)
        return str(round(value)) if self.is_whole else f"{value:.4g}"


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
            raise ViperError(f"{option} {word}: {name} stands there twice")
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
    """So many combinations at random. The first of them are those of a smaller count."""
    generator = np.random.default_rng(seed)
    return [{axis.name: axis.draw(generator) for axis in axes} for _ in range(count)]


def _setting(given: str, known: Mapping[str, Any], option: str) -> str:
    """Its full name."""
    name = given.replace("-", "_").removeprefix("train.")
    name = {"head": "model.fusion.kind"}.get(name, name)
    sweepable = set(_sweepable(known))
    for candidate in (name, f"model.{name}"):
        if candidate in sweepable:
            return candidate
    for candidate in (name, f"model.{name}"):
        if candidate in known or any(other.startswith(candidate + ".") for other in known):
            raise ViperError(
                f"{option} {given}: cannot be tried on one pass: it changes what is read or computed of clips "
                "before the head, or how the work is done; train it as a run of its own. What can: fusion.…, "
                "lr, loss and whatever else the learning itself reads"
            )
    short = {other.removeprefix("model.") for other in sweepable}
    raise ViperError(f"{option} {given}: no setting has this name{nearest(name, sorted(short | sweepable))}")


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
        return Axis(name, choices)
    if not is_drawn:
        raise ViperError(
            f"{place}: a grid has single values, e.g. 0.1,0.3; ranges are for --random N --range …"
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
    return Axis(name, (), *ends, is_log, is_whole)
