"""plurals.py: numbers with what they count, as people say them."""

from __future__ import annotations


def count_of(number: int, one: str, many: str = "") -> str:
    """``1 clip``, ``2,000 clips``; ``many``: where it is not ``one`` with an s (``film is``, ``films are``)."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
