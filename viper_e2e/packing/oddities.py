"""packing/oddities.py: what in a table's rows may be a slip: names written two ways, people in two splits."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

import numpy as np

from viper_e2e.labels import LabelSet
from viper_e2e.packing.slips import AS_TEXT, is_date
from viper_e2e.packing.table import LabelTable, Row
from viper_e2e.packing.values import class_word, same_class
from viper_e2e.runtime import count_of, first_of

MAX_NAMED = 4
"""Values named of one kind; of more only how many there are."""
SPLIT_WORDS = {
    "train": ("train", "training", "tr"),
    "val": ("val", "valid", "validation", "dev", "devel", "development", "eval"),
    "test": ("test", "testing", "tst"),
}
MIN_ROWS = 3
"""A column that is the same in fewer rows than these is not told."""


def oddities_of(table: LabelTable) -> tuple[str, ...]:
    """One line for each thing that is packed as it stands, but may not be meant so."""
    rows = table.rows
    names: dict[str, list[str]] = {"Subject": [row.subject for row in rows if row.subject is not None]}
    for title in dict.fromkeys(title for row in rows for title in row.meta):
        names[title] = [row.meta[title] for row in rows if title in row.meta]
    return (
        *_splits_of_one_use({row.split for row in rows}),
        *(line for title, values in names.items() for line in _written_two_ways(title, values)),
        *(line for title, values in names.items() for line in _made_dates(title, values)),
        *_in_several_splits(rows),
        *_odd_labels(table.labels, rows),
    )


def _splits_of_one_use(splits: set[str]) -> list[str]:
    found = {use: sorted(splits & set(words)) for use, words in SPLIT_WORDS.items()}
    return [
        f"Split has {_and(alike)}: each becomes shards of its own; write them alike if they are one"
        for alike in found.values()
        if len(alike) > 1
    ]


def _written_two_ways(title: str, values: Iterable[str]) -> list[str]:
    """Values that differ by case, punctuation or leading zeros alone, and so are two people or groups."""
    spellings: dict[str, set[str]] = defaultdict(set)
    for value in values:
        spellings[_loosely(value)].add(value)
    alike = sorted(sorted(found) for found in spellings.values() if len(found) > 1)
    if not alike:
        return []
    named = "; ".join(_and(found) for found in alike[:MAX_NAMED])
    more = f"; and {len(alike) - MAX_NAMED} more" if len(alike) > MAX_NAMED else ""
    return [f"{title}: {named}{more} are taken for different ones; write them alike if they are the same"]


def _made_dates(title: str, values: Iterable[str]) -> list[str]:
    """`2-Jan` was `1-2` before a spreadsheet read it."""
    dates = sorted({value for value in values if is_date(value)})
    if not dates:
        return []
    named = first_of(map(repr, dates), MAX_NAMED)
    return [f"{title}: {named}: dates that a spreadsheet made of such as 1-2 or 3/5? {AS_TEXT}"]


def _loosely(value: str) -> str:
    """``VP_01`` and ``vp1``, ``1.0`` and ``01`` are alike; ``1.5`` and ``15``, ``-1`` and ``1`` are not."""
    text = re.sub(r"(?<=\w)[\s_-]+(?=\w)", "", same_class(value))
    return class_word(re.sub(r"(?<![\d.,])0+(?=\d)", "", text))


def _in_several_splits(rows: Iterable[Row]) -> list[str]:
    splits: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row.subject is not None:
            splits[row.subject].add(row.split)
    astride = sorted(subject for subject, found in splits.items() if len(found) > 1)
    if not astride:
        return []
    named = first_of(map(repr, astride), MAX_NAMED)
    where = _and(sorted({split for subject in astride for split in splits[subject]}))
    what = f"{len(astride)} of {len(splits)} subjects"
    return [f"Subject: {what} are in several of the splits {where} ({named}): scores will flatter the model"]


def _odd_labels(labels: LabelSet, rows: Iterable[Row]) -> list[str]:
    """Columns that are the same everywhere, and classes of which no training clip is one."""
    labelled = [(row.split, row.intensities) for row in rows if row.intensities is not None]
    if not labelled:
        return []
    is_train = np.array([split == "train" for split, _ in labelled])
    table = np.array([values for _, values in labelled], dtype=np.float64)
    lines = []
    for task, columns in labels.parts:
        titles, own = labels.own_titles(task, columns), table[:, columns]
        known = np.isfinite(own).all(1)
        if task.kind == "class":
            lines += _classes_never_trained(task.name, titles, own[known], is_train[known])
            continue
        for title, values in zip(titles, own.T, strict=True):
            values = values[np.isfinite(values)]
            if len(values) >= MIN_ROWS and (values == values[0]).all():
                lines.append(
                    f"{title} is {values[0]:g} in all {count_of(len(values), 'row')}: nothing "
                    "can be learned of it"
                )
    return lines


def _classes_never_trained(
    name: str, titles: tuple[str, ...], shares: np.ndarray, is_train: np.ndarray
) -> list[str]:
    counts: Mapping[str, int] = Counter(titles[place] for place in shares[~is_train].argmax(1))
    trained = {titles[place] for place in shares[is_train].argmax(1)}
    never = [
        f"{title} ({count_of(counts[title], 'clip')})"
        for title in titles
        if counts[title] and title not in trained
    ]
    if not trained or not never:
        return []
    return [f"{name}: no clip of train is of a class that other splits have: {', '.join(never)}"]


def _and(values: list[str]) -> str:
    *first, last = map(repr, values)
    return f"{', '.join(first)} and {last}" if first else last
