"""tabular.py: records -> JSON, or tables of one kind of row and fixed columns: CSV, Excel, Parquet."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from viper_e2e.config import reads_words
from viper_e2e.errors import ViperError
from viper_e2e.model import Cell, Kind, Record, TableColumn, said_columns, write_csv
from viper_e2e.runtime import settle_file, written_whole

FORMATS = (".json", ".jsonl", ".csv", ".xlsx", ".parquet")

DIGITS = 6
"""Significant ones of a number in a file: more than any model knows, and readable."""

SUMMARY = ".summary"
"""``scores.csv`` has its clips' means in ``scores.summary.csv``."""

_FIRST: dict[str, Kind] = {
    "clip": "text",
    "person": "whole",
    "start_seconds": "number",
    "end_seconds": "number",
    "duration_seconds": "number",
    "face_found": "number",
    "unheard_seconds": "number",
}
_LAST: dict[str, Kind] = {"valid": "flag", "error": "text", "warning": "text"}


def check_output(path: Path, option: str = "--output") -> None:
    """Refuse an output that cannot be written, before anything is computed; its folder is made."""
    if path.suffix.lower() not in FORMATS:
        raise ViperError(f"{path}: unknown format {path.suffix!r}; name it {', '.join(FORMATS)}")
    settle_file(path, option)
    if path.suffix.lower() == ".xlsx":
        _openpyxl(path)


def summary_path(path: Path) -> Path:
    """Path for the means of whole clips if ``path`` holds their windows."""
    return path.with_name(f"{path.stem}{SUMMARY}{path.suffix}")


def write_records(
    records: Sequence[Record],
    path: Path,
    *,
    emotions: Sequence[str] | None = None,
    bom: bool = False,
) -> None:
    """Write records as the suffix says: a JSON list, JSON lines, or a table with one row for each.

    ``emotions``: columns of a table; those of the first valid record if not given. ``bom``: a CSV begins with
    the mark by which Excel knows UTF-8. Raises :class:`ViperError` where the file cannot be written.
    """
    check_output(path, "the records in")
    kind = path.suffix.lower()
    with written_whole(path) as partial:
        if kind == ".json":
            _write_text(partial, json.dumps(list(map(_readable, records)), indent=2, ensure_ascii=False) + "\n")
        elif kind == ".jsonl":
            lines = (json.dumps(_readable(record), ensure_ascii=False) + "\n" for record in records)
            _write_text(partial, "".join(lines))
        else:
            columns = columns_of(records, _emotions_of(records) if emotions is None else emotions)
            {".csv": _write_csv, ".xlsx": _write_excel, ".parquet": _write_parquet}[kind](partial, columns, bom)


def columns_of(records: Sequence[Record], emotions: Sequence[str]) -> list[TableColumn]:
    """The columns of every table, in their order, whatever failed and whether there are windows.

    A label that is called like another column gets ``label_`` before its name. What is said by a calibrated
    model has columns of its own: ``NAME_lower`` and ``NAME_upper``, and ``NAME_set`` with a bar between words;
    ``NAME_spread`` is how far members that were trained apart disagree.
    """
    made = [*_own_columns(records, _FIRST), *_columns_of_modalities(records)]
    last = _own_columns(records, _LAST)
    labels = [record["intensities"] or dict.fromkeys(emotions) for record in records]
    made += _renamed("label_", _named(labels, emotions, "number"), [*made, *last])
    # A class is called after its task, whose columns of probabilities have longer names.
    classes = [record.get("classes", {}) for record in records]
    made += _renamed("label_", _named(classes, list(classes[0]) if classes else [], "text"), [*made, *last])
    return [*made, *_renamed("calibrated_", _columns_around(records), made), *last]


def _own_columns(records: Sequence[Record], kinds: Mapping[str, Kind]) -> list[TableColumn]:
    return [
        TableColumn(name, kind, [_own(name, record[name]) for record in records])
        for name, kind in kinds.items()
    ]


def _columns_of_modalities(records: Sequence[Record]) -> Iterator[TableColumn]:
    for name in records[0]["present"] if records else ():
        yield TableColumn(f"present_{name}", "flag", [bool(record["present"][name]) for record in records])
    if records and reads_words(records[0]["present"]):
        yield from _named(records, ["words"], "text")


