"""predictions_csv.py: predictions as CSV files have them: titles, cells safe in spreadsheets, and read back."""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from viper_e2e.errors import ViperError
from viper_e2e.labels import LabelSet
from viper_e2e.runtime import written_whole

TEXT_COLUMNS = ("key", "file_id", "shard", "subject", "error")
NUMBER_COLUMNS = ("valid", "duration_seconds", "face_share")
INTERVAL_ENDS, SET_END = ("_lower", "_upper"), "_set"

# A leading minus alone is common in identifiers and runs nothing.
_COULD_BE_FORMULA = re.compile(r"[=+@\t]|-.*[^\w.-]", re.DOTALL)
_NOT_VERBATIM = re.compile(rf"{_COULD_BE_FORMULA.pattern}|.*[\r\n]", re.DOTALL)


def submission_ids(
    path: str | os.PathLike, file_ids: Sequence[str], keys: Sequence[str], labels: LabelSet
) -> list[str]:
    """What names each clip in a submission: its ``File_ID`` verbatim, else its key.

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


def neutralised(text: str) -> str:
    """A text as a CSV cell that no spreadsheet runs as a formula: those get an apostrophe before them."""
    # The apostrophe itself is doubled, so that reading is the inverse. A carriage return would end the line.
    text = text.replace("\r", " ")
    return f"'{text}" if text.startswith("'") or _COULD_BE_FORMULA.match(text) else text


def _restored(cell: str) -> str:
    return cell.removeprefix("'")


def exact_number(value: float) -> str:
    return "" if np.isnan(value) else repr(float(value))


def readable(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.6g}"


def said_cells(said: Mapping[str, Any], shown: Callable[[float], str]) -> Iterator[str]:
    """As `viper infer` writes them: both ends of an interval, the members of a set with bars between them."""
    for pair in said["intervals"].values():
        yield from ("", "") if pair is None else map(shown, pair)
    for members in said["sets"].values():
        yield "" if members is None else neutralised("|".join(map(str, members)))


def flag(value: bool | np.bool_) -> str:
    return "1" if value else "0"


def write_rows(
    path: str | os.PathLike, header: Sequence[str], rows: Iterable[Sequence[object]], *, bom: bool = False
) -> None:
    with written_whole(path) as partial:
        write_csv(partial, header, rows, bom=bom)


def write_csv(path: Path, header: Iterable[str], rows: Iterable[Sequence[object]], *, bom: bool) -> None:
    """As every CSV of predictions is written. ``bom``: the mark by which Excel knows UTF-8."""
    encoding = "utf-8-sig" if bom else "utf-8"
    with path.open("w", encoding=encoding, errors="backslashreplace", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def said_columns(intervals: Iterable[str], sets: Iterable[str]) -> dict[str, str]:
    """Title and kind of the columns of intervals and sets, which only a calibrated model has."""
    ends = {f"{name}{end}": "number" for name in intervals for end in INTERVAL_ENDS}
    return ends | {f"{name}{SET_END}": "text" for name in sets}


def header_of(labels: LabelSet, modalities: Sequence[str]) -> list[str]:
    """Titles of the columns, without those of intervals and sets."""
    return [
        *TEXT_COLUMNS,
        *NUMBER_COLUMNS,
        *(f"predicted_{name}" for name in labels.names),
        *(f"true_{name}" for name in labels.names),
        *(f"present_{modality}" for modality in modalities),
    ]


def read_columns(path: str | os.PathLike, labels: LabelSet) -> dict[str, Any]:
    """The columns of `Predictions` by name, but for its labels, out of such a file; intervals and sets are left
    out."""
    header, rows = _read_rows(path)
    modalities = tuple(title.removeprefix("present_") for title in header if title.startswith("present_"))
    wanted = header_of(labels, modalities)
    more = header[len(wanted) :]
    if header[: len(wanted)] != wanted or not all(name.endswith((*INTERVAL_ENDS, SET_END)) for name in more):
        odd = sorted(set(header) ^ set(wanted)) or ["another order"]
        raise ViperError(
            f"{path}: not predictions for {', '.join(labels.names)} (differs in: {', '.join(odd[:6])}); "
            "give the label set that the file was written with"
        )
    text_end, size = len(TEXT_COLUMNS), len(labels)
    texts = [[_restored(cell) for cell in row[:text_end]] for row in rows]
    numbers = _parse_numbers(path, [row[text_end : len(wanted)] for row in rows], len(wanted) - text_end)
    values = numbers[:, len(NUMBER_COLUMNS) :]
    keys, file_ids, shards, subjects, errors = ([row[i] for row in texts] for i in range(text_end))
    return {
        "modalities": modalities,
        "keys": keys,
        "file_ids": file_ids,
        "shards": shards,
        "predicted": values[:, :size],
        "true": values[:, size : 2 * size],
        "valid": numbers[:, 0] == 1,
        "errors": [error or None for error in errors],
        "present": values[:, 2 * size :] == 1,
        "face_share": numbers[:, 2],
        "duration_seconds": numbers[:, 1],
        "subjects": [subject or None for subject in subjects] if any(subjects) else None,
    }


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


def _parse_numbers(path: str | os.PathLike, rows: list[list[str]], width: int) -> Float64[np.ndarray, "N C"]:
    table = np.full((len(rows), width), np.nan)
    for i, row in enumerate(rows):
        for j, cell in enumerate(row):
            try:
                table[i, j] = float(cell) if cell else np.nan
            except ValueError as error:
                raise ViperError(f"{path}: row {i + 2}: {cell!r} is not a number") from error
    return table
