"""outcome.py: a training among others, and how it has ended."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from viper_e2e.config import Settings
from viper_e2e.report import RunLog


@dataclass(frozen=True)
class Run:
    """A training among others."""

    name: str
    """Name in messages."""
    settings: Settings
    """Settings, with a ``run_dir`` of its own."""


RunT = TypeVar("RunT", bound=Run)


@dataclass(frozen=True)
class Failed:
    """A training that has diverged."""

    why: str


@dataclass(frozen=True)
class Outcome:
    """A training that has ended."""

    settings: Settings
    """Settings as trained; `mixed_precision` is what `auto` resolved to."""
    log: RunLog
    """Its ``metrics.jsonl``, a record for each epoch."""
    was_there: bool
    """Whether it had ended before this command began."""

    @property
    def folder(self) -> Path:
        return Path(self.settings.train.run_dir)

    @property
    def best(self) -> Path:
        """The checkpoint to be used: the best by validation, without validation the last."""
        best = self.folder / "checkpoints" / "best"
        return best if best.is_dir() else best.with_name("last")
