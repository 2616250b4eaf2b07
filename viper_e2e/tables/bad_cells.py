"""bad_cells.py: cells that are not, or no longer, a number or a name, and what to write instead."""

from __future__ import annotations

import re
import unicodedata

from viper_e2e.runtime import DASHES
from viper_e2e.tables.values import is_missing_word, number

SECONDS = {"ms": 0.001, "s": 1.0, "sec": 1.0, "sek": 1.0, "min": 60.0, "h": 3600.0}
WITH_UNIT = re.compile(r"(.*[0-9.,])\s*(%|[A-Za-zµ]{1,4})\.?")
GROUPED = re.compile(
    r"([+-]?[1-9][0-9]{0,2})(?:((?:[,'’\s][0-9]{3})+)(\.[0-9]+)?|((?:[.'’\s][0-9]{3})+)(,[0-9]+)?)"
)
"""`1,234.5`, `1.234,5`, `1 234`: thousands apart."""
MADE_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[ T]00:00:00(?:\.0+)?")
"""A day at midnight: a date of a spreadsheet, as programs hand it on."""
MONTHS = (
    "jan feb mar apr may jun jul aug sep oct nov dec mär mrz mai okt dez fév avr jui aoû déc "
    "ene abr ago dic gen mag giu lug set ott"
).replace(" ", "|")
NAMED_DATE = re.compile(
    rf"(?:[0-9]{{1,2}}[-. /]{{1,2}}(?:{MONTHS})[^\W\d_]?|(?:{MONTHS})[^\W\d_]?[-. /]{{1,2}}[0-9]{{2}})\.?", re.I
)
"""`2-Jan`, `05. Mrz`, `Mar-21`: how spreadsheets show it."""
ROUNDED = re.compile(r"[0-9][.,][0-9]+E\+[0-9]{2,3}", re.I)
"""`1.23457E+11`: how spreadsheets show a long number, of which they keep 15 digits at most."""
AS_TEXT = "format the column as text and write what was meant"


def is_date(cell: str) -> bool:
    """Whether a spreadsheet has made a date of it."""
    return bool(MADE_DATE.fullmatch(cell) or NAMED_DATE.fullmatch(cell))


def why_no_name(cell: str) -> str | None:
    """Why a cell is hardly the name that somebody wrote into it, and what to do."""
    if MADE_DATE.fullmatch(cell):
        return f"a date, as spreadsheets make of 1-2 or 3/5: {AS_TEXT} (a date that is meant: {cell[:10]})"
    if ROUNDED.fullmatch(cell):
        return "a long number that a spreadsheet has rounded: format the column as text and save it again"
    return None


def no_number(cell: str, decimal: str = ".") -> str:
    """Message about a label that is no number."""
    if is_date(cell):
        return f"not a number but a date, as spreadsheets make of 3.5 or 3/5: {AS_TEXT}"
    if is_missing_word(cell):
        return f"not a number (--missing {cell} if it stands for an empty cell)"
    point = "," if decimal == "," else "."
    if (found := _number_in(cell)) is None:
        return f"not a number: write one such as 0{point}5, or nothing where it is not known"
    value, unit = found
    written = f"{value / 100:.10g} (or {value:.10g} in every row)" if unit == "%" else f"{value:.10g}"
    return f"not a number: write {written.replace('.', point)}"


def no_time(cell: str) -> str:
    """Message about a time that cannot be read."""
    what = "neither seconds nor hh:mm:ss.mmm"
    if is_date(cell):
        return f"{what} but a date, as spreadsheets make of 3.5 or 3/5: {AS_TEXT}"
    if is_missing_word(cell):
        return f"{what} (--missing {cell} if it stands for an empty cell)"
    value, unit = _number_in(cell) or (0.0, "?")
    factor = SECONDS.get(unit or "s")
    return f"{what}: write {f'{value * factor:.10g}' if factor else 'such as 12.5'}"


def _number_in(cell: str) -> tuple[float, str] | None:
    """A number, its unit or nothing, of a cell that has one, thousands apart, or digits of another script."""
    text = "".join(str(unicodedata.decimal(one, one)) for one in cell.strip()).translate(DASHES)
    unit = ""
    if with_unit := WITH_UNIT.fullmatch(text):
        text, unit = with_unit[1], with_unit[2].casefold()
    text = re.sub(r"^([+-])\s+", r"\1", text)
    if grouped := GROUPED.fullmatch(text):
        begin, thousands, decimals, or_thousands, or_decimals = (part or "" for part in grouped.groups())
        text = begin + re.sub(r"\D", "", thousands + or_thousands) + decimals + or_decimals
    value = number(text, "either")
    return None if value is None else (value, unit)
