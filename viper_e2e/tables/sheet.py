"""sheet.py: a table's file, whichever program wrote it -> its titles and cells."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from viper_e2e.errors import ViperError
from viper_e2e.runtime import count_of
from viper_e2e.tables.values import number
from viper_e2e.tables.workbook import MAX_BYTES, Line, lines_of_parquet, sheets_of
from viper_e2e.tables.workbook_layout import Layout

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
BOMS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32"}
BOMS |= {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
SNIFFED_ROWS = 30
PARQUET = b"PAR1"
OLD_WORKBOOK = b"\xd0\xcf\x11\xe0"

IsId = Callable[[str], bool]
"""Whether a title may be that of the column of files: what tells a header from the lines above it."""


@dataclass(frozen=True)
class Sheet:
    """A table as text."""

    header: list[str]
    header_line: int
    lines: list[Line]
    """(line number, cells) of every row that is not blank."""
    separator: str
    """Empty for a workbook."""
    notes: tuple[str, ...]
    """Properties found in the file itself, unless it is plain comma-separated UTF-8."""


def read_sheet(path: Path, is_id: IsId, *, encoding: str = "", sheet: str = "") -> Sheet:
    """Read a table: text with commas, semicolons, tabs or bars between cells, a workbook, Parquet.

    ``encoding``, ``sheet``: where the file cannot tell. Raises ``ViperError`` where it is no table.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ViperError(f"{path}: over {MAX_BYTES:,} bytes; is this a table of labels?")
        data = path.read_bytes()
    except OSError as error:
        raise ViperError(f"{path}: cannot be read ({error.strerror}); give the table with --labels") from error
    if data.startswith(OLD_WORKBOOK):
        raise ViperError(f"{path}: an Excel workbook of the old kind (.xls); save it as .xlsx or as CSV UTF-8")
    if data.startswith(b"PK\x03\x04"):
        records, layout, notes = _workbook(path, data, is_id, sheet)
        made = _sheet(path, records, "", notes, is_id)
        looks = layout.notes(made.header, [line for line, _ in made.lines])
        return replace(made, notes=(*made.notes, *looks))
    if data.startswith(PARQUET):
        return _sheet(path, lines_of_parquet(path, data), "", ["its first row as line 2 (Parquet)"], is_id)
    if sheet:
        raise ViperError(f"{path}: --sheet {sheet}: text has no sheets; leave it out")
    text, notes = _decoded(path, data, encoding)
    first, _, rest = text.partition("\n")
    skipped = 0
    if said := re.fullmatch(r"\"?sep=(.)\"?", first.strip("\r ")):
        text, skipped, separator = rest, 1, said[1]
        notes.append("its sep= line")
    else:
        separator = _separator(text, is_id)
    try:
        records = _records(text, separator, strict=True)
    except csv.Error as error:
        raise ViperError(f"{path}: {error}; save it again as CSV UTF-8") from error
    _refuse_other_separators(path, records, is_id)
    if separator != ",":
        notes.append(f"{SEPARATORS.get(separator, repr(separator))} between its cells")
    return _sheet(path, [(line + skipped, cells) for line, cells in records], separator, notes, is_id)


def _sheet(path: Path, records: list[Line], separator: str, notes: list[str], is_id: IsId) -> Sheet:
    """Find the header, and leave out the lines above it, comments, and columns without anything in them."""
    at = _header_at(records, is_id)
    if at is None or len(records) < at + 2:
        raise ViperError(f"{path}: no rows; a header line and one line per clip are needed")
    header_line, header = records[at]
    header = [_title(cell) for cell in header]
    if header[0].startswith("#"):
        header[0] = header[0].lstrip("# ")
    above = [line for line, cells in records[:at] if not _is_comment(cells)]
    if above:
        notes.append(f"its titles in line {header_line} (lines above it are left out)")
    comments = [(line, cells) for line, cells in [*records[:at], *records[at + 1 :]] if _is_comment(cells)]
    rows_away = [(line, cells) for line, cells in comments if line > header_line and len(cells) == len(header)]
    if len(comments) > len(rows_away):
        notes.append(f"{count_of(len(comments) - len(rows_away), 'comment line')} beginning with #")
    if rows_away:
        notes.append(_said_of_rows_away(rows_away))
    lines = [(line, cells) for line, cells in records[at + 1 :] if not _is_comment(cells)]
    while header and not header[-1] and not any(cells[len(header) - 1 :][:1] > [""] for _, cells in lines):
        header.pop()
    width = len(header)
    lines = [(n, cells[:width] if not any(c.strip() for c in cells[width:]) else cells) for n, cells in lines]
    if not separator:  # a workbook's rows end at their last filled cell
        lines = [(line, cells + [""] * (width - len(cells))) for line, cells in lines]
    if not lines and rows_away:
        raise ViperError(f"{path}: no rows but {_said_of_rows_away(rows_away)}")
    if not lines:
        raise ViperError(f"{path}: no rows; a header line and one line per clip are needed")
    if separator:
        _refuse_swallowed_rows(path, lines, width, separator)
    return Sheet(header, header_line, lines, separator, tuple(notes))


