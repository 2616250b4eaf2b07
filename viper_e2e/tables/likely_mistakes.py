"""likely_mistakes.py: likely mistakes in a table: names spelt two ways, people in two splits."""

from __future__ import annotations

import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from viper_e2e.errors import nearest
from viper_e2e.labels import LabelSet
from viper_e2e.runtime import count_of, first_of, quoted, spelt_alike, taken_apart
from viper_e2e.tables.bad_cells import AS_TEXT, is_date
from viper_e2e.tables.table import LabelTable, Row
from viper_e2e.tables.values import is_missing_word

SPLIT_WORDS = {
    "train": ("train", "training", "tr"),
    "val": ("val", "valid", "validation", "dev", "devel", "development", "eval"),
    "test": ("test", "testing", "tst"),
}
MAX_NAMED = 4
"""So many names are given in a message; more are counted."""
RARE = 10
"""A class that is so many times rarer than another may be that one misspelt."""
CLASS_TITLES = frozenset(
    ("emotion", "emotions", "label", "labels", "class", "category", "expression", "target")
)
MIN_ROWS_OF_CODES, MAX_CODES = 10, 20
MIN_ROWS = 3
"""A column that is the same in fewer rows than these is not reported."""


def oddities_of(table: LabelTable) -> tuple[str, ...]:
    """One line for each thing that is packed as it is, but may not be meant so."""
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
        *_codes_of_classes(table.labels, rows),
        *_written_for_nothing(row.text for row in rows),
    )


def _splits_of_one_use(splits: set[str]) -> list[str]:
    found = {use: sorted(splits & set(words)) for use, words in SPLIT_WORDS.items()}
    return [
        f"Split has {quoted(alike)}: each becomes shards of its own; write them alike if they are one"
        for alike in found.values()
        if len(alike) > 1
    ]


def _written_two_ways(title: str, values: Iterable[str]) -> list[str]:
    alike = spelt_alike(values)
    return [f"{title}: {taken_apart(alike)}"] if alike else []


def _made_dates(title: str, values: Iterable[str]) -> list[str]:
    """`2-Jan` was `1-2` before a spreadsheet read it."""
    dates = sorted({value for value in values if is_date(value)})
    if not dates:
        return []
    named = first_of(map(repr, dates), MAX_NAMED)
    return [f"{title}: {named}: dates that a spreadsheet made of such as 1-2 or 3/5? {AS_TEXT}"]


def _in_several_splits(rows: Iterable[Row]) -> list[str]:
    splits: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row.subject is not None:
            splits[row.subject].add(row.split)
    astride = sorted(subject for subject, found in splits.items() if len(found) > 1)
    if not astride:
        return []
    named = first_of(map(repr, astride), MAX_NAMED)
    where = quoted(sorted({split for subject in astride for split in splits[subject]}))
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
            counts = Counter(titles[place] for place in own[known].argmax(1))
            lines += [*_classes_like_others(task.name, counts), *_joined_classes(task.name, titles)]
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


def _classes_like_others(name: str, counts: Mapping[str, int]) -> list[str]:
    """A rare class whose word is nearly that of a frequent one is a slip of the keyboard."""
    lines = []
    for word, num in counts.items():
        often = {other.casefold(): other for other, more in counts.items() if RARE * num <= more}
        if near := nearest(word.casefold(), often, likeness=0.8):
            found = often[near]
            lines.append(
                f"{name}: {word!r} ({count_of(num, 'clip')}) is a class of its own beside {found!r} "
                f"({counts[found]:,}); write them alike if it is a slip"
            )
    return lines


def _joined_classes(name: str, words: Sequence[str]) -> list[str]:
    """`joy;surprise` beside `joy` is two labels of one clip."""
    parts = {word: {part.strip() for part in re.split("[;,/|+&]", word)} for word in words}
    joined = [word for word in words if (parts[word] - {word}).intersection(words)]
    if not joined:
        return []
    return [
        f"{name}: {', '.join(map(repr, joined[:MAX_NAMED]))} is a class of its own; if clips may have several, "
        "give each a column of 0 and 1, and kind: labels in a file of --tasks"
    ]


def _codes_of_classes(labels: LabelSet, rows: Iterable[Row]) -> list[str]:
    """Whole numbers under a title such as Emotion, or in the only column, may be codes of classes."""
    if labels.tasks:
        return []
    table = np.array([row.intensities for row in rows if row.intensities is not None], dtype=np.float64)
    if len(table) < MIN_ROWS_OF_CODES:
        return []
    lines = []
    for title, values in zip(labels.columns, table.T, strict=True):
        words = re.split(r"[\W_]+", title.casefold())
        if len(labels.columns) > 1 and not CLASS_TITLES.intersection(words):
            continue
        if (values == values.round()).all() and 2 <= len(set(values)) <= MAX_CODES:
            lines.append(
                f"{title} ({values.min():g} … {values.max():g}, whole numbers) is learned as an intensity; if "
                f"they stand for classes, --tasks {shlex.quote(f'{title}=class')}"
            )
    return lines


def _written_for_nothing(texts: Iterable[str | None]) -> list[str]:
    """`nan` is what programs write where nothing was said; somebody may as well have said it."""
    counts = Counter(text for text in texts if text is not None and is_missing_word(text))
    return [
        f"Text is {word!r} in {num} rows, packed as what is said; --missing {shlex.quote(word)} if nothing is"
        for word, num in counts.items()
        if num > 1
    ]
