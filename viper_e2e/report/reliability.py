"""reliability.py: plots of calibration: predicted against observed, and scores against confidence."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from viper_e2e.report.drawing import COLOURS, save, sheet, words
from viper_e2e.runtime import count_of
from viper_e2e.scoring import Bin, Reliability, Selective, TaskReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes

AXES = {
    "class": ("probability of the winning class", "share that is right"),
    "labels": ("probability that a label holds", "share that holds"),
    "number": ("predicted", "mean of the labels"),
    "intensities": ("predicted", "mean of the labels"),
}
"""Titles by kind of task."""
LARGEST_POINT = 160.0


def calibration_plot(reports: Sequence[TaskReport], path: str | os.PathLike) -> Path:
    """A panel per task: before and after calibrating, on clips that the calibration was not fitted on."""
    figure, panels = sheet(len(reports), panel=(5.0, 5.0), title="Before and after calibrating", max_columns=3)
    for panel, report in zip(panels, reports, strict=True):
        kind = report.task.kind
        ends = (0.0, 1.0) if kind in ("class", "labels") else (report.task.minimum, report.task.maximum)
        _frame(panel, kind, ends)
        for bins, before in ((report.bins_before, True), (report.bins_after, False)):
            _points(panel, bins, "before" if before else "after", before=before)
        name = next(iter(report.before))
        values = f"{report.before[name][0]:.3f} → {report.after[name][0]:.3f}"
        panel.set_title(f"{words(report.task.name)}   {name.upper()} {values}", size=12, parse_math=False)
        panel.legend(frameon=False, loc="upper left")
    return save(figure, path)


def reliability_plot(found: Reliability, kind: str, name: str, path: str | os.PathLike) -> Path:
    """Predicted probabilities against observed shares, in bins; the larger a point, the more clips."""
    figure, (panel,) = sheet(1, panel=(5.2, 5.2))
    _frame(panel, kind, (0.0, 1.0))
    _points(panel, found.bins, "", before=False)
    panel.set_title(
        f"{words(name)}   ECE {found.ece:.3f}, {count_of(found.num_clips, 'clip')}", size=12, parse_math=False
    )
    return save(figure, path)


def selective_plot(found: Selective, labels: Mapping[str, str], name: str, path: str | os.PathLike) -> Path:
    """Scores of the share of clips that a model is most confident of, from few of them to all."""
    figure, (panel,) = sheet(1, panel=(6.4, 4.4))
    first = min(max(10, len(found.kept) // 50), len(found.kept))  # of a handful of clips a score says nothing
    for index, (measure, values) in enumerate(found.scores.items()):
        style: dict[str, Any] = {"color": COLOURS[index], "linestyle": ("-", "--")[index % 2], "lw": 2}
        panel.plot(found.kept[first - 1 :], values[first - 1 :], label=labels[measure], **style)
    panel.set(xlim=(0, 1), xlabel="share of clips kept, the most confident first", ylabel="score on these")
    panel.set_ylim(top=1.02)
    panel.set_title(f"{words(name)}: score against confidence", size=12, parse_math=False)
    panel.grid(alpha=0.25)
    panel.legend(frameon=False, loc="best")
    return save(figure, path)


def _frame(panel: Axes, kind: str, ends: tuple[float, float]) -> None:
    margin = 0.03 * (ends[1] - ends[0])
    limits = (ends[0] - margin, ends[1] + margin)
    panel.plot(ends, ends, color="#888888", lw=1, ls="--", zorder=1)
    said, share = AXES[kind]
    panel.set(xlim=limits, ylim=limits, aspect="equal", xlabel=said, ylabel=share)
    panel.grid(alpha=0.25)


def _points(panel: Axes, bins: Sequence[Bin], label: str, *, before: bool) -> None:
    most = max((one.count for one in bins), default=1)
    said, share = [one.said for one in bins], [one.found for one in bins]
    colour, marker = (COLOURS[1], "D") if before else (COLOURS[0], "o")
    panel.plot(
        said, share, color=colour, lw=1.2, ls=":" if before else "-", marker=marker, ms=3, label=label, zorder=2
    )
    sizes = [12 + LARGEST_POINT * one.count / most for one in bins]
    panel.scatter(said, share, s=sizes, color=colour, alpha=0.35, lw=0, marker=marker, zorder=3)
