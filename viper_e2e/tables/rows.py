"""rows.py: lines of a table whose columns are known -> rows, and what each column holds."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan

from viper_e2e.clip import Segment
from viper_e2e.runtime import SOUND_EXTENSIONS, VIDEO_EXTENSIONS, all_of, count_of, fault_of, same_class
from viper_e2e.tables.bad_cells import no_number, why_no_name
from viper_e2e.tables.column_choices import Columns, is_missing
from viper_e2e.tables.sheet import Line, Sheet
from viper_e2e.tables.times import read_segment, told_apart_by
from viper_e2e.tables.titles import KEPT, PARTS
from viper_e2e.tables.values import is_missing_word, number, stray

MAX_NAME = 200
"""Characters of a File_ID."""


PART_TITLES = {
    "Start": "where the clip begins in its file",
    "End": "where the clip ends in its file",
    "Side": "half of the picture",
}


@dataclass(frozen=True)
class Row:
    """One clip of the table."""

    line: int
    file_id: str
    """Verbatim, with its brackets if it has them."""
    key: str
    """Name of the sample in its shard: the File_ID without brackets, ending, dots and slashes."""
    name: str
    """Name to find its files by, with folders and ending if the table has them."""
    split: str
    """Lower case."""
    subject: str | None
    meta: Mapping[str, str]
    intensities: tuple[float, ...] | None
    """``None`` where all emotion cells are empty."""
    text: str | None = None
    """Words that are said in it."""
    segment: Segment | None = None
    """The part of its file; ``None``: all of it."""


@dataclass(frozen=True)
class Column:
    """A column and its meaning."""

    title: str
    taken_for: str
    minimum: float | None = None
    maximum: float | None = None
    """Least and greatest value of a label."""
    empty: int = 0
    """Cells of it that hold nothing, or a code for nothing."""
    counts: Mapping[str, int] | None = None
    """Rows by value, of a class, a split, a subject and what is kept with clips."""


class RowReader:
    """Rows of a table whose columns are known."""

    def __init__(self, sheet: Sheet, columns: Columns, split: str, codes: tuple[str, ...], decimal: str):
        self.sheet, self.places, self.split, self.codes, self.decimal = sheet, columns, split, codes, decimal
        self.num_partly = 0
        known = [at for title, at in columns.meta.items() if title in KEPT]
        named = (columns.file, columns.path, columns.split, columns.subject, columns.text, *known)
        self.names = [at for at in dict.fromkeys(named) if at is not None]
        """Places of columns in which a date is none."""

    def read(self) -> tuple[list[Row], list[tuple[int, str]]]:
        """Rows in the order of the file, and (line, what is wrong) of those left out."""
        rows: list[Row] = []
        problems: list[tuple[int, str]] = []
        for line in self.sheet.lines:
            try:
                rows.append(self._row(line))
            except ValueError as error:
                problems.append((line[0], f"line {line[0]}: {error}"))
        if self.places.file is None:
            rows = _told_apart(rows)
        places = defaultdict(list)
        for row in rows:
            places[row.key].append(row)
        for same in places.values():
            if len(same) > 1:
                where, ids = all_of([row.line for row in same]), dict.fromkeys(row.name for row in same)
                told = f"File_ID {same[0].key!r} more than once"
                if len(ids) > 1:
                    told = f"File_ID {all_of([*map(repr, ids)])} become the same name {same[0].key!r}"
                problems.append((same[0].line, f"lines {where}: {told}; none of them is packed"))
        return [row for row in rows if len(places[row.key]) == 1], sorted(problems)

    def _row(self, line: Line) -> Row:
        number_of_line, cells = line
        if len(cells) != len(self.sheet.header):
            raise ValueError(f"{count_of(len(cells), 'cell')}, the header has {len(self.sheet.header)}")
        cells = [cell.strip() for cell in cells]
        places = self.places
        for place in self.names:
            if why := why_no_name(cells[place]):
                raise ValueError(f"{self.sheet.header[place]} is {cells[place]!r}, {why}")
        path = cells[places.path] if places.path is not None else ""
        file_id = cells[places.file] if places.file is not None else path
        if places.file is None and places.path is None:
            raise ValueError("no column names its file")
        bare = without_brackets(file_id)
        key = key_of(bare)
        split = (self.split or (cells[places.split] if places.split is not None else "train")).lower()
        if not re.fullmatch(r"[a-z0-9_]+", split):
            raise ValueError(f"unusable Split {split!r}: letters, digits and _ are allowed")

        def is_nothing(cell: str) -> bool:
            return not cell or is_missing(cell, self.codes)

        subject = cells[places.subject] if places.subject is not None else ""
        return Row(
            number_of_line,
            file_id,
            key,
            path or bare,
            split,
            None if self._is_empty(subject) else subject,
            {title: cells[at] for title, at in places.meta.items() if not self._is_empty(cells[at])},
            self._intensities(cells),
            None if places.text is None or is_nothing(cells[places.text]) else cells[places.text],
            read_segment(
                *(cells[at] if (at := places.parts.get(name)) is not None else "" for name in PARTS),
                is_empty=is_nothing,
            ),
        )

    def _intensities(self, cells: list[str]) -> tuple[float, ...] | None:
        if self.places.tasks:
            return self._of_tasks(cells)
        titles = {at: self.sheet.header[at] for at in self.places.labels}
        empty = [at for at in titles if not cells[at] or is_missing(cells[at], self.codes)]
        wrong, values = [], []
        for at, title in titles.items():
            if at in empty:
                continue
            value = number(cells[at], self.decimal)
            if value is not None:
                values.append(value)
            else:
                wrong.append(f"{title} is {cells[at]!r}, {no_number(cells[at], self.decimal)}")
        if wrong:
            raise ValueError("; ".join(wrong[:3]) + f" and {len(wrong) - 3} more" * (len(wrong) > 3))
        if empty and len(empty) < len(titles):
            self.num_partly += 1
            named = ", ".join(titles[at] for at in empty)
            raise ValueError(f"{named} empty, others filled; fill all, or none for an unlabelled clip")
        return None if empty else tuple(values)

    def _is_empty(self, cell: str) -> bool:
        return not cell or is_missing(cell, self.codes) or is_missing_word(cell)

    def _of_tasks(self, cells: list[str]) -> tuple[float, ...] | None:
        """Labels of all tasks in order; NaN for a task without one, None if no task has one."""

        values = [task.read(cells, self._is_empty, self.decimal) for task in self.places.tasks]
        row = tuple(value for own in values for value in own)
        return None if all(isnan(value) for value in row) else row

    def columns(self) -> tuple[Column, ...]:
        """Every column of the table and what it was taken for."""
        taken_for = self._taken_for()
        return tuple(
            self._column(at, Column(title, taken_for.get(at) or self.places.unused.get(at, "label")))
            for at, title in enumerate(self.sheet.header)
        )

    def _taken_for(self) -> dict[int | None, str]:
        """Meanings of all columns that are no labels, by place; None stands for absent ones."""
        places = self.places
        kept: dict[int | None, str] = {
            at: "kept with the clip" + (" (--meta)" if name not in KEPT else f" as {name}")
            for name, at in places.meta.items()
        }
        return {
            places.path: "path of the clip",
            places.split: "split",
            places.subject: "subject",
            places.file: "file",
            places.text: "words said",
            **{at: PART_TITLES[name] for name, at in places.parts.items()},
            **kept,
        }

    def _column(self, at: int, column: Column) -> Column:
        """The column, with what its cells contain."""
        places = self.places
        is_counted = at in {places.split, places.subject, *places.meta.values()}
        task = next((task for task in places.tasks if at in task.places), None)
        classes: dict[str, str] = {}
        if task is not None and task.is_words:
            column = replace(column, taken_for=f"class of {task.name}: {', '.join(task.classes)}")
            classes = {same_class(one): one for one in task.classes}

        def is_nothing(cell: str) -> bool:
            # Where a word such as NA is no number and no name, it is nothing.
            if task is not None or is_counted:
                return self._is_empty(cell)
            return not cell or is_missing(cell, self.codes)

        cells = self._cells(at)
        filled = [classes.get(same_class(cell), cell) for cell in cells]
        filled = [cell for cell in filled if cell in classes.values() or not is_nothing(cell)]
        column = replace(column, empty=len(cells) - len(filled))
        if classes or is_counted:
            column = replace(column, counts=dict(sorted(Counter(filled).items())))
        if column.taken_for == "label":
            values = self._values(at)
            column = replace(column, minimum=min(values, default=None), maximum=max(values, default=None))
        return column

    def _cells(self, at: int) -> list[str]:
        return [cells[at].strip() for _, cells in self.sheet.lines if at < len(cells)]

    def _values(self, at: int) -> list[float]:
        values = [number(cell, self.decimal) for cell in self._cells(at) if not is_missing(cell, self.codes)]
        return [value for value in values if value is not None]

    def strays(self) -> list[str]:
        """Values so far from all others of their column that they are likely slips."""
        notes = []
        for at in self.places.labels:
            if (value := stray(self._values(at))) is not None:
                line = next(
                    line
                    for line, cells in self.sheet.lines
                    if at < len(cells) and number(cells[at], self.decimal) == value
                )
                notes.append(f"line {line}: {self.sheet.header[at]} is {value:g}, far outside all other values")
        return notes


def _told_apart(rows: Sequence[Row]) -> list[Row]:
    """Rows that are named by their file alone: where several share one, by their times too, or their line."""
    num_rows = Counter(row.name for row in rows)
    parts = {row.line: "__".join([row.key, told_apart_by(row.segment)]) for row in rows}
    num_parts = Counter(parts.values())
    named = {
        row.line: parts[row.line]
        if row.segment is not None and num_parts[parts[row.line]] == 1
        else f"{row.key}__row{row.line}"
        for row in rows
        if num_rows[row.name] > 1
    }
    return [
        replace(row, key=named[row.line], file_id=named[row.line]) if row.line in named else row for row in rows
    ]


def without_brackets(file_id: str) -> str:
    """``[12345]`` → ``12345``."""
    return file_id[1:-1].strip() if file_id.startswith("[") and file_id.endswith("]") else file_id


def key_of(name: str) -> str:
    """Key of a clip of this name in a shard, where a dot ends a key and a slash begins a folder.

    ``VP01/clip.mp4`` → ``VP01__clip``, ``P03_2024.05.01`` → ``P03_2024_05_01``. Raises ``ValueError``.
    """
    parts = without_ending(unicodedata.normalize("NFC", name).replace("\\", "/")).split("/")
    parts = [part for part in parts if part not in ("", ".")]
    fault = fault_of(name) or ("is longer than 200 characters" if len(name) > MAX_NAME else None)
    if fault or not parts or ".." in parts:
        fault = fault or "is empty or leads out of its folder"
        raise ValueError(f"unusable File_ID {name!r}: it {fault}")
    key = "__".join(part.replace(".", "_") for part in parts)
    # What a tar's reader would take for a Windows drive.
    return re.sub(r"^([A-Za-z]):", r"\1_", key)


def without_ending(name: str) -> str:
    """A file's name without the ending of a video or a sound file; other dots belong to the name."""
    stem, dot, ending = name.rpartition(".")
    return stem if dot and stem and ending.lower() in (*VIDEO_EXTENSIONS, *SOUND_EXTENSIONS) else name
