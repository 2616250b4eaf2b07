"""tabular.py: records -> JSON, or tables of one kind of row and fixed columns: CSV, Excel, Parquet."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from viper_e2e.config import reads_words
from viper_e2e.errors import ViperError
from viper_e2e.model import Record, neutralised, said_columns, write_csv
from viper_e2e.runtime import settle_file, written_whole

FORMATS = (".json", ".jsonl", ".csv", ".xlsx", ".parquet")

DIGITS = 6
"""Significant ones of a number in a file: more than any model knows, and readable."""

SUMMARY = ".summary"
"""``scores.csv`` has its clips' means in ``scores.summary.csv``."""

_FIRST = {
    "clip": "text",
    "person": "whole",
    "start_seconds": "number",
    "end_seconds": "number",
    "duration_seconds": "number",
    "face_found": "number",
    "unheard_seconds": "number",
}
_LAST = {"valid": "flag", "error": "text", "warning": "text"}

Cell = str | float | int | bool | None
Columns = dict[str, str]
"""Name → kind: text, whole, number, flag."""


def check_output(path: Path, option: str = "--output") -> None:
    """Refuse an output that cannot be written, before anything is computed; its folder is made."""
    if path.suffix.lower() not in FORMATS:
        raise ViperError(f"{path}: unknown format {path.suffix!r}; name it {', '.join(FORMATS)}")
    settle_file(path, option)
    if path.suffix.lower() == ".xlsx":
        _openpyxl(path)


def summary_path(path: Path) -> Path:
    """Where the means of whole clips go if ``path`` holds their windows."""
    return path.with_name(f"{path.stem}{SUMMARY}{path.suffix}")


def columns_of(
    modalities: Sequence[str],
    emotions: Sequence[str],
    classes: Sequence[str] = (),
    intervals: Sequence[str] = (),
    sets: Sequence[str] = (),
    spreads: Sequence[str] = (),
) -> Columns:
    """The columns of every table, in their order, whatever failed and whether there are windows.

    A label that is called like another column gets ``label_`` before its name. What is said by a calibrated
    model has columns of its own: ``NAME_lower`` and ``NAME_upper``, and ``NAME_set`` with a bar between words;
    ``NAME_spread`` is how far members that were trained apart disagree.
    """
    first = _FIRST | {f"present_{name}": "flag" for name in modalities}
    first |= {"words": "text"} if reads_words(modalities) else {}
    taken = first.keys() | _LAST.keys()
    labels = {f"label_{name}" if name in taken else name: "number" for name in emotions}
    # A class is called after its task, whose columns of probabilities have longer names.
    chosen = {f"label_{name}" if name in taken | labels.keys() else name: "text" for name in classes}
    made = first | labels | chosen
    around = said_columns(intervals, sets) | {f"{name}_spread": "number" for name in spreads}
    return made | {f"calibrated_{n}" if n in made else n: kind for n, kind in around.items()} | _LAST


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
            _write_text(partial, json.dumps(list(map(readable, records)), indent=2, ensure_ascii=False) + "\n")
        elif kind == ".jsonl":
            lines = (json.dumps(readable(record), ensure_ascii=False) + "\n" for record in records)
            _write_text(partial, "".join(lines))
        else:
            modalities = list(records[0]["present"]) if records else []
            emotions = _emotions_of(records) if emotions is None else list(emotions)
            classes = list(records[0].get("classes", {})) if records else []
            said = [list(records[0].get(name, {})) if records else [] for name in ("intervals", "sets")]
            said.append(list(next((record["spread"] for record in records if record.get("spread")), {})))
            rows = [_row(record, modalities, emotions, classes, *said) for record in records]
            {".csv": _write_csv, ".xlsx": _write_excel, ".parquet": _write_parquet}[kind](
                partial, columns_of(modalities, emotions, classes, *said), rows, bom
            )


def readable(value: object) -> Any:
    """The same data with numbers as people read them, and ``None`` for what is no number."""
    if isinstance(value, dict):
        return {
            key: _seconds(inner) if key.endswith("_seconds") else readable(inner)
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [readable(inner) for inner in value]
    return rounded(value) if isinstance(value, float) else value


def rounded(value: float) -> float | None:
    """To `DIGITS` significant digits; None if it is no finite number."""
    return float(f"{value:.{DIGITS}g}") if isfinite(value) else None


def _seconds(value: object) -> object:
    # Times have milliseconds however large they are, as in records.
    return round(value, 3) if isinstance(value, int | float) else value


def _emotions_of(records: Iterable[Record]) -> list[str]:
    return list(next((record["intensities"] for record in records if record["intensities"]), {}))


def _row(
    record: Record,
    modalities: Sequence[str],
    emotions: Sequence[str],
    classes: Sequence[str],
    intervals: Sequence[str],
    sets: Sequence[str],
    spreads: Sequence[str],
) -> list[Cell]:
    intensities = record["intensities"] or dict.fromkeys(emotions)
    shown = readable({name: record[name] for name in (*_FIRST, *_LAST)} | {"labels": intensities})
    return [
        *(shown[name] for name in _FIRST),
        *(bool(record["present"][name]) for name in modalities),
        *([record["words"]] if reads_words(modalities) else []),
        *(shown["labels"][name] for name in emotions),
        *(record["classes"][name] for name in classes),
        *(end for name in intervals for end in readable(record["intervals"][name] or [None, None])),
        *(_joined(record["sets"][name]) for name in sets),
        *(readable((record.get("spread") or {}).get(name)) for name in spreads),
        *(shown[name] for name in _LAST),
    ]


def _joined(members: Sequence[object] | None) -> str | None:
    return None if members is None else "|".join(map(str, members))


# --- formats --------------------------------------------------------------------------------------


def _write_text(path: Path, text: str, encoding: str = "utf-8") -> None:
    # A file's name need not be text: what of it is none stands there as \udcXX, which JSON takes back.
    path.write_text(text, encoding=encoding, errors="backslashreplace", newline="\n")


def _plain(cell: Cell) -> Cell:
    """Yes and no as 1 and 0, which every statistics program counts with; whole numbers without a point."""
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < 1e15:
        return int(cell)
    return int(cell) if isinstance(cell, bool) else cell


def _write_csv(path: Path, columns: Columns, rows: list[list[Cell]], bom: bool) -> None:
    cells = ([neutralised(cell) if isinstance(cell, str) else _plain(cell) for cell in row] for row in rows)
    write_csv(path, columns, cells, bom=bom)


def _write_parquet(path: Path, columns: Columns, rows: list[list[Cell]], _: bool) -> None:
    import pyarrow
    from pyarrow import parquet

    types = {
        "text": pyarrow.string(),
        "whole": pyarrow.int32(),
        "number": pyarrow.float64(),
        "flag": pyarrow.bool_(),
    }
    cells = [[_text(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
    arrays = [pyarrow.array([row[i] for row in cells], types[kind]) for i, kind in enumerate(columns.values())]
    parquet.write_table(pyarrow.table(arrays, list(columns)), path)


def _write_excel(path: Path, columns: Columns, rows: list[list[Cell]], _: bool) -> None:
    book = _openpyxl(path).Workbook(write_only=True)
    sheet = book.create_sheet("scores")
    sheet.freeze_panes = "B2"
    titles: list[Cell] = list(columns)
    for row in (titles, *rows):
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
