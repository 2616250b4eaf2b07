"""predictions_csv.py: columns of `Predictions` in a CSV, and how to read them back."""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from viper_e2e.errors import ViperError
from viper_e2e.labels import LabelSet
from viper_e2e.model.table_columns import COULD_BE_FORMULA, INTERVAL_ENDS, SET_END, TableColumn, restored

_NOT_VERBATIM = re.compile(rf"{COULD_BE_FORMULA.pattern}|.*[\r\n]", re.DOTALL)

Values = list | np.ndarray
Names = Mapping[str, Sequence[str]]
"""Those of each ``label`` and of each ``modality``."""
Each = Literal["", "label", "modality"]
NumberKind = Literal["given", "seconds", "computed"]
"""Given ones are written with all their digits, seconds to the millisecond, computed ones as is asked for."""


@dataclass(frozen=True)
class Column:
    """A column of `Predictions`; a CSV has one for it, or one for each label or modality."""

    title: str
    """In a CSV; empty: it is in memory alone, and in none."""
    kind: Literal["text", "flag"] | NumberKind
    unknown: str | bool | float | None
    """Value for a clip about which nothing is known."""
    each: Each = ""
    is_optional: bool = False
    """Whether None stands for a column that says nothing of any clip."""

    def titles(self, names: Names) -> list[str]:
        """In a CSV."""
        return [f"{self.title}_{name}" for name in names[self.each]] if self.each else [self.title]

    def blank(self, count: int, names: Names) -> Values | None:
        """The column of clips of which nothing is known."""
        if self.is_optional:
            return None
        if self.kind == "text":
            return [self.unknown] * count
        return np.full((count, len(names[self.each])) if self.each else count, self.unknown)

    def in_csv(
        self, values: Values | None, count: int, names: Names, shown: Callable[[float], str]
    ) -> Iterator[TableColumn]:
        """Columns as written; ``shown`` turns a computed number into text."""
        values = [self.unknown] * count if values is None else values
        written = shown if self.kind == "computed" else _WRITTEN[self.kind]
        by_title = np.asarray(values).T if self.each else [values]
        for title, own in zip(self.titles(names), by_title, strict=True):
            yield TableColumn(title, "text" if self.kind == "text" else "number", map(written, own))

    def read(self, rows: Sequence[Sequence[str]], names: Names, path: str | os.PathLike) -> Values | None:
        """Values from its cells in each row of a CSV."""
        if self.kind == "text":
            texts = [restored(cell) or self.unknown for (cell,) in rows]
            return texts if any(texts) or not self.is_optional else None
        numbers = [[_number(cell, line, path) for cell in row] for line, row in enumerate(rows, 2)]
        values = np.array(numbers, np.float64).reshape(len(rows), len(self.titles(names)))
        values = values if self.each else values[:, 0]
        return values == 1 if self.kind == "flag" else values


def text(title: str, *, unknown: str | None = "", is_optional: bool = False) -> dict[str, Column]:
    """Metadata of a field of `Predictions` that is text."""
    return {"column": Column(title, "text", unknown, is_optional=is_optional)}


def flag(title: str, *, unknown: bool, each: Each = "") -> dict[str, Column]:
    """One that is yes or no."""
    return {"column": Column(title, "flag", unknown, each)}


def number(title: str, kind: NumberKind, *, each: Each = "") -> dict[str, Column]:
    """One that is a number, or NaN."""
    return {"column": Column(title, kind, np.nan, each)}


def read_columns(path: str | os.PathLike, columns: Mapping[str, Column], labels: LabelSet) -> dict[str, Any]:
    """The columns out of such a file, by name, and its ``modalities``; intervals and sets are left out."""
    header, rows = _read_rows(path)
    modalities = tuple(title.removeprefix("present_") for title in header if title.startswith("present_"))
    names = {"label": labels.names, "modality": modalities}
    wanted = [title for column in columns.values() for title in column.titles(names)]
    more = header[len(wanted) :]
    if header[: len(wanted)] != wanted or not all(name.endswith((*INTERVAL_ENDS, SET_END)) for name in more):
        odd = sorted(set(header) ^ set(wanted)) or ["another order"]
        raise ViperError(
            f"{path}: not predictions for {', '.join(labels.names)} (differs in: {', '.join(odd[:6])}); "
            "give the label set that the file was written with"
        )
    found: dict[str, Any] = {"modalities": modalities}
    first = 0
    for name, column in columns.items():
        last = first + len(column.titles(names))
        found[name] = column.read([row[first:last] for row in rows], names, path)
        first = last
    return found


def _read_rows(path: str | os.PathLike) -> tuple[list[str], list[list[str]]]:
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            lines = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ViperError(f"{path}: cannot be read as predictions ({error})") from error
    if not lines:
        raise ViperError(f"{path}: empty; write predictions with `viper eval`")
    header, *rows = lines
    for number, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise ViperError(
                f"{path}: row {number} has {len(row)} cells, expected {len(header)}; the file is torn"
            )
    return header, rows


def _number(cell: str, line: int, path: str | os.PathLike) -> float:
    try:
        return float(cell) if cell else np.nan
    except ValueError as error:
        raise ViperError(f"{path}: row {line}: {cell!r} is not a number") from error


def exact_number(value: float) -> str:
    """All digits of a number; nothing for NaN."""
    return "" if np.isnan(value) else repr(float(value))


def short_number(value: float) -> str:
    """Its six first digits that count; nothing for NaN."""
    return "" if np.isnan(value) else f"{value:.6g}"


_WRITTEN: dict[str, Callable[[Any], str]] = {
    "text": lambda text: text or "",
    "flag": lambda value: "1" if value else "0",
    "given": exact_number,
    "seconds": lambda seconds: exact_number(round(seconds, 3)),
}


def submission_ids(
    path: str | os.PathLike, file_ids: Sequence[str], keys: Sequence[str], labels: LabelSet
) -> list[str]:
    """Name of each clip in a submission: its ``File_ID`` verbatim, else its key.

    Raises :class:`ViperError` for an identifier that occurs twice, or that a spreadsheet would run as a formula
    (it could not stay verbatim). ``path``: of the submission, for the message.
    """
    ids = [file_id or key for file_id, key in zip(file_ids, keys, strict=True)]
    twice = next((file_id for file_id, count in Counter(ids).items() if count > 1), None)
    if twice is not None:
        raise ViperError(f"{path}: {twice!r} occurs twice; score one set of shards per submission")
    for text in (*labels.columns, *ids):
        if _NOT_VERBATIM.match(text):
            raise ViperError(
                f"{path}: {text!r} would be read as a formula or a line break; rename it and pack again"
            )
    return ids
