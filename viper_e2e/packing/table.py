"""packing/table.py: labels.csv -> rows and a label set, every fault with its line number."""

from __future__ import annotations

import csv
import difflib
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from viper_e2e.errors import ViperError
from viper_e2e.labels import HUME_REACTION, LabelSet
from viper_e2e.shards import range_of

RESERVED = ("File_ID", "Split", "Subject")
USABLE_NAME = re.compile(r"[^./\\\x00-\x1f\x7f]{1,200}")


@dataclass(frozen=True)
class Row:
    """One clip of labels.csv."""

    line: int
    file_id: str
    """Verbatim, with its brackets if it has them."""
    key: str
    """Stem of the clip's files: the File_ID without brackets."""
    split: str
    """Lower case."""
    subject: str | None
    intensities: tuple[float, ...] | None
    """``None`` where all emotion cells are empty."""


@dataclass(frozen=True)
class LabelTable:
    labels: LabelSet
    rows: tuple[Row, ...]
    problems: tuple[str, ...]
    """Rows that were left out, in the order of the file."""


def read_labels(path: Path) -> LabelTable:
    """Read labels.csv in the layout of Hume-Reaction.

    Columns: ``File_ID`` (bare or in square brackets), ``Split``, optional ``Subject``; every other column
    is an emotion and holds numbers. A row whose emotion cells are all empty is an unlabelled clip.

    Raises ``ViperError`` where the file or its columns are wrong; a wrong row is left out and listed.
    """
    header, lines = _read_csv(path)
    emotions = _emotion_columns(path, header, lines)
    rows: list[Row] = []
    problems: list[tuple[int, str]] = []
    for line, cells in lines:
        try:
            rows.append(_row(line, header, emotions, cells))
        except ValueError as error:
            problems.append((line, f"{path}: line {line}: {error}"))
    places = defaultdict(list)
    for row in rows:
        places[row.key].append(row.line)
    for key, where in places.items():
        if len(where) > 1:
            text = f"{path}: lines {_and(where)}: File_ID {key!r} more than once; none of them is packed"
            problems.append((where[0], text))
    rows = [row for row in rows if len(places[row.key]) == 1]
    values = [value for row in rows for value in row.intensities or ()]
    labels = LabelSet(tuple(emotions), *range_of(values))
    return LabelTable(labels, tuple(rows), tuple(text for _, text in sorted(problems)))


def write_labels(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write labels.csv from rows with equal keys; ``None`` becomes an empty cell."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _read_csv(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Header, and (line number, cells) of every row that is not blank."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            lines = [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except OSError as error:
        raise ViperError(
            f"{path}: cannot be read ({error.strerror}); give the csv file with --labels"
        ) from error
    except UnicodeDecodeError as error:
        raise ViperError(
            f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from error
    except csv.Error as error:
        raise ViperError(f"{path}: line {reader.line_num}: {error}; save it as comma-separated text") from error
    if len(lines) < 2:
        raise ViperError(f"{path}: no rows; a header line and one line per clip are needed")
    return [cell.strip() for cell in lines[0][1]], lines[1:]


def _emotion_columns(path: Path, header: list[str], lines: list[tuple[int, list[str]]]) -> list[str]:
    """Check the header; returns the emotion columns in their order."""
    for name in ("File_ID", "Split"):
        if name not in header:
            near = [column for column in header if _near(column, [name])]
            hint = f"; is {near[0]!r} meant?" if near else ""
            raise ViperError(f"{path}: no column {name!r} among {', '.join(map(repr, header))}{hint}")
    for column in header:
        if not column:
            raise ViperError(f"{path}: column {header.index(column) + 1} has no title; name it or remove it")
        if header.count(column) > 1:
            raise ViperError(f"{path}: column {column!r} comes {header.count(column)} times; keep one")
    emotions = [column for column in header if column not in RESERVED]
    if not emotions:
        raise ViperError(f"{path}: no emotion columns beside {', '.join(header)}; add one per emotion")
    known = [column for column in HUME_REACTION.columns if column in emotions]
    missing = [column for column in HUME_REACTION.columns if column not in emotions]
    for column in emotions:
        # A table that is mostly Hume-Reaction's is meant to be all of it: a misspelt title would silently
        # become another label set.
        expected = _near(
            column, [*(missing if len(known) > len(missing) else []), *set(RESERVED) - set(header)]
        )
        if expected:
            raise ViperError(f"{path}: unknown column {column!r}; is {expected!r} meant?")
        cells = [(line, row[header.index(column)]) for line, row in lines if len(row) == len(header)]
        filled = [(line, cell) for line, cell in cells if cell.strip()]
        if filled and all(_number(cell) is None for _, cell in filled):
            line, cell = filled[0]
            raise ViperError(
                f"{path}: unknown column {column!r} holds no numbers (line {line}: {cell!r}); "
                f"allowed are {', '.join(RESERVED)} and emotions: remove it"
            )
    if len({_label_name(column) for column in emotions}) < len(emotions):
        raise ViperError(
            f"{path}: two emotion columns have the same name but for case and punctuation: rename one"
        )
    return emotions


def _row(line: int, header: list[str], emotions: list[str], cells: list[str]) -> Row:
    if len(cells) != len(header):
        raise ValueError(f"{len(cells)} cells, the header has {len(header)}")
    cell = dict(zip(header, (text.strip() for text in cells), strict=True))
    file_id = cell["File_ID"]
    key = file_id[1:-1].strip() if file_id.startswith("[") and file_id.endswith("]") else file_id
    if not USABLE_NAME.fullmatch(key):
        raise ValueError(
            f"unusable File_ID {file_id!r}: it may not be empty or hold dots, slashes or control characters"
        )
    split = cell["Split"].lower()
    if not re.fullmatch(r"[a-z0-9_]+", split):
        raise ValueError(f"unusable Split {cell['Split']!r}: letters, digits and _ are allowed")
    empty = [column for column in emotions if not cell[column]]
    intensities = None
    if empty and len(empty) < len(emotions):
        raise ValueError(f"{', '.join(empty)} empty, others filled; fill all, or none for an unlabelled clip")
    if not empty:
        for column in emotions:
            if _number(cell[column]) is None:
                raise ValueError(f"{column} is {cell[column]!r}, not a number")
        intensities = tuple(float(cell[column]) for column in emotions)
    return Row(line, file_id, key, split, cell.get("Subject") or None, intensities)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _near(column: str, names: list[str]) -> str | None:
    """The name that a title probably stands for, ignoring case and punctuation."""
    by_name = {_label_name(name): name for name in names}
    match = difflib.get_close_matches(_label_name(column), by_name, n=1, cutoff=0.8)
    return by_name[match[0]] if match else None


def _label_name(column: str) -> str:
    return re.sub(r"[^0-9a-z]+", "", column.lower())


def _and(numbers: list[int]) -> str:
    return " and ".join([", ".join(map(str, numbers[:-1])), str(numbers[-1])])