def _columns_around(records: Sequence[Record]) -> Iterator[TableColumn]:
    """Intervals, sets and spreads of labels."""
    yield from said_columns(records, records[0] if records else {}, readable)
    spreads = [record.get("spread") or {} for record in records]
    for name in next(filter(None, spreads), ()):
        yield TableColumn(f"{name}_spread", "number", [readable(one.get(name)) for one in spreads])


def _named(rows: Sequence[Mapping[str, Any]], names: Iterable[str], kind: Kind) -> list[TableColumn]:
    """Columns of what the rows have under these names."""
    return [TableColumn(name, kind, [readable(row[name]) for row in rows]) for name in names]


def _renamed(
    prefix: str, columns: Iterable[TableColumn], others: Iterable[TableColumn]
) -> Iterator[TableColumn]:
    """Columns with titles that the others do not have."""
    taken = {column.title for column in others}
    return (
        column._replace(title=f"{prefix}{column.title}") if column.title in taken else column
        for column in columns
    )


def readable(value: object) -> Any:
    """The same data with numbers as people read them, and ``None`` for what is no number."""
    if isinstance(value, dict):
        return {key: readable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [readable(inner) for inner in value]
    return rounded(value) if isinstance(value, float) else value


def rounded(value: float) -> float | None:
    """The value to `DIGITS` significant digits; None if it is not finite."""
    return float(f"{value:.{DIGITS}g}") if isfinite(value) else None


def _readable(record: Record) -> Record:
    return {name: _own(name, value) for name, value in record.items()}


def _own(name: str, value: object) -> Any:
    """A record's own value, which labels within it are not, however they are called."""
    if not name.endswith("_seconds"):
        return readable(value)
    # Times have milliseconds however large they are, as in records.
    return round(value, 3) if isinstance(value, int | float) else value


def _emotions_of(records: Iterable[Record]) -> list[str]:
    return list(next((record["intensities"] for record in records if record["intensities"]), {}))


# --- formats --------------------------------------------------------------------------------------


def _write_text(path: Path, text: str, encoding: str = "utf-8") -> None:
    # A file's name need not be text: what of it is none stands there as \udcXX, which JSON takes back.
    path.write_text(text, encoding=encoding, errors="backslashreplace", newline="\n")


def _plain(cell: Cell) -> Cell:
    """Yes and no as 1 and 0, which every statistics program counts with; whole numbers without a point."""
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < 1e15:
        return int(cell)
    return int(cell) if isinstance(cell, bool) else cell


def _write_csv(path: Path, columns: Sequence[TableColumn], bom: bool) -> None:
    write_csv(path, [column._replace(cells=map(_plain, column.cells)) for column in columns], bom=bom)


def _write_parquet(path: Path, columns: Sequence[TableColumn], _: bool) -> None:
    import pyarrow
    from pyarrow import parquet

    types = {
        "text": pyarrow.string(),
        "whole": pyarrow.int32(),
        "number": pyarrow.float64(),
        "flag": pyarrow.bool_(),
    }
    arrays = [
        pyarrow.array(
            [_text(cell) if isinstance(cell, str) else cell for cell in column.cells], types[column.kind]
        )
        for column in columns
    ]
    parquet.write_table(pyarrow.table(arrays, [column.title for column in columns]), path)


def _write_excel(path: Path, columns: Sequence[TableColumn], _: bool) -> None:
    book = _openpyxl(path).Workbook(write_only=True)
    sheet = book.create_sheet("scores")
    sheet.freeze_panes = "B2"
    titles: list[Cell] = [column.title for column in columns]
    for row in (titles, *zip(*(column.cells for column in columns), strict=True)):
        sheet.append([_excel_text(sheet, c) if isinstance(c, str) else _plain(c) for c in row])
    book.save(path)


def _openpyxl(path: Path) -> Any:
    try:
        import openpyxl
    except ImportError as error:
        raise ViperError(
            f"{path}: writing Excel's format needs openpyxl: pip install openpyxl, or name a .csv"
        ) from error
    return openpyxl


def _excel_text(sheet: object, text: str) -> Any:
    """A cell that Excel takes for nothing but text, were it called ``=1+1``."""
    from openpyxl.cell import WriteOnlyCell

    cell = WriteOnlyCell(sheet, _text(re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", " ", text)))
    cell.data_type = "s"
    return cell


def _text(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
