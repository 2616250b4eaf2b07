"""drafts.py: plots that are put together but not drawn, for tests about something else.

Drawing takes ten times as long as all that leads up to it, and longer than training a tiny model.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator
from pathlib import Path

import viper_e2e.report.confusion
import viper_e2e.report.figures
from viper_e2e.report.figures import save as save_drawn

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def save_draft(figure, path) -> Path:
    """`figures.save` with all it checks, but for what a picture shows: a pixel."""
    figure.savefig = lambda file, **_: Path(file).write_bytes(PIXEL)
    return save_drawn(figure, path)


def save_by(save) -> None:
    """From now on plots are saved by this function."""
    viper_e2e.report.figures.save = viper_e2e.report.confusion.save = save


@contextlib.contextmanager
def saved_by(save) -> Iterator[None]:
    before = viper_e2e.report.figures.save
    save_by(save)
    try:
        yield
    finally:
        save_by(before)
