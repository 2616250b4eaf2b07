"""workbook.py: an Excel workbook or a Parquet file -> lines of cells, as people see them."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterable
from datetime import datetime, time, timedelta
from math import isnan
from pathlib import Path
from typing import Protocol, runtime_checkable

from viper_e2e.errors import ViperError
from viper_e2e.tables.workbook_layout import Layout, layouts_of

MAX_BYTES = 1_000_000_000
"""Largest table, unpacked: anything larger is no table of labels, or a bomb."""
MAX_CELLS = 400_000_000
"""Most cells of a Parquet file, in which a few bytes may stand for any number of equal cells."""
PANDAS_INDEX = re.compile(r"__index_level_\d+__")

Line = tuple[int, list[str]]
"""Its number, and its cells."""


def sheets_of(path: Path, data: bytes) -> dict[str, tuple[list[Line], Layout]]:
    """Title → lines and layout of each sheet of an Excel workbook. ``ViperError`` where it cannot be read."""
    try:
        import openpyxl
    except ModuleNotFoundError as error:
        raise ViperError(
            f"{path}: an Excel workbook; `pip install openpyxl` to have it read, or save it as CSV UTF-8"
        ) from error
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        members = zipfile.ZipFile(io.BytesIO(data))
        unpacked = sum(member.file_size for member in members.infolist())
        if unpacked > MAX_BYTES:
            raise ViperError(f"{path}: {unpacked:,} bytes when unpacked; at most {MAX_BYTES:,} are read")
        book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
        if any(re.search(rb"<f[\s/>]", members.read(name)) for name in members.namelist() if "/sheet" in name):
            formulas = openpyxl.load_workbook(io.BytesIO(data), read_only=True)
            _refuse_uncalculated(path, zip(formulas.worksheets, book.worksheets, strict=True))
        layouts = layouts_of(members)
        return {
            sheet.title: (_lines(sheet, layouts[sheet.title]), layouts[sheet.title])
            for sheet in book.worksheets
        }
    except (zipfile.BadZipFile, InvalidFileException, KeyError, ValueError) as error:
        if isinstance(error, ViperError):
            raise
        raise ViperError(f"{path}: not a readable workbook ({error}); save it as CSV UTF-8") from error


@runtime_checkable
class _Cell(Protocol):
    """A cell of openpyxl; an empty one has no `number_format` and no place."""

    @property
    def value(self) -> object: ...


@runtime_checkable
class _Worksheet(Protocol):
    @property
    def title(self) -> str: ...
    def iter_rows(self) -> Iterable[Iterable[_Cell]]: ...


def _refuse_uncalculated(path: Path, sheets: Iterable[tuple[_Worksheet, _Worksheet]]) -> None:
    """Formulas of a workbook that a program made have no values yet: their cells would be empty."""
    first: str | None = None
    for formulas, values in sheets:
        for row, calculated in zip(formulas.iter_rows(), values.iter_rows(), strict=False):
            for cell, value in zip(row, calculated, strict=False):
                if getattr(cell, "data_type", "") != "f":
                    continue
                if value.value is not None:
                    return
                first = first or f"{getattr(cell, 'coordinate', '?')} of sheet {formulas.title!r}"
    if first is not None:
        raise ViperError(
            f"{path}: {first} is a formula that was never calculated; open the workbook in Excel or "
            "LibreOffice and save it, or save it as CSV UTF-8"
        )


def _lines(sheet: _Worksheet, layout: Layout) -> list[Line]:
    found = []
    standing: dict[int, tuple[int, str]] = {}
    for number, row in enumerate(sheet.iter_rows(), start=1):
        cells = [_shown(cell.value, getattr(cell, "number_format", None) or "") for cell in row]
        if any(cell.strip() for cell in cells):
            for at, (last, value) in standing.items():
                if number <= last:
                    cells += [""] * (at - len(cells))
                    cells[at - 1] = cells[at - 1] or value
        standing |= {at: (last, cells[at - 1]) for at, last in layout.down.get(number, ()) if at <= len(cells)}
        while cells and not cells[-1].strip():
            cells.pop()
        if cells:
            found.append((number, cells))
    return found


def lines_of_parquet(path: Path, data: bytes) -> list[Line]:
    """The titles as line 1, and a line for each row; pandas' index is left out."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise ViperError(
            f"{path}: a Parquet file; `pip install pyarrow` to have it read, or save it as CSV UTF-8"
        ) from error
    try:
        file = parquet.ParquetFile(io.BytesIO(data))
        num_bytes = sum(file.metadata.row_group(n).total_byte_size for n in range(file.num_row_groups))
        num_cells = file.metadata.num_rows * file.metadata.num_columns
        if num_bytes > MAX_BYTES or num_cells > MAX_CELLS:
            raise ViperError(f"{path}: {num_cells:,} cells of {num_bytes:,} bytes; is this a table of labels?")
        table = file.read()
        titles = [title for title in table.column_names if not PANDAS_INDEX.fullmatch(title)]
        columns = [[_shown(value, "") for value in table[title].to_pylist()] for title in titles]
    except (pyarrow.ArrowException, OSError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ViperError(f"{path}: not a readable Parquet file ({reason}); save it as CSV UTF-8") from error
    rows = ((n, list(cells)) for n, cells in enumerate(zip(*columns, strict=True), start=2))
    return [(1, titles), *((n, cells) for n, cells in rows if any(cell.strip() for cell in cells))]


def _shown(value: object, shown_as: str) -> str:
    """A cell as its sheet shows it: no point in whole numbers, ``00000`` with zeros, ``1:30`` as such."""
    if value is None or (isinstance(value, float) and isnan(value)):
        return ""
    if isinstance(value, bytes):
        # Text in Parquet files of Spark and Impala.
        return value.decode("utf-8", "replace")
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, time | timedelta):
        return _clock(value, shown_as)
    if isinstance(value, datetime) and value.time() == time() and shown_as.casefold() == "yyyy-mm-dd":
        return str(value.date())
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    if isinstance(value, int) and re.fullmatch(r"0{2,}", shown_as or ""):
        return f"{value:0{len(shown_as)}d}"
    return str(value)


def _clock(value: time | timedelta, shown_as: str) -> str:
    """Excel takes ``1:30`` that somebody types for hours and minutes, and goes on showing ``1:30``."""
    if isinstance(value, time):
        value = timedelta(
            hours=value.hour, minutes=value.minute, seconds=value.second, microseconds=value.microsecond
        )
    minutes, seconds = divmod(value.total_seconds(), 60)
    hours, minutes = divmod(int(minutes), 60)
    shows_seconds = "s" in re.sub(r'"[^"]*"|\[\$[^\]]*\]', "", shown_as or "s").casefold()
    if not shows_seconds and not seconds:
        return f"{hours}:{minutes:02d}"
    return f"{hours}:{minutes:02d}:{f'{seconds:06.3f}' if seconds % 1 else f'{int(seconds):02d}'}"
