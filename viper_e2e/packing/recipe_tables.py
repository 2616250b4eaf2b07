"""packing/recipe_tables.py: a table of a published corpus -> its lines, whatever program wrote it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from viper_e2e.errors import ViperError
from viper_e2e.runtime import count_of

WINDOWS = {
    code: bytes([code]).decode("cp1252")
    for code in range(0x80, 0xA0)
    if code not in (0x81, 0x8D, 0x8F, 0x90, 0x9D)
}
"""Control characters that are what Windows has at these places: U+0092 is an apostrophe."""
_LETTERS = (
    "control character read as the Windows letter in its place",
    "control characters read as the Windows letters in their places",
)


def read_records(
    path: Path, columns: Sequence[str], separator: str, notes: list[str]
) -> Iterator[tuple[int, dict[str, str]]]:
    """(line, title → cell) of each row; ``columns`` are the titles of a table without them.

    A byte order mark, Windows line ends and spaces around cells are left out; repairs are reported.
    """
    text = read_text(path, notes)
    mended = text.translate(WINDOWS)
    if mended != text:
        num = sum(a != b for a, b in zip(text, mended, strict=True))
        notes.append(f"{path.name}: {count_of(num, *_LETTERS)}")
    if separator == " ":
        records = ((n, line.split()) for n, line in enumerate(mended.splitlines(), start=1))
    else:
        reader = csv.reader(io.StringIO(mended, newline=""), delimiter=separator)
        records = ((reader.line_num, cells) for cells in reader)
    filled = ((n, [cell.strip() for cell in cells]) for n, cells in records if any(map(str.strip, cells)))
    titles = list(columns) or next(filled, (0, []))[1]
    for line, cells in filled:
        yield line, dict(zip(titles, [*cells, *[""] * (len(titles) - len(cells))], strict=False))


def read_text(path: Path, notes: list[str]) -> str:
    """UTF-8, with or without its mark; anything else is reported. ``ViperError``: it cannot be read."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ViperError(
            f"{path}: cannot be read ({error.strerror}); --corpus is the folder as it is distributed"
        ) from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        notes.append(f"{path.name}: not UTF-8; read as Windows-1252")
        return data.decode("cp1252", errors="replace")
