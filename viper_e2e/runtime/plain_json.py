"""plain_json.py: JSON that every program reads, and files of JSON that anyone may have written."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from viper_e2e.errors import ViperError
from viper_e2e.runtime.environment import explain

MAX_BYTES = 16 * 2**20
"""Largest file of settings, or of a record."""
MAX_BYTES_BY_CLIP = 2**28
"""Largest file with a line for each of millions of clips."""


def dumps(data: object, *, indent: int | None = None) -> str:
    """`json.dumps` with null for NaN and Infinity, which JSON does not have."""
    return json.dumps(_plain(data), indent=indent, ensure_ascii=False, allow_nan=False)


def record_in(line: str) -> dict[str, Any] | None:
    """The object in a line of a log; `None` where a full disk or a power cut left none."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def read_object(
    path: Path,
    *,
    max_bytes: int = MAX_BYTES,
    error: type[ViperError] = ViperError,
    advice: str = "is it damaged?",
) -> dict[str, Any]:
    """The JSON object in a file; for anything else ``error``, with the file and ``advice``."""
    text = read_text(path, max_bytes=max_bytes, error=error, advice=advice)
    found = parsed(text, str(path), error=error, advice=advice)
    if not isinstance(found, dict):
        raise error(f"{path}: a JSON object is expected, found {type(found).__name__}; {advice}")
    return found


def read_text(
    path: Path, *, max_bytes: int = MAX_BYTES, error: type[ViperError] = ViperError, advice: str
) -> str:
    """Text in UTF-8 from a file, of which at most ``max_bytes`` are read; ``error`` as of `read_object`."""
    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except OSError as refusal:
        raise error(explain(refusal, path)) from refusal
    if len(content) > max_bytes:
        raise error(f"{path}: over {max_bytes:,} bytes, which is too large for such a file; {advice}")
    try:
        # Windows' editors begin a file with a mark.
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        raise error(f"{path}: not text in UTF-8 ({fault}); {advice}") from fault


def parsed(
    content: str | bytes, name: str, *, strict: bool = False, error: type[ViperError], advice: str = ""
) -> Any:
    """The data of a JSON text from ``name``; ``strict``: without NaN, which other programs write."""
    try:
        text = content if isinstance(content, str) else content.decode()
        return json.loads(text, parse_constant=_no_constant if strict else None)
    except (ValueError, RecursionError) as fault:
        reason = "nested too deeply" if isinstance(fault, RecursionError) else fault
        raise error(f"{name}: not valid JSON ({reason})" + (f"; {advice}" if advice else "")) from fault


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is not allowed")


def _plain(data: object) -> object:
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, Mapping):
        return {key: _plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_plain(value) for value in data]
    return data
