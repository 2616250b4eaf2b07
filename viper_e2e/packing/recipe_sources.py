"""packing/recipe_sources.py: where a recipe's rows come from: names of files, tables, lines of text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from viper_e2e.errors import ViperError
from viper_e2e.packing.recipe_tables import read_records, read_text
from viper_e2e.runtime import count_of, is_hidden

MAX_NAMED = 3
"""Files or rows of one kind that are named; all are counted."""
Fields = dict[str, str]
"""Fields of one file name or one line of a table."""
Change = Callable[[Fields], "Fields | None"]
"""A change that no template can express; ``None`` leaves the row out, a `ValueError` says why."""


@dataclass(frozen=True)
class Folder:
    """A corpus's folder, searched once."""

    path: Path
    files: Sequence[str]
    """Files of clips, by their paths in the folder."""
    notes: list[str]
    """Notes on what is odd about it."""

    @cached_property
    def by_number(self) -> dict[int, list[str]]:
        """Files whose name is a number, with or without zeros before it."""
        found: dict[int, list[str]] = {}
        for file in self.files:
            stem = file.rpartition("/")[2].rpartition(".")[0]
            if re.fullmatch("[0-9]+", stem):
                found.setdefault(int(stem), []).append(file)
        return found

    def tables(self, pattern: str, optional: bool) -> list[Path]:
        """Files of this form, ``*`` allowed."""
        found = sorted(path for path in self.path.glob(pattern) if not is_hidden(path.name))
        if not found and not optional:
            raise ViperError(
                f"{self.path / pattern}: cannot be read (No such file or directory); "
                "--corpus is the folder as it is distributed"
            )
        if not found:
            self.notes.append(f"there is no table {pattern}; its columns stay empty")
        return found


@dataclass(frozen=True, kw_only=True)
class Beside:
    """Another table that has more of the same rows, such as their words."""

    table: str
    key: str
    """Template over its fields which comes to the same as `on`."""
    on: str
    """Template over the fields of the row."""
    columns: Mapping[str, str]
    """Those that are taken → what they are called as fields of the row; empty where it has no such line."""
    pattern: str = ""
    """Pattern of its lines, if it is text instead of a table with cells."""

    def read(self, folder: Folder) -> dict[str, Fields]:
        found: dict[str, Fields] = {}
        for path in folder.tables(self.table, optional=True):
            if self.pattern:
                matches = (
                    re.fullmatch(self.pattern, line) for line in read_text(path, folder.notes).splitlines()
                )
                lines = [match.groupdict() for match in matches if match]
            else:
                lines = [fields for _, fields in read_records(path, (), ",", folder.notes)]
            found |= {self.key.format_map(fields): fields for fields in lines}
        return {
            key: {name: fields[column] for column, name in self.columns.items()}
            for key, fields in found.items()
        }


