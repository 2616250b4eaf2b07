"""spellings.py: names of classes, people and groups that may be one name, spelt in several ways."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable

DASHES = str.maketrans(dict.fromkeys("\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d", "-"))
"""Hyphens, the en dash and the minus sign, which programs write for what the keyboard has."""
MAX_NAMED = 4
"""So many names are given in a message; more are counted."""


def bare(cell: str) -> str:
    """Without spaces around it, nor marks that nobody sees."""
    return cell.strip().strip("\u200b\u200e\u200f\u2060\ufeff").strip()


def class_word(cell: str) -> str:
    """A cell as the name of a class: whole numbers without a point, as tables have them with and without."""
    whole = re.fullmatch(r"\+?(-?[0-9]+)(?:[.,]0+)?", bare(cell).translate(DASHES))
    return whole[1] if whole else bare(cell)


def same_class(word: str) -> str:
    """A form that all spellings of one class share: case, spaces, dashes and composed accents do not count."""
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", class_word(word)).casefold())
    text = text.translate(DASHES)
    return re.sub(r"(?<=\S)[\s_-]+(?=\S)", " ", text)


def spelt_alike(names: Iterable[str]) -> list[list[str]]:
    """Names that differ by case, punctuation or leading zeros alone, and so are two people or groups."""
    spellings: dict[str, set[str]] = defaultdict(set)
    for name in names:
        spellings[_loosely(name)].add(name)
    return sorted(sorted(found) for found in spellings.values() if len(found) > 1)


def spelt_apart(*sets: Iterable[str]) -> list[list[str]]:
    """`spelt_alike` across sets: groups of names that no single set contains. One person may be in two sets."""
    parts = [set(names) for names in sets]
    alike = spelt_alike(set[str]().union(*parts))
    return [names for names in alike if sum(not part.isdisjoint(names) for part in parts) > 1]


def taken_apart(alike: list[list[str]]) -> str:
    """``'S1' and 's1' are taken for different ones; …``."""
    named = "; ".join(quoted(names) for names in alike[:MAX_NAMED])
    more = f"; and {len(alike) - MAX_NAMED} more" if len(alike) > MAX_NAMED else ""
    return f"{named}{more} are taken for different ones; write them alike if they are the same"


def quoted(names: Iterable[str]) -> str:
    """``'a', 'b' and 'c'``."""
    *first, last = map(repr, names)
    return f"{', '.join(first)} and {last}" if first else last


def _loosely(name: str) -> str:
    """``VP_01`` and ``vp1``, ``1.0`` and ``01`` are alike; ``1.5`` and ``15``, ``-1`` and ``1`` are not."""
    text = re.sub(r"(?<=\w)[\s_-]+(?=\w)", "", same_class(name))
    return class_word(re.sub(r"(?<![\d.,])0+(?=\d)", "", text))
