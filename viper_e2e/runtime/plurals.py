"""plurals.py: counts with their nouns, and lists of names, for messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

MAX_VALUES = 12
"""Values whose counts are told one by one."""


def count_of(number: int, one: str, many: str = "") -> str:
    """``1 clip``, ``2,000 clips``; ``many``: where it is not ``one`` with an s (``film is``, ``films are``)."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def first_of(names: Iterable[object], at_most: int = 3) -> str:
    """``a, b, c, …``; the dots only where there are more."""
    shown = [str(name) for name in names]
    return ", ".join(shown[:at_most]) + ", …" * (len(shown) > at_most)


def all_of(names: Sequence[object], last: str = "and") -> str:
    """``a``, ``a and b``, ``a, b and c``; ``last``: the word before the last one."""
    *first, end = map(str, names)
    return f"{', '.join(first)} {last} {end}" if first else end


def values_of(counts: Mapping[str, int]) -> str:
    """``joy 12, anger 5``: how often each value occurs; of many different ones only how many."""
    if len(counts) > MAX_VALUES:
        return f"{len(counts)} different"
    return ", ".join(f"{value} {number}" for value, number in counts.items())
