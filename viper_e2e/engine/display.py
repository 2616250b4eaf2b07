"""display.py: progress bars and tables in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

console = Console(stderr=True, highlight=False)
"""Everything meant for people goes to stderr; stdout carries results alone."""


def progress_bar(*, disable: bool = False) -> Progress:
    """A bar with a free text column, ``note``. Without a terminal nothing is drawn."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(compact=True),
        console=console,
        disable=disable or not console.is_terminal,
    )


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """Numbers to the right, words to the left."""
    made = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        numeric = all(isinstance(row[index], int | float) or _is_number(str(row[index])) for row in rows)
        made.add_column(column, justify="right" if numeric and rows else "left", overflow="fold")
    for row in rows:
        made.add_row(*(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row))
    return made


def _is_number(text: str) -> bool:
    return bool(text) and text.lstrip("-+").replace(".", "", 1).replace(",", "").isdigit()
