"""depth.py: training depth of a backbone: frozen, its last blocks, all of it, or adapters beside it."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from viper_e2e.errors import ViperError


@dataclass(frozen=True)
class Frozen:
    """Nothing is trained."""

    def __str__(self) -> str:
        return "none"


@dataclass(frozen=True)
class Blocks:
    """Exactly the last `number` blocks, nothing before or after them."""

    number: int

    def __post_init__(self) -> None:
        assert self.number > 0, "no block is `Frozen`"

    def __str__(self) -> str:
        return str(self.number)


@dataclass(frozen=True)
class All:
    """Every weight that a forward pass reads."""

    def __str__(self) -> str:
        return "all"


@dataclass(frozen=True)
class LoRA:
    """Adapters alone, beside frozen weights."""

    def __str__(self) -> str:
        return "lora"


Depth = Frozen | Blocks | All | LoRA


def parse_depth(text: str, source: str) -> Frozen | Blocks | All:
    """``none`` (or ``0``), ``all``, or the number of last blocks; anything else is a `ViperError`.

    ``source`` comes before it in the message: the setting or option that says so.
    """
    if text in ("none", "0"):
        return Frozen()
    if text == "all":
        return All()
    if text.isdecimal() and int(text) > 0:
        return Blocks(int(text))
    raise ViperError(f"{source}: cannot train {text!r}; allowed: none, all, or a number of last blocks")


class Depths(NamedTuple):
    """``visual=4,audio=all``: how deep backbones train; one that is not named trains at most its adapters."""

    rows: tuple[tuple[str, Depth], ...] = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Depths) and self._trained == other._trained

    def __hash__(self) -> int:
        return hash(frozenset(self._trained.items()))

    def __bool__(self) -> bool:
        """Whether anything trains."""
        return bool(self._trained)

    def __str__(self) -> str:
        return ",".join(f"{name}={depth}" for name, depth in self.rows) or "none"

    @property
    def _trained(self) -> dict[str, Depth]:
        return {name: depth for name, depth in self.rows if depth != Frozen()}

    def of(self, name: str) -> Depth:
        return dict(self.rows).get(name, Frozen())

    def updated(self, others: Depths) -> Depths:
        """These depths, updated by others."""
        return Depths(tuple({**dict(self.rows), **dict(others.rows)}.items()))

    def only(self, names: Collection[str]) -> Depths:
        """Depths of these backbones."""
        return Depths(tuple(row for row in self.rows if row[0] in names))

    @classmethod
    def parse(cls, text: str) -> Depths:
        """A bare name trains all."""
        rows = {}
        for word in () if text in ("", "none") else str(text).split(","):
            name, equals, depth = (part.strip() for part in word.partition("="))
            if not name:
                raise ViperError(f"{text!r}: write backbones with their depths, e.g. visual=4,audio=all")
            rows[name] = parse_depth(depth if equals else "all", word)
        return cls(tuple(rows.items()))


class Phase(NamedTuple):
    """From ``epoch`` on (counted from 0, so after that many epochs) a backbone trains to ``depth``."""

    epoch: int
    backbone: str
    depth: Depth

    def __str__(self) -> str:
        return f"{self.epoch}:{self.backbone}={self.depth}"


class LaterDepths(NamedTuple):
    """``2:visual=4,5:visual=all``: backbones that train more from later epochs on, in their order.

    ``lora``: the adapters that a backbone has. ``none``: none does.
    """

    phases: tuple[Phase, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.phases)

    def __str__(self) -> str:
        return ",".join(map(str, self.phases)) or "none"

    def only(self, names: Collection[str]) -> LaterDepths:
        """Later depths of these backbones."""
        return LaterDepths(tuple(phase for phase in self.phases if phase.backbone in names))

    @classmethod
    def parse(cls, text: str) -> LaterDepths:
        phases = [] if text in ("", "none") else [_phase(word) for word in str(text).split(",")]
        return cls(tuple(sorted(phases, key=lambda phase: phase.epoch)))


def _phase(word: str) -> Phase:
    match = re.fullmatch(r"\s*(\d+):(\w+)=(all|lora|\d+)\s*", word)
    if match is None:
        raise ViperError(f"{word!r}: write it as EPOCH:BACKBONE=DEPTH, e.g. 2:visual=4")
    return Phase(int(match[1]), match[2], LoRA() if match[3] == "lora" else parse_depth(match[3], word))