@dataclass(frozen=True, kw_only=True)
class Source:
    """A source of rows, and how to make one."""

    row: Mapping[str, str]
    """Column of labels.csv → template over the fields, such as ``"dia{Dialogue_ID}_utt{Utterance_ID}"``."""
    words: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Field → its codes → what they stand for. A code that is not there leaves the row out, and is reported."""
    change: Change | None = None
    """Applied to the fields before anything else."""
    beside: tuple[Beside, ...] = ()
    by_number: bool = False
    """Whether ``Path`` means the clip whose name is the same number, wherever it lies."""

    def records(self, folder: Folder) -> Iterator[tuple[str, Fields]]:
        """Place and fields of each row."""
        raise NotImplementedError

    def rows(self, folder: Folder) -> list[Fields]:
        """All rows; those that are not understood are reported."""
        beside = [(one, one.read(folder)) for one in self.beside]
        rows, left = [], []
        for where, fields in self.records(folder):
            try:
                for one, lines in beside:
                    fields |= lines.get(one.on.format_map(fields), dict.fromkeys(one.columns.values(), ""))
                made = self.made(fields)
            except KeyError as error:
                raise ViperError(f"{folder.path / where}: no {error} among {', '.join(fields)}") from error
            except ValueError as error:
                left.append(f"{where}: {error}")
                continue
            if made:
                rows.append(self._found_by_number(made, folder) if self.by_number else made)
        if left:
            folder.notes.append(f"{count_of(len(left), 'row is', 'rows are')} left out: {some(left)}")
        return rows

    def _found_by_number(self, row: Fields, folder: Folder) -> Fields:
        stem = row["Path"].rpartition(".")[0] or row["Path"]
        if not re.fullmatch("[0-9]+", stem):
            return row
        found = folder.by_number.get(int(stem), [])
        return {**row, "Path": found[0] if len(found) == 1 else str(int(stem))}

    def made(self, fields: Fields) -> Fields | None:
        """The row of these fields; `ValueError` for what is not understood."""
        changed = self.change(dict(fields)) if self.change else dict(fields)
        if changed is None:
            return None
        for name, words in self.words.items():
            if changed[name] not in words:
                raise ValueError(f"{name} is {changed[name]!r}, none of {', '.join(words)}")
            changed[name] = words[changed[name]]
        return {column: template.format_map(changed) for column, template in self.row.items()}


@dataclass(frozen=True, kw_only=True)
class Names(Source):
    """Each clip whose path in the corpus has this form is a row."""

    pattern: str
    """Regular expression of the whole path, with ``/``; its named groups are the fields, ``path`` is all."""

    def records(self, folder: Folder) -> Iterator[tuple[str, Fields]]:
        others = []
        for path in folder.files:
            if found := re.fullmatch(self.pattern, path):
                yield path, {"path": path, **{name: text or "" for name, text in found.groupdict().items()}}
            else:
                others.append(path)
        if others:
            one, many = (
                f"{clips} a name unknown to this recipe and {are} left out"
                for clips, are in (("clip has", "is"), ("clips have", "are"))
            )
            folder.notes.append(f"{count_of(len(others), one, many)}: {some(others)}")


@dataclass(frozen=True, kw_only=True)
class Table(Source):
    """Each line of a table is a row; the field ``row`` counts them from 0."""

    table: str
    """Its path in the corpus, ``*`` allowed."""
    columns: tuple[str, ...] = ()
    """Columns of a table without a line of titles."""
    separator: str = ","
    """A space stands for any number of them."""
    optional: bool = False
    """Whether the corpus is also passed on without it."""

    def records(self, folder: Folder) -> Iterator[tuple[str, Fields]]:
        for path in folder.tables(self.table, self.optional):
            records = read_records(path, self.columns, self.separator, folder.notes)
            for row, (line, fields) in enumerate(records):
                yield f"{path.relative_to(folder.path)} line {line}", {**fields, "row": str(row)}


@dataclass(frozen=True, kw_only=True)
class Lines(Source):
    """Each line of this form in text files is a row."""

    table: str
    """Path of the files in the corpus, ``*`` allowed."""
    pattern: str
    """Regular expression of the whole line; its named groups are the fields, ``file`` is the file's name."""
    others: str = ""
    """Pattern of lines that are not rows; lines that match neither pattern are reported."""

    def records(self, folder: Folder) -> Iterator[tuple[str, Fields]]:
        strange = []
        for path in folder.tables(self.table, optional=False):
            for number, line in enumerate(read_text(path, folder.notes).splitlines(), start=1):
                where = f"{path.relative_to(folder.path)} line {number}"
                if found := re.fullmatch(self.pattern, line):
                    named = {name: text or "" for name, text in found.groupdict().items()}
                    yield where, {"file": path.stem, **named}
                elif line.strip() and not re.fullmatch(self.others, line):
                    strange.append(where)
        if strange:
            folder.notes.append(
                f"{count_of(len(strange), 'line is', 'lines are')} not understood and left out: {some(strange)}"
            )


def some(named: Sequence[str]) -> str:
    """The first few."""
    return ", ".join(named[:MAX_NAMED]) + (", …" if len(named) > MAX_NAMED else "")