def _said_of_rows_away(rows: Sequence[Line]) -> str:
    line, cells = rows[0]
    return (
        f"{count_of(len(rows), 'row')} left out as commented out by # (line {line}: {cells[0].strip()!r}; if # "
        "belongs to its name, put another column first)"
    )


def _refuse_other_separators(path: Path, records: list[Line], is_id: IsId) -> None:
    """A table whose every row is one cell, and whose titles stand apart by spaces or colons."""
    at = _header_at(records, is_id)
    if at is None or len(records[at][1]) > 1:
        return
    header = records[at][1][0].lstrip("# ")
    for separator, name in ((":", "colons"), (None, "spaces")):
        titles = header.split(separator)
        if len(titles) > 1 and any(is_id(_title(title)) for title in titles):
            raise ViperError(
                f"{path}: its titles are separated by {name}, which names may contain as well; save it as CSV "
                "UTF-8, or with tabs between its cells"
            )


def _refuse_swallowed_rows(path: Path, lines: Sequence[Line], width: int, separator: str) -> None:
    """A quote in front of what is said, closed only rows later, makes all rows up to there one cell."""
    for line, cells in lines:
        for at, cell in enumerate(cells):
            first, *inside = re.split(r"\r\n|\r|\n", cell)
            if not inside:
                continue
            if at:
                inside[-1] = separator.join([inside[-1], *cells[at + 1 :]])
            else:  # the last line of a first cell is followed by all others in any case
                inside = [first, *inside[:-1]]
            for row in csv.reader(inside, delimiter=separator):
                if width > 2 and len(row) == width and any(map(_is_alike, row, cells)):
                    raise ViperError(
                        f"{path}: line {line}: a cell begins with a quote that is not closed in its row and so "
                        f"swallows the row of {row[0]!r}; remove the quote, or double it inside quotes"
                    )


def _is_alike(one: str, other: str) -> bool:
    """Whether two cells may be of one column: the same word, or two numbers."""
    is_number = number(one, "either") is not None and number(other, "either") is not None
    return is_number or one.strip() == other.strip() != ""


def _header_at(records: Sequence[Line], is_id: IsId) -> int | None:
    """The first line that names the files; else the first that is no comment."""
    first = None
    for at, (_, cells) in enumerate(islice(records, SNIFFED_ROWS)):
        titles = [_title(cell) for cell in cells]
        if _is_comment(cells):
            titles[0] = titles[0].lstrip("# ")
            if not (len(titles) > 1 and is_id(titles[0])):
                continue
        elif first is None:
            first = at
        if len(titles) > 1 and any(map(is_id, titles)):
            return at
    return first


def _title(cell: str) -> str:
    return " ".join(cell.replace("\ufeff", "").split())


def _is_comment(cells: list[str]) -> bool:
    return cells[0].lstrip().startswith("#")


def _records(text: str, separator: str, *, strict: bool, at_most: int | None = None) -> list[Line]:
    """(line on which it begins, cells) of every row that is not blank."""
    found, begins = [], 1
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=strict)
    try:
        for cells in islice(reader, at_most):
            if any(cell.strip() for cell in cells):
                found.append((begins, cells))
            begins = reader.line_num + 1
    except csv.Error as error:
        if strict:
            raise csv.Error(f"line {begins}: {error}") from error
    return found


