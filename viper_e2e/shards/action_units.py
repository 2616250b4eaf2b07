"""shards/action_units.py: the `.fau.npy` member: columns, parsed without pickle, checked first."""

from __future__ import annotations

import io
import math
import re

import numpy as np

MAX_UNITS = 1024
ACTION_UNITS = tuple(
    f"au{n}" for n in (1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15, 17, 20, 23, 24, 25, 26, 28, 43)
)
FACIAL_EMOTIONS = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
"""The 27 columns of action units in the published order: py-feat's 20 action units, then its seven emotions."""


def action_units_from_npy(data: bytes) -> np.ndarray:
    """float32 ``T' U``; raises ``ValueError`` for anything but one table of floats as large as it claims."""
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise ValueError(f"npy version {version}, allowed are 1.0 and 2.0")
    if dtype.kind != "f" or dtype.hasobject:
        raise ValueError(f"npy holds {dtype}, allowed are floats")
    if len(shape) != 2 or not (shape[0] >= 1 and 1 <= shape[1] <= MAX_UNITS):
        raise ValueError(f"npy has shape {shape}, allowed is (rows, at most {MAX_UNITS} units)")
    if math.prod(shape) * dtype.itemsize != len(data) - stream.tell():
        raise ValueError(f"npy claims shape {shape}, {len(data) - stream.tell()} bytes follow")
    return np.load(io.BytesIO(data), allow_pickle=False).astype(np.float32)


def action_units_to_npy(units: np.ndarray) -> bytes:
    """The member's bytes; ``units`` is ``T' U``."""
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(units, dtype=np.float32), allow_pickle=False)
    return stream.getvalue()


def unit_name(column: str) -> str:
    """``"AU01"`` → ``"au1"``, ``" Anger"`` → ``"anger"``."""
    title = column.strip().lower()
    unit = re.fullmatch(r"au0*(\d+)", title)
    return f"au{unit.group(1)}" if unit else title
