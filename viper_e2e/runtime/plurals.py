"""plurals.py: counts with their nouns, and the first of many names, for messages."""

from __future__ import annotations

from collections.abc import Iterable


def count_of(number: int, one: str, many: str = "") -> str:
    """``1 clip``, ``2,000 clips``; ``many``: where it is not ``one`` with an s (``film is``, ``films are``)."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def first_of(names: Iterable[object], at_most: int = 3) -> str:
    """``a, b, c, …``; the dots only where there are more."""
    shown = [str(name) for name in names]
    return ", ".join(shown[:at_most]) + ", …" * (len(shown) > at_most)
