"""shards/action_units.py: the `.fau.npy` member: parsed without pickle, checked before allocation."""

from __future__ import annotations

import io
import math

import numpy as np

MAX_UNITS = 1024


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
