"""packing/spellings.py: finds names of people or groups that may be one name, spelt in several ways."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

from viper_e2e.packing.values import class_word, same_class

MAX_NAMED = 4
"""So many names are given in a message; more are counted."""


def spelt_alike(names: Iterable[str]) -> list[list[str]]:
    """Names that differ by case, punctuation or leading zeros alone, and so are two people or groups."""
    spellings: dict[str, set[str]] = defaultdict(set)
    for name in names:
        spellings[_loosely(name)].add(name)
    return sorted(sorted(found) for found in spellings.values() if len(found) > 1)


def spelt_apart(*sets: Iterable[str]) -> list[list[str]]:
    """As `spelt_alike`, of names that are not all in one of the sets: one person may be in two."""
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
