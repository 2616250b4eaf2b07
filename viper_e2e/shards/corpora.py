"""shards/corpora.py: `a=0.7:PATTERN`: shards of several corpora as users write them."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from viper_e2e.shards.limits import ShardError

SEPARATOR = ":"
"""Between a corpus and a clip's key in it; no name of a corpus has one."""
_NAMED = re.compile(r"([A-Za-z][\w-]*)(?:=([^:/]*))?:(?!//)(.+)", re.DOTALL)
_FORM = "NAME=WEIGHT:PATTERN, such as acted=0.3:acted/train-*.tar"


@dataclass(frozen=True)
class NamedShards:
    """One corpus of several, as it was written."""

    name: str
    """Empty: shards without a name, which are one corpus together."""
    weight: float | None
    patterns: tuple[str, ...]


def parse_corpora(text: str, option: str) -> list[NamedShards]:
    """One corpus without a name, or several with; `ShardError` naming ``option`` for anything else."""
    lines = [line for line in text.split("\n") if line]
    named = [None if os.path.exists(line) else _NAMED.fullmatch(line) for line in lines]  # noqa: PTH110
    if not any(named):
        return [NamedShards("", None, tuple(lines))]
    found: list[NamedShards] = []
    for line, match in zip(lines, named, strict=True):
        if match is None:
            raise ShardError(f"{option} {line}: has no corpus name, but others have one; write {_FORM}")
        name, weight, pattern = match.groups()
        if name in {one.name for one in found}:
            raise ShardError(
                f"{option}: {name} is named twice; write its patterns as one: {name}:{{one,two}}/*.tar"
            )
        found.append(NamedShards(name, None if weight is None else _weight(weight, line, option), (pattern,)))
    if len({one.weight is None for one in found}) > 1:
        without = next(one.name for one in found if one.weight is None)
        raise ShardError(
            f"{option}: {without} has no weight, but others have one; give all of them a weight, or none"
        )
    return found


def with_patterns(text: str, change: Sequence[str]) -> str:
    """The same with other patterns, in their order."""
    rest = iter(change)
    lines = []
    for one in parse_corpora(text, "shards"):
        weight = "" if one.weight is None else f"={one.weight!r}"
        lines += [f"{one.name}{weight}{SEPARATOR}" * bool(one.name) + next(rest) for _ in one.patterns]
    return "\n".join(lines)


def parts_of(weights: Sequence[float | None]) -> list[Fraction | None]:
    """Each weight's part of their sum, by the digits that people write: 0.3 and 0.1 are what 30 and 10 are."""
    exact = [None if weight is None else Fraction(repr(weight)) for weight in weights]
    total = sum((weight for weight in exact if weight is not None), Fraction(0))
    return [weight and weight / total for weight in exact]


def _weight(text: str, line: str, option: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not 0 < weight < math.inf:
        raise ShardError(
            f"{option} {line}: {text!r} is not a weight; give a number above 0, or leave the corpus out"
        )
    return weight
