"""table_columns.py: columns of tables of predictions: titles, kinds, cells that are safe in spreadsheets."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

Kind = Literal["text", "whole", "number", "flag"]
Cell = str | float | int | bool | None

INTERVAL_ENDS, SET_END = ("_lower", "_upper"), "_set"

# A leading minus alone is common in identifiers and runs nothing.
COULD_BE_FORMULA = re.compile(r"[=+@\t]|-.*[^\w.-]", re.DOTALL)


class TableColumn(NamedTuple):
    """A column, with a cell for each row of its table."""

    title: str
    kind: Kind
    cells: Iterable[Cell]


def said_columns(
    said: Sequence[Mapping[str, Any]], first: Mapping[str, Any], shown: Callable[[float], Cell]
) -> list[TableColumn]:
    """Intervals and sets of a calibrated model: ``NAME_lower``, ``NAME_upper``, ``NAME_set`` with bars between.

    ``said``: of each row, as `Calibration.said` has it, with the same names as in ``first``, which may have
    none. ``shown``: an end of an interval as its cell.
    """
    columns = []
    for name in first.get("intervals", ()):
        pairs = [one["intervals"][name] for one in said]
        for i, end in enumerate(INTERVAL_ENDS):
            ends = [None if pair is None else shown(pair[i]) for pair in pairs]
            columns.append(TableColumn(f"{name}{end}", "number", ends))
    for name in first.get("sets", ()):
        sets = [one["sets"][name] for one in said]
        members = [None if found is None else "|".join(map(str, found)) for found in sets]
        columns.append(TableColumn(f"{name}{SET_END}", "text", members))
    return columns


def write_csv(path: Path, columns: Sequence[TableColumn], *, bom: bool) -> None:
    """A CSV of these columns; no spreadsheet runs a text in it.

    ``bom``: it begins with the mark by which Excel knows UTF-8.
    """
    safe = (map(_safe, column.cells) if column.kind == "text" else column.cells for column in columns)
    write_lines(path, [column.title for column in columns], zip(*safe, strict=True), bom=bom)


def write_lines(
    path: Path, header: Sequence[str], rows: Iterable[Sequence[Cell]], *, bom: bool = False
) -> None:
    """A CSV of cells as they are."""
    encoding = "utf-8-sig" if bom else "utf-8"
    with path.open("w", encoding=encoding, errors="backslashreplace", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _safe(cell: Cell) -> Cell:
    """A text as a cell that no spreadsheet runs as a formula: those get an apostrophe before them."""
    if not isinstance(cell, str):
        return cell
    # The apostrophe itself is doubled, so that reading is the inverse. A carriage return would end the line.
    text = cell.replace("\r", " ")
    return f"'{text}" if text.startswith("'") or COULD_BE_FORMULA.match(text) else text


def restored(cell: str) -> str:
    """The text that was written into a cell of a CSV."""
    return cell.removeprefix("'")
