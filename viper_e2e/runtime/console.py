"""console.py: the terminal output that commands share: lines, bars, tables."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from rich.markup import escape
from rich.table import Table

from viper_e2e.runtime.progress import ProgressBar, waiting
from viper_e2e.runtime.terminal import SteadyConsole

console = SteadyConsole(stderr=True, highlight=False)
"""Everything meant for people goes to stderr; stdout carries results alone."""

AS_IT_IS: dict[str, Any] = {"markup": False, "soft_wrap": True}
"""How lines with names of files are printed: a name may hold square brackets, and is copied as a whole."""


MAX_PROBLEMS = 10
"""At most so many are reported; `viper check` shows all."""


def tell_problems(problems: Sequence[str]) -> None:
    """Print what was left out of shards, so that nobody takes the rest for the whole."""
    for problem in problems[:MAX_PROBLEMS]:
        console.print(f"[yellow]{escape(problem)}[/yellow]", soft_wrap=True)
    if len(problems) > MAX_PROBLEMS:
        more = len(problems) - MAX_PROBLEMS
        console.print(f"[yellow]{more} more such lines; `viper check` shows all[/yellow]")


class TellOnce:
    """Tells the lines and tables of a command once, however many of its trainings come upon them."""

    def __init__(self) -> None:
        self._lines: set[str] = set()
        self._tables: dict[object, object] = {}

    def line(self, text: str) -> None:
        if text not in self._lines:
            console.print(text, **AS_IT_IS)
        self._lines.add(text)

    def problems(self, problems: Sequence[str]) -> None:
        """See `tell_problems`."""
        tell_problems([problem for problem in problems if problem not in self._lines])
        self._lines.update(problems)

    def table(self, made: Table, same_as: object = None) -> None:
        """Again only where it is another one than the last with its title. ``same_as``: what it is compared by
        in place of its cells."""
        cells = [list(column.cells) for column in made.columns] if same_as is None else same_as
        if self._tables.get(made.title) != cells:
            console.print(made)
        self._tables[made.title] = cells


def progress_bar(*, disable: bool = False) -> ProgressBar:
    """A bar with a ``note`` and ``details``; without a terminal, lines."""
    return ProgressBar(console, is_silent=disable)


def loading(what: str = "loading the model") -> AbstractContextManager[None]:
    """Shown apart from the work that comes after it."""
    return waiting(what, console, is_silent=os.environ.get("RANK", "0") != "0")


_GAP = 2
"""Characters between two columns."""


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """Numbers to the right, words to the left, each as it is: names may hold square brackets. Words of a header
    stay whole where there is room."""
    made = Table(title=escape(title), title_justify="left", box=None, pad_edge=False, header_style="bold")
    longest = [max(map(len, column.split()), default=0) for column in columns]
    has_room = sum(longest) + _GAP * (len(columns) - 1) <= console.width
    for index, column in enumerate(columns):
        cells = [row[index] for row in rows if row[index] != ""]
        numeric = all(isinstance(cell, int | float) or _is_number(str(cell)) for cell in cells)
        width = longest[index] if has_room else None
        made.add_column(
            escape(column), justify="right" if numeric and cells else "left", overflow="fold", min_width=width
        )
    for row in rows:
        made.add_row(*(f"{cell:,}" if isinstance(cell, int) else escape(str(cell)) for cell in row))
    return made


def _is_number(text: str) -> bool:
    return bool(text) and text.lstrip("-+").replace(".", "", 1).replace(",", "").isdigit()
