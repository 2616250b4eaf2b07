"""packing/action_units.py: a csv or npy of action units per clip -> the table that goes into the shard."""

from __future__ import annotations

import csv
import io
import math

import numpy as np

from viper_e2e.shards import ACTION_UNITS, FACIAL_EMOTIONS, action_units_from_npy, unit_name

ACTION_UNIT_FILES = ("csv", "npy")


def read_action_units(name: str, data: bytes) -> tuple[np.ndarray, bool]:
    """One clip's action units: float32 ``T' 27`` in the published order, and whether the emotions were there.

    csv: a row per moment, columns found by name (``AU01`` …, ``anger`` …), others ignored; empty cells and
    NaN become 0, as in the published scripts. npy: a table of floats 27 or 20 wide, in that order. Where the
    seven emotions are missing (MuSe 2022 ships the 20 units alone) they are 0.

    Raises ``ValueError`` saying what is wrong.
    """
    table = action_units_from_npy(data) if name.lower().endswith(".npy") else _from_csv(data)
    table = np.nan_to_num(table, nan=0.0)
    width = len(ACTION_UNITS) + len(FACIAL_EMOTIONS)
    if table.shape[1] not in (len(ACTION_UNITS), width):
        raise ValueError(f"{table.shape[1]} columns; {width} or {len(ACTION_UNITS)} are allowed")
    whole = np.zeros((len(table), width), np.float32)
    whole[:, : table.shape[1]] = table
    return whole, table.shape[1] == width


def _from_csv(data: bytes) -> np.ndarray:
    reader = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""))
    try:
        lines = [(reader.line_num, cells) for cells in reader if cells]
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from error
    if len(lines) < 2:
        raise ValueError("no rows")
    header = [unit_name(cell) for cell in lines[0][1]]
    with_emotions = any(name in header for name in FACIAL_EMOTIONS)
    wanted = (*ACTION_UNITS, *FACIAL_EMOTIONS) if with_emotions else ACTION_UNITS
    missing = [name for name in wanted if name not in header]
    if missing:
        raise ValueError(f"no column for {', '.join(missing)}")
    places = [header.index(name) for name in wanted]
    for line, cells in lines:
        if len(cells) != len(header):
            raise ValueError(f"line {line}: {len(cells)} cells, the header has {len(header)}")
    return np.array([[_value(cells[place], line) for place in places] for line, cells in lines[1:]], np.float32)


def _value(cell: str, line: int) -> float:
    try:
        value = float(cell) if cell.strip() else math.nan
    except ValueError as error:
        raise ValueError(f"line {line}: {cell!r} is not a number") from error
    if math.isinf(value):
        raise ValueError(f"line {line}: {cell!r} is not finite")
    return value
