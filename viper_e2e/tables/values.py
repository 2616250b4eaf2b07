"""values.py: a cell of a table -> a number, strictly; and numbers that are probably codes or slips."""

from __future__ import annotations

import re
from collections.abc import Sequence

from viper_e2e.runtime import DASHES, bare

NUMBER = re.compile(r"[+-]?([0-9]+([.,][0-9]*)?|[.,][0-9]+)([eE][+-]?[0-9]{1,3})?")
"""Digits of ASCII only: what `float` takes besides (`1_0`, `１`, `nan`, `inf`) is a slip in a table."""
LARGEST = 1e30
"""Largest number that an index of a shard can store."""
WRITTEN_WORDS = ("na", "n/a", "nan", "null", "none", "nil", "-", "--", ".", "?", "missing", "fehlt", "k.a.")
SPREADSHEET_ERRORS = (
    *("#n/a", "#null!", "#value!", "#ref!", "#name?", "#num!", "#div/0!"),
    *("#nv", "#wert!", "#bezug!", "#zahl!"),
)
MISSING_WORDS = (*WRITTEN_WORDS, *SPREADSHEET_ERRORS)
CODES = frozenset(
    sign * code
    for sign in (1, -1)
    for code in (9, 66, 77, 88, 96, 97, 98, 99, 666, 777, 888, 997, 998, 999, 9999, 99999)
) | {-1.0, -2.0, -7.0, -8.0}
"""Numbers that SPSS files and their kin write for a missing answer."""
WITH_POINT = re.compile(r"(-?[0-9]+)[.,]0{1,2}")
"""A whole number as programs write it that keep the column as numbers with decimals."""
MIN_OTHERS = 5
"""Below so many other values, what lies far outside them may still be one of them."""
STRAY_SPANS, MIN_FOR_STRAYS = 3.0, 10
"""A value this many spans of all others away from them is reported; among fewer values none is."""


def number(cell: str, decimal: str = ".") -> float | None:
    """The value of a cell, or ``None``; ``decimal`` is ``"."``, ``","`` or ``"either"``."""
    cell = _written(cell)
    if not NUMBER.fullmatch(cell):
        return None
    if {".": ",", ",": "."}.get(decimal, "/") in cell:
        return None
    value = float(cell.replace(",", "."))
    return value if abs(value) <= LARGEST else None


def _written(cell: str) -> str:
    """A number as we read it: its sign is a hyphen."""
    return bare(cell).translate(DASHES)


def is_missing_word(cell: str) -> bool:
    """Whether programs write this where there is no value."""
    return _written(cell).replace("—", "-").casefold() in MISSING_WORDS


def without_points(names: Sequence[str]) -> dict[str, str] | None:
    """Readings of names that are all whole numbers, some with a point: ``1.0`` → ``1``.

    None where none has one, or one is another word or number, as in versions such as 1.0 and 1.5.
    """
    whole = {name: WITH_POINT.fullmatch(name) for name in {*names}}
    if not any(whole.values()) or not all(
        one or re.fullmatch(r"-?[0-9]+", name) for name, one in whole.items()
    ):
        return None
    return {name: one[1] for name, one in whole.items() if one}


def decimal_of(
    cells: Sequence[tuple[int, str]], separator: str, *, are_times: bool = False
) -> tuple[str, str | None]:
    """Decimal separator of these (line, cell), and a complaint about it. In ``are_times`` a
    point does: seconds have thousandths."""
    numbers = [(line, cell) for line, cell in cells if NUMBER.fullmatch(_written(cell))]
    commas = [(line, cell) for line, cell in numbers if "," in cell]
    points = [(line, cell) for line, cell in numbers if "." in cell]
    if not commas:
        # Where semicolons separate cells, commas are wanted for decimals, and points part thousands.
        in_doubt = separator == ";" and not are_times and points and all(map(_is_grouped, points))
        return ".", _said_doubtful(points[0], "point") if in_doubt else None
    if points:
        (a, with_comma), (b, with_point) = commas[0], points[0]
        text = f"decimal commas (line {a}: {with_comma!r}) and points (line {b}: {with_point!r}) in one table"
        return ".", f"{text}: write all alike"
    in_doubt = separator in (",", "\t", "") and all(map(_is_grouped, commas))
    return ",", _said_doubtful(commas[0], "comma") if in_doubt else None


def _is_grouped(at: tuple[int, str]) -> bool:
    """Whether three digits are parted off, as thousands are."""
    return bool(re.fullmatch(r"[+-]?[1-9][0-9]{0,2}[.,][0-9]{3}", _written(at[1])))


def _said_doubtful(at: tuple[int, str], name: str) -> str:
    line, cell = at
    whole = re.sub(r"[.,]", "", _written(cell))
    return f"line {line}: {cell!r} may be a thousand or a decimal {name}: write {whole} or {_written(cell)}0"


def suspected_codes(values: Sequence[float]) -> list[float]:
    """Values that are a usual code for missing answers and lie far outside the others."""
    codes = {value for value in values if value in CODES}
    others = [value for value in values if value not in codes]
    if not others:
        return sorted(codes) if len(codes) == 1 and max(map(abs, codes)) >= 66 else []
    return sorted(code for code in codes if _is_far(code, others))


def _is_far(code: float, others: Sequence[float]) -> bool:
    low, high = min(others), max(others)
    span = max(high - low, 1e-12)
    if code in (-1.0, -2.0) and (len(others) < MIN_OTHERS or low < 0):
        return False
    if code == -1.0 and low >= 1.0:
        return True
    if code > 0 and len(others) < MIN_OTHERS and code < 9 * max(abs(low), abs(high)):
        return False
    return code <= low - span if code < 0 else code >= high + span


def stray(values: Sequence[float]) -> float | None:
    """The one value that lies far away from all others, as a slip of the keyboard does."""
    if len(values) < MIN_FOR_STRAYS:
        return None
    ordered = sorted(values)
    span = ordered[-2] - ordered[1]
    if ordered[-1] - ordered[-2] > STRAY_SPANS * (ordered[-2] - ordered[0]):
        return ordered[-1]
    if ordered[1] - ordered[0] > STRAY_SPANS * max(ordered[-1] - ordered[1], span):
        return ordered[0]
    return None
