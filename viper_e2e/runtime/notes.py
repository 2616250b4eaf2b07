"""notes.py: shows log lines (another decoder, a backbone from elsewhere) in the terminal."""

from __future__ import annotations

import logging
import sys


class _ToStderr(logging.Handler):
    """Writes to whatever ``sys.stderr`` is when a note comes; of many clips with the same note, the first."""

    def __init__(self) -> None:
        super().__init__()
        self._told: set[tuple[object, ...]] = set()

    def emit(self, record: logging.LogRecord) -> None:
        # Notes begin with whose they are, and go on with what is noted.
        what = (record.msg, *(record.args[1:] if isinstance(record.args, tuple) else ()))
        if what not in self._told:
            self._told.add(what)
            print(self.format(record), file=sys.stderr)


def shown_level() -> int | None:
    """The level from which on notes are shown here; ``None``: not at all."""
    logger = logging.getLogger("viper_e2e")
    return logger.level if any(isinstance(handler, _ToStderr) for handler in logger.handlers) else None


def show_notes(level: int = logging.INFO) -> None:
    """Print the package's own notes and warnings from this level on; commands call it, never an import."""
    logger = logging.getLogger("viper_e2e")
    logger.setLevel(level)
    if any(isinstance(handler, _ToStderr) for handler in logger.handlers):
        return
    handler = _ToStderr()
    handler.setFormatter(logging.Formatter("note: %(message)s"))
    logger.addHandler(handler)
