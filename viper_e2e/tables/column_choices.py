"""column_choices.py: users' choices about columns, each column's meaning, and the questions left."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field

from viper_e2e.errors import did_you_mean, nearest
from viper_e2e.tables.sheet import Sheet
from viper_e2e.tables.task_columns import TaskColumns
from viper_e2e.tables.titles import FILE_TITLES, plain
from viper_e2e.tables.values import number
from viper_e2e.tasks import CombinedMeasure


@dataclass(frozen=True)
class ColumnChoices:
    """Choices that users make where titles and values leave the meaning of a table open."""

    labels: tuple[str, ...] = ()
    """The columns of emotions; no others are taken as such."""
    ignore: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    """Cells that stand for an empty one, e.g. ``-99``; ``none`` says that there are none."""
    id_column: str = ""
    split_column: str = ""
    subject_column: str = ""
    split: str = ""
    """Split of all rows, if the table has no such column."""
    encoding: str = ""
    sheet: str = ""
    meta: tuple[str, ...] = ()
    """Columns that are kept with each clip (age, language), to score groups by; never labels."""
    tasks: tuple[TaskColumns, ...] = ()
    """Tasks of the columns, unless all are intensities."""
    combined: tuple[CombinedMeasure, ...] = ()
    """Measures of the corpus that combine several tasks."""


@dataclass
class Columns:
    """Places in the header by what they are, and what is still to be settled."""

    file: int | None = None
    path: int | None = None
    split: int | None = None
    subject: int | None = None
    text: int | None = None
    parts: dict[str, int] = field(default_factory=dict)
    """``Start``, ``End``, ``Side``, as far as they are there."""
    meta: dict[str, int] = field(default_factory=dict)
    """Columns kept with each clip, by the name they have there."""
    labels: list[int] = field(default_factory=list)
    tasks: tuple[TaskColumns, ...] = ()
    unused: dict[int, str] = field(default_factory=dict)
    """Place → why it is not used."""
    complaints: list[tuple[int, str]] = field(default_factory=list)
    """(line, what is wrong)."""
    settle: dict[str, list[str]] = field(default_factory=dict)
    """Option → what to give it."""
    notes: list[str] = field(default_factory=list)

    def ask(self, line: int, text: str, option: str, value: str) -> None:
        self.complaints.append((line, text))
        if value not in self.settle.setdefault(option, []):
            self.settle[option].append(value)


def looks_like_files(title: str) -> bool:
    return plain(title) in FILE_TITLES


def is_missing(cell: str, codes: Sequence[str]) -> bool:
    """Whether a cell is one of the codes, as text or as a number."""
    if not codes:
        return False
    if cell.casefold() in {code.casefold() for code in codes}:
        return True
    value = number(cell, "either")
    return value is not None and any(number(code, "either") == value for code in codes)


def settling(columns: Columns) -> str:
    """The options that settle what was asked, as they are typed."""
    words = []
    for option, titles in columns.settle.items():
        titles = titles[:1] if option in ("--id-column", "--split-column", "--subject-column") else titles
        # A value that begins with - would be taken for an option of its own.
        between = "=" if titles[0].startswith("-") else " "
        words.append(f"{option}{between}{shlex.quote(','.join(titles))}")
    return " ".join(words)


def find_column(sheet: Sheet, wanted: str, option: str, columns: Columns) -> int | None:
    """The column a person named, whatever its case; a complaint with the nearest where there is none."""
    exact = [place for place, title in enumerate(sheet.header) if title == wanted]
    alike = [place for place, title in enumerate(sheet.header) if title and plain(title) == plain(wanted)]
    if exact or len(alike) == 1:
        return (exact or alike)[0]
    hint = did_you_mean(nearest(wanted, [title for title in sheet.header if title]))
    there = hint or f"; there are {_and_others(sheet.header)}"
    columns.complaints.append((sheet.header_line, f"{option}: no column {wanted!r}{there}"))
    return None


def _and_others(header: Sequence[str]) -> str:
    return ", ".join(repr(title) for title in header if title)
