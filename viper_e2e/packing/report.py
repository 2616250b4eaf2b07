"""packing/report.py: what packing made and what it left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from viper_e2e.errors import ExitCode
from viper_e2e.labels import LabelSet
from viper_e2e.packing.rows import Column

MAX_LINES = 20
"""Problems printed; the JSON report holds all."""
MAX_VALUES = 12
"""Of one column whose clips are counted value by value."""


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
    """What was packed. ``exit_code`` is 0 where nothing was left out, else 2."""

    out: str
    labels: LabelSet
    splits: tuple[SplitReport, ...]
    problems: tuple[str, ...]
    """One line for each clip or row that was left out."""
    notes: tuple[str, ...]
    """What was packed, but is worth knowing."""
    columns: tuple[Column, ...] = ()
    """What each column of the table was taken for."""
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
        table = Table(title=Text(f"nothing is written (--dry-run); {title}" if self.is_dry else title))
        table.add_column("split")
        for title in ("clips", "unlabelled", "subjects", "shards", "MB"):
            table.add_column(title, justify="right")
        for s in self.splits:
            counts = (s.clips, s.unlabelled, s.subjects, s.shards)
            table.add_row(s.split, *map(str, counts), f"{s.bytes / 1e6:.1f}")
        lines = [Text(f"note: {note}") for note in self.notes]
        lines += [Text(f"left out: {problem}", style="red") for problem in self.problems[:MAX_LINES]]
        if len(self.problems) > MAX_LINES:
            text = f"left out: {len(self.problems) - MAX_LINES} more (--output FILE.json holds all)"
            lines.append(Text(text, style="red"))
        return Group(*([_columns_table(self.columns)] if self.columns else []), table, *lines)


def counts_in_words(counts: Mapping[str, int] | None) -> str:
    """``joy 12, anger 5``; of many different values only how many."""
    if counts is None:
        return ""
    if len(counts) > MAX_VALUES:
        return f"{len(counts)} different"
    return ", ".join(f"{value} {number}" for value, number in counts.items())


def _columns_table(columns: tuple[Column, ...]) -> Table:
    """What each column was taken for: the last chance to see that an age is no emotion."""
    table = Table(title=Text("columns of the table"))
    table.add_column("column")
    table.add_column("taken for")
    for title in ("from", "to", "empty"):
        table.add_column(title, justify="right")
    table.add_column("values")
    for column in columns:
        span = ("" if value is None else f"{value:g}" for value in (column.minimum, column.maximum))
        name, taken_for = Text(column.title or "(no title)"), Text(column.taken_for)
        table.add_row(name, taken_for, *span, str(column.empty or ""), Text(counts_in_words(column.counts)))
    return table
