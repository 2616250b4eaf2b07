"""names.py: our names of labels, made of titles as corpora write them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence


def name_of(column: str) -> str:
    """``"Empathic-Pain"`` → ``"empathic_pain"``; letters of any script stay: ``"Überraschung"``, ``"喜び"``."""
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", column).casefold())
    # -1 is another class than 1. A dash between words, or after a bracket, is no sign.
    text = re.sub(r"(?<!\S)[-−–](?=[.,]?\d)", "minus ", text)
    # Marks belong to letters: without them most words of India's languages would fall apart.
    kept = "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in text)
    # A title without a letter (an emoji, a plus) gets its name from the numbers of its characters.
    return "_".join(kept.split()) or "_".join(f"u{ord(c):x}" for c in text.strip())


def alone_of(columns: Sequence[str]) -> int | None:
    """The column of the emotion that is in no blend: the neutral one, if it is there."""
    return next((i for i, column in enumerate(columns) if name_of(column) == "neutral"), None)


def collision(columns: Sequence[str]) -> str | None:
    """Why columns cannot be distinguished: the two whose names are the same, or ``None``."""
    seen: dict[str, str] = {}
    for column in columns:
        name = name_of(column)
        if name in seen:
            return f"the emotions {seen[name]!r} and {column!r} have the same name {name!r}; rename one"
        seen[name] = column
    return None


def order_of(names: Sequence[str], wanted: Sequence[str]) -> tuple[int, ...] | None:
    """The place of each of the ``wanted`` names among ``names``; ``None`` where they are not the same names."""
    if sorted(names) != sorted(wanted):
        return None
    return tuple(names.index(name) for name in wanted)
