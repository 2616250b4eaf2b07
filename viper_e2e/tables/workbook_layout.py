"""workbook_layout.py: hidden rows and columns, and merged cells, of an Excel sheet."""

from __future__ import annotations

import re
import zipfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from posixpath import normpath
from xml.etree import ElementTree

from viper_e2e.runtime import count_of

_ROW = re.compile(rb"<(?:\w+:)?row\b([^>]*)>")
_COLUMN = re.compile(rb"<(?:\w+:)?col\b([^>]*)>")
_MERGED = re.compile(rb"<(?:\w+:)?mergeCell\b([^>]*)>")
_RANGE = re.compile(r"([A-Z]+)(\d+):([A-Z]+)(\d+)")
_RELATION = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
_SHOWN = 5
"""Lines and titles that are named."""


@dataclass(frozen=True)
class Layout:
    """Layout of one sheet; rows and columns are counted from 1."""

    is_hidden: bool = False
    hidden_rows: tuple[int, ...] = ()
    hidden_columns: tuple[int, ...] = ()
    down: Mapping[int, Sequence[tuple[int, int]]] = field(default_factory=dict)
    """Row → (column, last row) of the cells that are merged with those below them alone."""
    across: tuple[int, ...] = ()
    """Rows that begin cells which are merged over several columns."""

    def notes(self, header: Sequence[str], lines: Sequence[int]) -> list[str]:
        """Notes on a table with these titles and lines: all of it is read."""
        notes, known = [], set(lines)
        if rows := [row for row in self.hidden_rows if row in known]:
            notes.append(
                f"{count_of(len(rows), 'hidden row')} (line {_few(rows)}; delete those that should not be "
                "packed)"
            )
        titles = [header[at - 1] for at in self.hidden_columns if at <= len(header) and header[at - 1]]
        if titles:
            notes.append(f"{count_of(len(titles), 'hidden column')} ({_few(titles)})")
        if merged := [row for row, places in self.down.items() if row in known for _ in places]:
            notes.append(
                f"{count_of(len(merged), 'merged cell')}, whose value is used in each row (line {_few(merged)})"
            )
        if across := [row for row in self.across if row in known]:
            notes.append(
                f"{count_of(len(across), 'cell')} merged over several columns, whose value counts for the "
                f"first column only (line {_few(across)})"
            )
        return notes


def layouts_of(book: zipfile.ZipFile) -> dict[str, Layout]:
    """Title → layout of each sheet. Raises ``KeyError``, ``ValueError`` for what is no workbook."""
    try:
        targets = {
            relation.attrib["Id"]: relation.attrib["Target"]
            for relation in ElementTree.fromstring(book.read("xl/_rels/workbook.xml.rels"))
        }
        sheets = [
            element
            for element in ElementTree.fromstring(book.read("xl/workbook.xml")).iter()
            if element.tag.rpartition("}")[2] == "sheet"
        ]
    except ElementTree.ParseError as error:
        raise ValueError(str(error)) from error
    names = set(book.namelist())
    found = {}
    for sheet in sheets:
        target = targets[sheet.attrib[_RELATION]]
        member = target[1:] if target.startswith("/") else normpath(f"xl/{target}")
        is_hidden = sheet.attrib.get("state", "visible") != "visible"
        found[sheet.attrib["name"]] = _layout(book.read(member) if member in names else b"", is_hidden)
    return found


def _layout(xml: bytes, is_hidden: bool) -> Layout:
    rows, number = [], 0
    if b"hidden=" in xml:
        for attributes in _ROW.findall(xml):
            number = int(_attribute(attributes, b"r") or number + 1)
            if _is_hidden(attributes):
                rows.append(number)
    columns = [
        at
        for attributes in _COLUMN.findall(xml)
        if _is_hidden(attributes)
        for at in range(
            int(_attribute(attributes, b"min") or 1), min(int(_attribute(attributes, b"max") or 0), 20_000) + 1
        )
    ]
    down: dict[int, list[tuple[int, int]]] = defaultdict(list)
    across = []
    for attributes in _MERGED.findall(xml):
        if not (place := _RANGE.fullmatch((_attribute(attributes, b"ref") or b"").decode("ascii", "replace"))):
            continue
        left, top, right, bottom = place.groups()
        if left == right:
            down[int(top)].append((_column(left), int(bottom)))
        else:
            across.append(int(top))
    return Layout(is_hidden, tuple(rows), tuple(columns), down, tuple(sorted(across)))


def _attribute(attributes: bytes, name: bytes) -> bytes | None:
    found = re.search(rb"(?:^|\s)" + name + rb"\s*=\s*[\"']([^\"']*)[\"']", attributes)
    return found[1] if found else None


def _is_hidden(attributes: bytes) -> bool:
    return _attribute(attributes, b"hidden") in (b"1", b"true")


def _column(letters: str) -> int:
    number = 0
    for letter in letters:
        number = 26 * number + ord(letter) - ord("A") + 1
    return number


def _few(named: Sequence[object]) -> str:
    return ", ".join(map(str, named[:_SHOWN])) + ", …" * (len(named) > _SHOWN)
