"""drafts.py: plots that are files but not drawn, for tests about something else.

To put a plot together and to draw it takes longer than to train a tiny model.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator
from pathlib import Path

from viper_e2e.report import confusion, drawing, figures

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PLOTS = {
    figures: (
        "training_curves",
        "predicted_against_true",
        "error_against_faces",
        "ablation_plot",
        "windows_plot",
    ),
    confusion: ("draw_intensities", "draw_dominant"),
}
DRAWN = {(module, name): getattr(module, name) for module, names in PLOTS.items() for name in names}


def draft(*given, **_) -> Path:
    """A pixel in place of any of the plots; what stands in the way of a file stands in its way, too."""
    figure = drawing.new_figure((1.0, 1.0))
    figure.savefig = lambda file, **_: Path(file).write_bytes(PIXEL)
    return drawing.save(figure, next((one for one in given if isinstance(one, Path)), given[-1]))


def draw_drafts() -> None:
    """From now on, in this process."""
    for module, name in DRAWN:
        setattr(module, name, draft)


@contextlib.contextmanager
def drawn() -> Iterator[None]:
    """Meanwhile plots are drawn."""
    before = {(module, name): getattr(module, name) for module, name in DRAWN}
    for (module, name), function in DRAWN.items():
        setattr(module, name, function)
    try:
        yield
    finally:
        for (module, name), function in before.items():
            setattr(module, name, function)
