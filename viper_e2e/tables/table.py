"""table.py: a table of labels -> rows and a label set, every fault with its line number."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from viper_e2e.errors import ViperError
from viper_e2e.labels import LabelSet
from viper_e2e.runtime import count_of, written_whole
from viper_e2e.shards import range_of
from viper_e2e.tables.column_choices import ColumnChoices, Columns, is_missing, looks_like_files, settling
from viper_e2e.tables.columns import take_columns
from viper_e2e.tables.rows import Column, Row, RowReader
from viper_e2e.tables.sheet import Sheet, read_sheet
from viper_e2e.tables.task_columns import label_set
from viper_e2e.tables.titles import KNOWN, plain
from viper_e2e.tables.values import decimal_of, is_missing_word, number, suspected_codes, without_points

MAX_COMPLAINTS = 20
"""Lines printed of a table that cannot be used."""
NO_CHOICES = ColumnChoices()


@dataclass(frozen=True)
class LabelTable:
    labels: LabelSet
    rows: tuple[Row, ...]
    problems: tuple[str, ...]
    """Rows that were left out, in the order of the file."""
    columns: tuple[Column, ...] = ()
    notes: tuple[str, ...] = ()
    """How the table was read, and what in it is odd."""


def read_labels(path: Path, choices: ColumnChoices = NO_CHOICES) -> LabelTable:
    """Read a table of labels, from text or an Excel workbook.

    Columns: ``File_ID`` (a name, with or without square brackets, folders and ending) or ``Path``, ``Split``,
    and, if there, ``Subject``, ``Start``, ``End``, ``Side``, ``Text``, ``Fold``, ``Session``, ``Speaker``,
    ``Language``, ``Gender``, ``Age``; other columns of numbers are emotions, unless they are hardly meant as
    such: then they are asked about. A row whose emotion cells are all empty is an unlabelled clip.

    Raises ``ViperError`` that lists all that is wrong with the table and the options that settle it; a wrong
    row of a table that is otherwise right is left out and listed.
    """

    def is_id(title: str) -> bool:
        return looks_like_files(title) or bool(choices.id_column and plain(title) == plain(choices.id_column))

    sheet = read_sheet(path, is_id, encoding=choices.encoding, sheet=choices.sheet)
    columns = take_columns(sheet, choices)
    codes = _missing_codes(sheet, columns, choices)
    sheet = _names_without_points(sheet, columns, codes)
    cells = [(line, cells[at]) for line, cells in sheet.lines for at in columns.labels if at < len(cells)]
    decimal, wrong = decimal_of([c for c in cells if not is_missing(c[1], codes)], sheet.separator)
    times = [columns.parts[name] for name in ("Start", "End") if name in columns.parts]
    clocks = [(line, cells[at]) for line, cells in sheet.lines for at in times if at < len(cells)]
    _, wrong_times = decimal_of(clocks, sheet.separator, are_times=True)
    columns.complaints += [(sheet.header_line, text) for text in (wrong, wrong_times) if text]
    reader = RowReader(sheet, columns, choices.split, codes, decimal)
    rows, problems = reader.read()
    if columns.complaints:
        if words := [] if columns.tasks else _missing_words([cell.strip() for _, cell in cells], codes):
            columns.settle.setdefault("--missing", [*choices.missing]).extend(words)
        raise ViperError(_refusal(path, columns, problems))
    values = [value for row in rows for value in row.intensities or ()]
    if columns.tasks:
        labels = label_set(columns.tasks, [row.intensities for row in rows], choices.combined)
    else:
        labels = LabelSet(tuple(sheet.header[at] for at in columns.labels), *range_of(values))
    told = [f"{path.name}: read with {', '.join(sheet.notes)}"] if sheet.notes else []
    told += [f"{path.name}: numbers with decimal commas"] if decimal == "," else []
    if codes and [code.casefold() for code in codes] != ["none"]:
        num_codes = sum(bool(cell.strip()) and is_missing(cell.strip(), codes) for _, cell in cells)
        told.append(f"codes for missing: {', '.join(codes)} (in {count_of(num_codes, 'cell')} of labels)")
    if reader.num_partly:
        told.append(f"rows filled in part and left out: {reader.num_partly}")
    return LabelTable(
        labels,
        tuple(rows),
        tuple(f"{path}: {text}" for _, text in problems),
        reader.columns(),
        (*told, *columns.notes, *reader.strays()),
    )


def write_labels(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write labels.csv from rows with equal keys; ``None`` becomes an empty cell."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def label_titles(rows: Sequence[Mapping[str, object]]) -> tuple[str, ...]:
    """The emotion columns of rows that a recipe made, where nothing has to be guessed."""
    return tuple(title for title in rows[0] if title not in KNOWN)


def _refusal(path: Path, columns: Columns, problems: Sequence[tuple[int, str]]) -> str:
    """Everything that is wrong with a table in one message; one line where it is one thing."""
    lines = [text if text.startswith("line") else f"line {line}: {text}" for line, text in columns.complaints]
    lines += [text for _, text in problems]
    options = settling(columns)
    if len(lines) == 1 and not options:
        return f"{path}: {lines[0]}"
    if len(lines) == 1:
        return f"{path}: {lines[0]}; to continue, add {options}"
    shown = [f"  {line}" for line in lines[:MAX_COMPLAINTS]]
    if len(lines) > MAX_COMPLAINTS:
        shown.append(f"  and {len(lines) - MAX_COMPLAINTS} more")
    if options:
        others = ["--labels with the columns of emotions"] if "--ignore" in columns.settle else []
        others += ["--split-column TITLE"] if "--split" in columns.settle else []
        hint = f" (or {', '.join(others)})" if others else ""
        shown.append(f"to continue, add {options}{hint}")
    return "\n".join([f"{path}: {len(lines)} things are wrong or unclear:", *shown])


def _missing_words(cells: Sequence[str], codes: Sequence[str]) -> list[str]:
    """Words among these cells that usually stand for an empty one; each once."""
    return list(dict.fromkeys(cell for cell in cells if is_missing_word(cell) and not is_missing(cell, codes)))


def _names_without_points(sheet: Sheet, columns: Columns, codes: Sequence[str]) -> Sheet:
    """Columns of names that a program has read as numbers with decimals, as it does where cells are empty."""
    for at in (columns.file, columns.subject, *columns.meta.values()):
        cells = [cells[at].strip() for _, cells in sheet.lines if at is not None and at < len(cells)]
        names = [cell for cell in cells if cell and not is_missing(cell, codes) and not is_missing_word(cell)]
        if at is None or not (whole := without_points(names)):
            continue
        first = next(name for name in names if name in whole)
        columns.notes.append(f"{sheet.header[at]}: {first} is read as {whole[first]}, as all are whole numbers")
        lines = [
            (line, [*cells[:at], whole.get(cells[at].strip(), cells[at]), *cells[at + 1 :]])
            if at < len(cells)
            else (line, cells)
            for line, cells in sheet.lines
        ]
        sheet = replace(sheet, lines=lines)
    return sheet


def _missing_codes(sheet: Sheet, columns: Columns, choices: ColumnChoices) -> tuple[str, ...]:
    """The codes a person gave, and, once asked about, those that are suspected."""
    codes = choices.missing
    # `none` says that there are no codes; where cells are called so, it is one of them.
    are_values = "none" in [code.casefold() for code in codes]
    suspected: dict[float, tuple[int, str, int]] = {}
    # Of a task whose range a person has given, what lies in it is meant, what does not is refused.
    settled = {place for task in columns.tasks if task.span for place in task.places}
    for at in (place for place in columns.labels if place not in settled):
        cells = [(line, cells[at].strip()) for line, cells in sheet.lines if at < len(cells)]
        found = [(line, number(cell, "either")) for line, cell in cells if not is_missing(cell, codes)]
        values = [value for _, value in found if value is not None]
        for code in suspected_codes(values):
            line = next(line for line, value in found if value == code)
            num = values.count(code)
            old = suspected.get(code, (line, sheet.header[at], 0))
            suspected[code] = (min(line, old[0]), old[1], old[2] + num)
    for code, (line, title, num) in sorted(suspected.items()):
        where = f"{title} is {code:g} ({count_of(num, 'time')})"
        if are_values:
            columns.notes.append(
                f"line {line}: {where}, far outside all other values: a value (--missing none)"
            )
            continue
        text = f"{where}, far outside all other values: a code for missing?"
        columns.ask(line, f"{text} (--missing none if it is a value)", "--missing", f"{code:g}")
    if "--missing" in columns.settle:
        columns.settle["--missing"] += list(choices.missing)
    return codes if are_values else (*codes, *(f"{code:g}" for code in suspected))
