"""plain_json.py: JSON that every program reads: numbers that are not finite become null."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def dumps(data: object, *, indent: int | None = None) -> str:
    """As `json.dumps`, which writes NaN and Infinity: words that JSON does not have."""
    return json.dumps(_plain(data), indent=indent, ensure_ascii=False, allow_nan=False)


def record_in(line: str) -> dict[str, Any] | None:
    """The object in a line of a log; `None` where a full disk or a power cut left none."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _plain(data: object) -> object:
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, Mapping):
        return {key: _plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_plain(value) for value in data]
    return data
