"""packing/report.py: report of packing: what was made, what was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from viper_e2e.errors import ExitCode
from viper_e2e.labels import LabelSet
from viper_e2e.runtime import count_of, table, values_of
from viper_e2e.tables import Column

MAX_LINES = 20
"""Problems printed; the JSON report holds all."""


class Findings:
    """Gathers, while clips are matched and packed, what the report will say of them."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        """One line for each clip or row that is left out."""
        self._notes: list[str] = []
        self._counts: Counter[str] = Counter()

    def leave_out(self, *problems: str) -> None:
        """Take down why a clip, a row or a folder is not packed."""
        self.problems += problems

    def note(self, lines: Iterable[str]) -> None:
        """Take down lines that stand for themselves."""
        self._notes += lines

    def count(self, note: str, clips: int = 1) -> None:
        """Take down what is true of some clips; one line says of how many."""
        self._counts[note] += clips

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines on what is packed."""
        counted = (f"{count_of(number, 'clip')} {note}" for note, number in sorted(self._counts.items()))
        return (*self._notes, *counted)


@dataclass(frozen=True)
class SplitReport:
    split: str
    clips: int
    unlabelled: int
    subjects: int
    shards: int
    bytes: int


@dataclass(frozen=True)
class PackReport:
    """Report of a packing. ``exit_code`` is 0 if nothing was left out, else 2."""

    out: str
    labels: LabelSet
    splits: tuple[SplitReport, ...]
    problems: tuple[str, ...]
    """One line for each clip or row that was left out."""
    notes: tuple[str, ...]
    """Notes on clips that were packed."""
    columns: tuple[Column, ...] = ()
    """Columns of the table with their meaning."""
    is_dry: bool = False
    """Nothing was written: this is what would be."""

    @property
    def exit_code(self) -> int:
        return ExitCode.SOME_FAILED if self.problems else ExitCode.OK

    def to_json(self) -> dict[str, Any]:
        """The report as plain data."""
        return asdict(self)

    def __rich__(self) -> Group:
        title = f"{self.out}: {', '.join(self.labels.names)}"
        title = f"nothing is written (--dry-run); {title}" if self.is_dry else title
        rows = [
            (s.split, s.clips, s.unlabelled, s.subjects, s.shards, f"{s.bytes / 1e6:.1f}") for s in self.splits
        ]
        splits = table(title, ("split", "clips", "unlabelled", "subjects", "shards", "MB"), rows)
        lines = [Text(f"note: {note}") for note in self.notes]
        lines += [Text(f"left out: {problem}", style="red") for problem in self.problems[:MAX_LINES]]
        if len(self.problems) > MAX_LINES:
            text = f"left out: {len(self.problems) - MAX_LINES} more (--output FILE.json holds all)"
            lines.append(Text(text, style="red"))
        columns = Group(_columns_table(self.columns), "") if self.columns else Group()
        return Group(columns, splits, *lines)


def _columns_table(columns: tuple[Column, ...]) -> Table:
    """Table of columns and their meaning: the last chance to see that an age is no emotion."""
    rows = []
    for column in columns:
        span = ("" if value is None else f"{value:g}" for value in (column.minimum, column.maximum))
        told = (*span, column.empty or "", "" if column.counts is None else values_of(column.counts))
        rows.append((column.title or "(no title)", column.taken_for, *told))
    return table("columns of the table", ("column", "taken for", "from", "to", "empty", "values"), rows)
