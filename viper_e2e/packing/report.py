"""packing/report.py: what packing made and what it left out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from viper_e2e.labels import LabelSet


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

    @property
    def exit_code(self) -> int:
        return 2 if self.problems else 0

    def to_json(self) -> dict[str, Any]:
        """The report as plain data."""
        return asdict(self)

    def __rich__(self) -> Group:
        table = Table(title=Text(f"{self.out}: {', '.join(self.labels.names)}"))
        table.add_column("split")
        for title in ("clips", "unlabelled", "subjects", "shards", "MB"):
            table.add_column(title, justify="right")
        for s in self.splits:
            counts = (s.clips, s.unlabelled, s.subjects, s.shards)
            table.add_row(s.split, *map(str, counts), f"{s.bytes / 1e6:.1f}")
        lines = [Text(f"note: {note}") for note in self.notes]
        lines += [Text(f"left out: {problem}", style="red") for problem in self.problems]
        return Group(table, *lines)
