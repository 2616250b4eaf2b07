"""bounds.py: bounds of numeric settings: an interval in the annotation of a field, and its check."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from viper_e2e.config.option_names import option_of
from viper_e2e.errors import ViperError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True)
class Bounds:
    """An interval of finite numbers; ``open_low`` and ``open_high``: without its end."""

    low: float | int = -math.inf
    high: float | int = math.inf
    open_low: bool = False
    open_high: bool = False

    def allows(self, value: float | int) -> bool:
        if not math.isfinite(value):
            return False
        above = value > self.low if self.open_low else value >= self.low
        return above and (value < self.high if self.open_high else value <= self.high)

    def __str__(self) -> str:
        low, high = ((f"{end:.15g}") for end in (self.low, self.high))
        if math.isinf(self.low) and math.isinf(self.high):
            return "a finite number"
        if math.isinf(self.high):
            return f"above {low}" if self.open_low else f"at least {low}"
        start = f"above {low}" if self.open_low else f"from {low}"
        return f"{start} up to {'but not ' if self.open_high else ''}{high}"


FROM_0, FROM_1 = Bounds(0), Bounds(1)
ABOVE_0 = Bounds(0, open_low=True)
WIDTH, LAYERS = Bounds(1, 65_536), Bounds(1, 1_024)
"""Bounds on the size of networks: settings from strangers decide how much memory a model takes."""
CROP = Bounds(1, 4_096)
"""Pixels a side; `clip.CropSpec` refuses others, from whichever file they come."""
SHARE = Bounds(0, 1)
SHARE_BELOW_1 = Bounds(0, 1, open_high=True)
SHARE_BETWEEN = Bounds(0, 1, open_low=True, open_high=True)


@cache
def _must_have_value(kind: type) -> frozenset[str]:
    """Fields of a dataclass whose type does not allow None."""
    return frozenset(
        name
        for name, hint in get_type_hints(kind).items()
        if hint is not Any
        if get_origin(hint) not in (Union, UnionType, Literal) or not {None, NoneType} & {*get_args(hint)}
    )


@cache
def bounds_of(kind: type) -> Mapping[str, Bounds]:
    """Bounds of a dataclass's fields, as ``Annotated[float, SHARE]`` gives them.

    They hold for each number of a tuple or a size; None is allowed wherever its type allows it.
    """
    hints = get_type_hints(kind, include_extras=True)
    marks = {name: getattr(hint, "__metadata__", ()) for name, hint in hints.items()}
    return {name: mark for name, row in marks.items() for mark in row if isinstance(mark, Bounds)}


def check_settings(source: str, parts: Mapping[str, Any]) -> None:
    """`ViperError` in one line where dataclasses, or those inside them, lack a value or have one out of bounds.

    ``source`` comes before each name (``--`` or ``FILE: ``). ``parts``: where each stands (``model.``) → it.
    """
    complaints = [line for path, config in parts.items() for line in _complaints(config, source, path)]
    if complaints:
        raise ViperError("; ".join(complaints))


def check_options(options: DataclassInstance) -> None:
    """The same of a command's own options, as they are written on its command line."""
    check_settings("--", {"": options})


def _complaints(config: DataclassInstance, source: str, path: str) -> Iterator[str]:
    bounds = bounds_of(type(config))
    for field in fields(config):
        value, name = getattr(config, field.name), f"{path}{field.name}"
        shown = option_of(name) if source == "--" else f"{source}{name}"
        if value is None and field.name in _must_have_value(type(config)):
            yield f"{shown} has no value: give one, or leave it out"
        elif is_dataclass(value) and not isinstance(value, type):
            yield from _complaints(value, source, f"{name}.")
        elif field.name in bounds and value is not None:
            wrong = [
                n for n in (value if isinstance(value, tuple) else (value,)) if not bounds[field.name].allows(n)
            ]
            yield from (f"{shown} {number:g}: give a number {bounds[field.name]}" for number in wrong)
