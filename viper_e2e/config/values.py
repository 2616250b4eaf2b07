"""values.py: sizes, losses, weights, augmentations and trackers, parsed once from their text."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from typing import NamedTuple

from viper_e2e.errors import ViperError, did_you_mean, nearest

# Messages of `parse` begin with what was given; who calls it puts the name of the setting before it.

# --- sizes ----------------------------------------------------------------------------------------

_UNITS = {
    name: base**power
    for power, letter in ((4, "T"), (3, "G"), (2, "M"), (1, "K"))
    for name, base in ((f"{letter}iB", 1024), (f"{letter}B".replace("KB", "kB"), 1000))
}
_FACTORS = {"": 1, "b": 1} | {
    word: factor for name, factor in _UNITS.items() for word in {name.lower(), name.lower().removesuffix("b")}
}
"""Bytes by unit, in small letters."""


class Size(NamedTuple):
    """``2GB``: a number of bytes."""

    num_bytes: int = 0

    def __str__(self) -> str:
        units = [name for name, factor in _UNITS.items() if self.num_bytes and self.num_bytes % factor == 0]
        # The largest of them says it in the fewest digits.
        name = max(units, key=_UNITS.__getitem__, default="")
        return f"{self.num_bytes // _UNITS.get(name, 1)}{name}"

    @classmethod
    def parse(cls, text: str | int) -> Size:
        """kB, MB, GB, TB (powers of 1000), KiB … TiB (of 1024), or bare bytes."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", str(text).strip().lower())
        if match is None or match[2] not in _FACTORS:
            raise ViperError(f"{text!r} is not a size; write, for example, 2GB, 512MB or 1.5GiB")
        num_bytes = float(match[1]) * _FACTORS[match[2]]
        if 0 < num_bytes < 1:
            raise ViperError(f"{text!r} is less than one byte; is the unit missing, as in 2GB?")
        return cls(int(num_bytes))


# --- losses ---------------------------------------------------------------------------------------

LOSS_TERMS = ("mse", "pearson", "ccc")


class Loss(NamedTuple):
    """``mse=1,pearson=0.5``: terms with their weights, in any order."""

    terms: tuple[tuple[str, float], ...] = (("mse", 1.0),)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Loss) and self.weights == other.weights

    def __hash__(self) -> int:
        return hash(frozenset(self.terms))

    @property
    def weights(self) -> dict[str, float]:
        return dict(self.terms)

    def __str__(self) -> str:
        return ",".join(f"{name}={repr(weight).removesuffix('.0')}" for name, weight in self.terms)

    @classmethod
    def parse(cls, text: str) -> Loss:
        """A bare name weighs 1. `ViperError` for an unknown, doubled or weightless term."""
        weights: dict[str, float] = {}
        for part in filter(None, (part.strip() for part in str(text).split(","))):
            name, equals, number = (piece.strip() for piece in part.partition("="))
            if name not in LOSS_TERMS:
                hint = did_you_mean(nearest(name, LOSS_TERMS))
                raise ViperError(f"{text!r}: no term {name!r}; there are {', '.join(LOSS_TERMS)}{hint}")
            if name in weights:
                raise ViperError(f"{text!r}: {name} is listed twice; give it one weight")
            weights[name] = _weight(text, number if equals else "1")
        if not any(weights.values()):
            raise ViperError(f"{text!r}: no term has a weight above 0; write for example mse=1,pearson=0.5")
        return cls(tuple(weights.items()))


class TaskWeights(NamedTuple):
    """``emotion=1,valence=0.5``: of tasks in the sum of their losses; 1 where one is not named.

    ``uncertainty``: learned with the model.
    """

    weights: tuple[tuple[str, float], ...] = ()
    learned: bool = False

    def __bool__(self) -> bool:
        return self.learned or bool(self.weights)

    def __str__(self) -> str:
        if self.learned:
            return "uncertainty"
        return ",".join(f"{name}={repr(weight).removesuffix('.0')}" for name, weight in self.weights)

    @classmethod
    def parse(cls, text: str) -> TaskWeights:
        """`ViperError` for a task without a weight, or with two."""
        weights: dict[str, float] = {}
        if str(text).strip() == "uncertainty":
            return cls(learned=True)
        for part in filter(None, (part.strip() for part in str(text).split(","))):
            name, equals, number = (piece.strip() for piece in part.rpartition("="))
            if not equals or not name or name in weights:
                raise ViperError(
                    f"{text!r}: {part!r} is not a weight of a task; write valence=0.5, or uncertainty"
                )
            weights[name] = _weight(text, number)
        return cls(tuple(weights.items()))


def _weight(text: str, number: str) -> float:
    try:
        weight = float(number)
    except ValueError:
        weight = math.nan
    if not 0 <= weight < math.inf:
        raise ViperError(f"{text!r}: {number!r} is not a weight; give a number from 0 up")
    return weight


# --- changes of clips -----------------------------------------------------------------------------

CHANGES = ("pixels", "box", "sound")
"""Parts of a clip that augmentation can change."""


class Changes(NamedTuple):
    """``none``, ``all`` (of what the modalities read), or some of `CHANGES`, as in ``box,sound``."""

    kinds: tuple[str, ...] | None = ()
    """None: all."""

    def __bool__(self) -> bool:
        return self.kinds != ()

    def __str__(self) -> str:
        return "all" if self.kinds is None else ",".join(self.kinds) or "none"

    def among(self, possible: Collection[str]) -> tuple[str, ...]:
        """Those that are meant where these are possible."""
        return tuple(possible) if self.kinds is None else self.kinds

    @classmethod
    def parse(cls, text: str) -> Changes:
        if text in ("none", "all"):
            return cls(() if text == "none" else None)
        words = [word.strip() for word in str(text).split(",")]
        if set(words) - set(CHANGES):
            raise ViperError(f"{text!r}: choose none, all, or some of {','.join(CHANGES)}")
        return cls(tuple(kind for kind in CHANGES if kind in words))


# --- trackers -------------------------------------------------------------------------------------

TRACKERS = ("tensorboard", "trackio", "wandb", "mlflow")
"""Trackers that can show a run while it trains."""


class Trackers(NamedTuple):
    """``none``, or some of `TRACKERS`, as in ``tensorboard,trackio``."""

    names: tuple[str, ...] = ("tensorboard",)

    def __bool__(self) -> bool:
        return bool(self.names)

    def __str__(self) -> str:
        return ",".join(self.names) or "none"

    @classmethod
    def parse(cls, text: str) -> Trackers:
        words = [] if str(text).strip() == "none" else [word.strip().lower() for word in str(text).split(",")]
        for word in words:
            if word not in TRACKERS:
                hint = did_you_mean(nearest(word, TRACKERS))
                raise ViperError(
                    f"{text!r}: no tracker {word!r}; choose none, or some of {','.join(TRACKERS)}{hint}"
                )
        return cls(tuple(name for name in TRACKERS if name in words))