def _separator(text: str, is_id: IsId) -> str:
    """The one at which the first lines fall into the most cells, one of which names the files."""

    def worth(separator: str) -> tuple[bool, int]:
        records = _records(text[:100_000], separator, strict=False, at_most=SNIFFED_ROWS)
        at = _header_at(records, is_id)
        titles = [_title(cell) for cell in records[at][1]] if at is not None else []
        return any(map(is_id, titles)), len(titles)

    return max(SEPARATORS, key=worth)  # the first of equals: the comma


def _decoded(path: Path, data: bytes, encoding: str) -> tuple[str, list[str]]:
    """The text, and its encoding where it is not UTF-8."""
    try:
        if encoding:
            return data.decode(encoding).removeprefix("\ufeff"), [f"{encoding} as requested"]
        for bom, name in BOMS.items():
            if data.startswith(bom):
                text = data.decode(name).removeprefix("\ufeff")
                return _without_nul(path, text), [] if name == "utf-8" else [f"{name.upper()} text"]
        if guessed := _utf16_without_mark(data):
            return _without_nul(path, data.decode(guessed)), [f"{guessed.upper()} text"]
        try:
            return _without_nul(path, data.decode("utf-8")), []
        except UnicodeDecodeError:
            if not _is_western(data):
                raise
            text = data.decode("cp1252")
            return _without_nul(path, text), ["Windows-1252 text (if letters look wrong, save it as UTF-8)"]
    except LookupError as error:
        raise ViperError(f"{path}: --encoding {encoding}: no such encoding; e.g. utf-8, cp1252") from error
    except UnicodeDecodeError as error:
        raise ViperError(
            f"{path}: not {encoding or 'UTF-8'} text ({error.reason} at byte {error.start}); save it as UTF-8, "
            "or say what it is, e.g. --encoding gb18030"
        ) from error


def _utf16_without_mark(data: bytes) -> str | None:
    """Every other byte of UTF-16 text in Latin letters is zero."""
    head = data[:2000]
    even, odd = head[0::2].count(0), head[1::2].count(0)
    half = len(head) // 2
    if half and odd > 0.7 * half and not even:
        return "utf-16-le"
    return "utf-16-be" if half and even > 0.7 * half and not odd else None


def _is_western(data: bytes) -> bool:
    """Whether bytes above 127 stand alone, as letters with accents do; those of other scripts come in runs."""
    runs = [len(run) for run in re.findall(rb"[\x80-\xff]+", data)]
    alone = sum(length for length in runs if length == 1)
    return alone * 2 > sum(runs) and not re.search(rb"[\x81\x8d\x8f\x90\x9d]", data)


def _without_nul(path: Path, text: str) -> str:
    if "\0" in text[:100_000]:
        raise ViperError(f"{path}: contains zero bytes, so it is not a table; save it as CSV UTF-8")
    return text


# --- workbooks ------------------------------------------------------------------------------------


def _workbook(path: Path, data: bytes, is_id: IsId, wanted: str) -> tuple[list[Line], Layout, list[str]]:
    """Rows of the one sheet of an Excel workbook that can be the table."""
    sheets = sheets_of(path, data)
    if wanted:
        if wanted not in sheets:
            raise ViperError(f"{path}: no sheet {wanted!r}; there are {', '.join(map(repr, sheets))}")
        return *sheets[wanted], [f"sheet {wanted!r} as requested"]
    filled = {title: sheet for title, sheet in sheets.items() if sheet[0]}
    named = {
        title: (rows, layout)
        for title, (rows, layout) in filled.items()
        if any(is_id(_title(cell)) for _, cells in rows[:SNIFFED_ROWS] for cell in cells)
    }
    chosen = named or filled
    # A hidden sheet is what somebody put away, unless it is all there is.
    shown = {title: sheet for title, sheet in chosen.items() if not sheet[1].is_hidden}
    away = [title for title in chosen if shown and title not in shown]
    chosen = shown or chosen
    if len(chosen) > 1:
        raise ViperError(
            f"{path}: {len(chosen)} sheets could be meant; add --sheet {' or '.join(map(repr, chosen))}"
        )
    if not chosen:
        raise ViperError(f"{path}: no rows; a header line and one line per clip are needed")
    title, (rows, layout) = next(iter(chosen.items()))
    which = f"sheet {title!r} of {len(filled)}" if len(filled) > 1 else f"sheet {title!r}"
    notes = [which + ", which is hidden" * layout.is_hidden]
    notes += [f"hidden sheet {', '.join(map(repr, away))} left out (--sheet takes it)"] if away else []
    return rows, layout, notes
