"""notes.py: what the package notes in passing (another decoder, a backbone from elsewhere) reaches people."""

from __future__ import annotations

import logging
import sys
from typing import TextIO


class _ToStderr(logging.StreamHandler):
    """Writes to whatever ``sys.stderr`` is when a note comes, and each note once."""

    def __init__(self) -> None:
        super().__init__()
        self._told: set[str] = set()

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    @stream.setter
    def stream(self, _: object) -> None:
        pass

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        if text not in self._told:
            self._told.add(text)
            super().emit(record)


def show_notes(level: int = logging.INFO) -> None:
    """Print the package's own notes and warnings from this level on; commands call it, never an import."""
    logger = logging.getLogger("viper_e2e")
    logger.setLevel(level)
    if any(isinstance(handler, _ToStderr) for handler in logger.handlers):
        return
    handler = _ToStderr()
    handler.setFormatter(logging.Formatter("note: %(message)s"))
    logger.addHandler(handler)
