"""drawing.py: parts that all plots share: figures, panels, colours and files, by Matplotlib's Agg; words."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from viper_e2e.errors import ViperError
from viper_e2e.runtime import written_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D1F")
"""Told apart by most colour-blind people (Okabe and Ito 2008), the yellow darkened to be seen on white."""

MARKERS = "osD^vPX*"
LINES = ("-", "--", "-.", ":")
CANNOT_DRAW = (ViperError, OSError, ImportError, ValueError, RuntimeError, MemoryError)
"""Errors of drawing a picture; results are shown without it then."""


def words(name: str) -> str:
    """``empathic_pain`` as people read it."""
    return name.replace("_", " ")


def new_figure(size: tuple[float, float]) -> Figure:
    """An empty figure, width and height in inches, that Matplotlib's Agg draws.

    Built without pyplot: no global state, no display, safe in any thread. ``MPLBACKEND`` names what notebooks
    and remote desktops draw with; where that is not installed, Matplotlib cannot even be imported under it.
    """
    wanted = os.environ.pop("MPLBACKEND", None)
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    finally:
        if wanted is not None:
            os.environ["MPLBACKEND"] = wanted
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def span_of(value: float, limits: tuple[float, float]) -> tuple[float, float]:
    """Begin and end of a value's bar, as shares of its length; it starts at zero, which is always within."""
    ends = sorted(place_of(end, limits) for end in (0.0, value))
    return ends[0], ends[1]


def place_of(value: float, limits: tuple[float, float]) -> float:
    """Place of a value on its bar, as a share of its length; zero is always within."""
    low, high = min(limits[0], 0.0), max(limits[1], 0.0)
    return min(max((value - low) / ((high - low) or 1.0), 0.0), 1.0)


def sheet(
    num_panels: int, *, panel: tuple[float, float], title: str = "", max_columns: int = 4
) -> tuple[Figure, list[Axes]]:
    """A figure with a grid of panels (width, height in inches each); the grid's empty places are hidden."""
    columns = min(max_columns, num_panels)
    rows = math.ceil(num_panels / columns)
    size = (columns * panel[0], rows * panel[1] + (0.4 if title else 0))
    figure = new_figure(size)
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for unused in panels[num_panels:]:
        unused.set_axis_off()
    if title:
        figure.suptitle(title, size=14)
    return figure, panels[:num_panels]


def save(figure: Figure, path: str | os.PathLike) -> Path:
    """Write as PNG (or what else the ending says, such as pdf or svg)."""
    path = Path(path)
    if path.suffix.lstrip(".").lower() not in figure.canvas.get_supported_filetypes():
        raise ViperError(f"{path}: cannot be drawn in this format; end its name in .png")
    with written_whole(path) as partial:
        figure.savefig(partial, dpi=130, facecolor="white")
    return path


def clock(start: float, end: float) -> str:
    """A stretch of a clip as people say it: ``0.8-1.6 s``, ``2:05-2:17``, ``1:02:05-1:02:17``."""
    if end < 60:
        return f"{start:.1f}-{end:.1f} s"
    return "-".join(
        f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
        if end >= 3600
        else f"{seconds // 60}:{seconds % 60:02d}"
        for seconds in (round(start), round(end))
    )
