"""times.py: when a clip begins and ends in its file, and which half it is, as tables say it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import get_args

from viper_e2e.clip import Segment, Side
from viper_e2e.tables.bad_cells import no_time
from viper_e2e.tables.values import number

CLOCK = re.compile(r"(?:([0-9]+):)?([0-5]?[0-9]):([0-5]?[0-9](?:[.,][0-9]+)?)")
"""``hh:mm:ss.mmm``, ``mm:ss``, with a point or a comma."""


def seconds_of(cell: str) -> float | None:
    """``12.5``, ``12,5``, ``00:16:16,059`` → seconds; ``None`` for what is neither."""
    if found := CLOCK.fullmatch(cell.strip()):
        hours, minutes, seconds = found.groups()
        return 3600 * int(hours or 0) + 60 * int(minutes) + float(seconds.replace(",", "."))
    return number(cell, "either")


def read_segment(start: str, end: str, side: str, *, is_empty: Callable[[str], bool]) -> Segment | None:
    """The segment that three cells describe. Empty ones stand for the file's begin, its end, and the whole
    picture; ``None``: all of the file.

    `ValueError` for each that cannot be read, and for a stretch that is none.
    """
    wrong: list[str] = []
    times: list[float] = []
    for title, cell, otherwise in (("Start", start, 0.0), ("End", end, math.inf)):
        seconds = otherwise if is_empty(cell) else seconds_of(cell)
        if seconds is None:
            wrong.append(f"{title} is {cell!r}, {no_time(cell)}")
            continue
        if seconds < 0:
            wrong.append(f"{title} is {cell}, before the file begins")
        times.append(seconds)
    sides: tuple[Side, ...] = get_args(Side)
    half = next((one for one in sides if one == ("full" if is_empty(side) else side.casefold())), None)
    if half is None:
        wrong.append(f"Side is {side!r}, none of {', '.join(get_args(Side))}")
    if not wrong and times[0] >= times[1]:
        wrong.append(f"Start {start or '(empty: 0)'} is not before End {end}")
    if wrong or half is None:
        raise ValueError("; ".join(wrong))
    segment = Segment(times[0], times[1], half)
    return None if segment == Segment() else segment


def told_apart_by(segment: Segment | None) -> str:
    """Suffix for names of clips that share a file: ``12500-15250`` (milliseconds), ``left``."""
    if segment is None:
        return ""
    start, end = segment.span
    words = (
        [] if segment.span == (0.0, math.inf) else [f"{_ms(start)}-{'end' if math.isinf(end) else _ms(end)}"]
    )
    return "__".join([*words, *([segment.side] if segment.side != "full" else [])])


def _ms(seconds: float) -> int:
    return round(1000 * seconds)
