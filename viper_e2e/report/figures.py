"""figures.py: plots of a run, an evaluation and a clip, as PNG."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from viper_e2e.decoding import merge_spans
from viper_e2e.errors import ViperError
from viper_e2e.model import Predictions, Record
from viper_e2e.report.drawing import COLOURS, LINES, MARKERS, new_figure, save, sheet, words
from viper_e2e.report.run_log import RunLog, ScoreRecord
from viper_e2e.report.tables import over_in_words
from viper_e2e.runtime import count_of
from viper_e2e.scoring import MAIN_MEASURE
from viper_e2e.tasks import measure_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# --- training -------------------------------------------------------------------------------------


MEANS = ("mean squared error", "mean over emotions", "Pearson per emotion")
"""Panels of intensities alone."""


def training_curves(log: RunLog, path: str | os.PathLike) -> Path:
    """Over epochs: the training loss, and of the validation the main measure of each task; of intensities alone
    the MSE, the mean Pearson and CCC, and Pearson per emotion.

    Losses have a panel of their own: one of several terms is on no scale with an error. The yardstick is drawn
    as levels.
    """
    if not log.epochs:
        raise ViperError("training curves: no epoch is complete yet; nothing to plot")
    epochs, val = [one.epoch.epoch + 1 for one in log.validated], [one.scores for one in log.validated]
    ridge = log.yardstick.scores if log.yardstick is not None else None
    kinds = [one["kind"] for one in val[0].tasks.values()] if val else []
    titles = ["; dotted: a ridge on the same tokens (yardstick)"]
    if kinds == ["intensities"]:
        titles = [f", {name}" for name in MEANS]
    titles = ["training loss", *(f"validation{title}" for title in titles if val)]
    figure, panels = sheet(len(titles), panel=(5.6, 3.9), max_columns=2)
    numbers = [record.epoch + 1 for record in log.epochs]  # people count from one
    _curve(panels[0], numbers, [record.train_loss for record in log.epochs], "training loss", 0)
    for panel, title in zip(panels, titles, strict=True):
        panel.set_title(title)
        panel.set_xlabel("epoch")
        panel.set_xlim(numbers[0] - 0.5, numbers[-1] + 0.5)
        panel.locator_params(axis="x", integer=True, min_n_ticks=1)
        panel.grid(alpha=0.25)
    if kinds == ["intensities"]:
        _means(panels[1:], epochs, val, ridge)
    elif val:
        _main_measures(panels[1], epochs, val, ridge)
    return save(figure, path)


def _means(
    panels: Sequence[Axes], epochs: Sequence[int], val: Sequence[ScoreRecord], ridge: ScoreRecord | None
) -> None:
    """`MEANS` over epochs, and the yardstick as a level."""
    errors, means, each = panels
    _curve(errors, epochs, [scores.mean("mse") for scores in val], "MSE", 1)
    _curve(means, epochs, [scores.mean("pearson") for scores in val], "Pearson", 0)
    _curve(means, epochs, [scores.mean("ccc") for scores in val], "CCC", 1)
    if ridge is not None and (level := ridge.mean("pearson")) is not None:
        label = "yardstick: Pearson of a ridge on the same tokens"
        means.axhline(level, color="0.4", linestyle=":", label=label)
    means.legend(frameon=False)
    for index, name in enumerate(val[0].scores["pearson"]):
        _curve(each, epochs, [one.scores["pearson"][name] for one in val], words(name), index)
    each.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))


def _main_measures(
    panel: Axes, epochs: Sequence[int], val: Sequence[ScoreRecord], ridge: ScoreRecord | None
) -> None:
    """The main measure of each task over epochs, and its yardstick as a level in the same colour."""
    kinds = {name: one["kind"] for name, one in val[0].tasks.items()}
    mains = {name: MAIN_MEASURE[kind] for name, kind in kinds.items() if kind in MAIN_MEASURE}
    for index, (task, main) in enumerate(mains.items()):
        values = [scores.tasks.get(task, {}).get(main) for scores in val]
        _curve(panel, epochs, values, f"{words(task)}, {measure_title(main)}", index)
        level = ridge.tasks.get(task, {}).get(main) if ridge is not None else None
        if level is not None:
            panel.axhline(level, color=_style(index)["color"], linestyle=":")
    panel.legend(frameon=False)


def _curve(
    panel: Axes, x: Sequence[float | int], y: Sequence[float | int | None], label: str, index: int
) -> None:
    values = [math.nan if value is None else value for value in y]
    panel.plot(x, values, label=label, **_style(index), markersize=4 if len(x) < 40 else 0)


def _style(index: int) -> dict[str, Any]:
    """Colour and marker, and from the ninth line on another dash too."""
    size = len(COLOURS)
    return {
        "color": COLOURS[index % size],
        "marker": MARKERS[index % size],
        "linestyle": LINES[index // size % len(LINES)],
    }


# --- evaluation -----------------------------------------------------------------------------------


def predicted_against_true(predictions: Predictions, path: str | os.PathLike) -> Path:
    """A panel per emotion: every labelled clip as a point, the line where both are equal, and Pearson's r."""
    scored = _scored(predictions)
    true, predicted = predictions.true[scored], predictions.predicted[scored]
    labels = predictions.labels
    low = min(labels.minimum, float(predicted.min()))
    high = max(labels.maximum, float(predicted.max()))
    margin = 0.04 * (high - low)
    title = f"Predicted against true, {count_of(len(true), 'clip')}"
    figure, panels = sheet(len(labels), panel=(3.5, 3.7), title=title)
    from matplotlib.ticker import MaxNLocator  # after `new_figure`, which knows how to import Matplotlib

    for column, (panel, name) in enumerate(zip(panels, labels.names, strict=True)):
        panel.plot([low, high], [low, high], color="#888888", lw=1, ls="--", zorder=1)
        alpha = max(0.08, min(0.6, 120 / len(true)))
        panel.scatter(
            true[:, column], predicted[:, column], s=12, alpha=alpha, color=COLOURS[0], lw=0, zorder=2
        )
        panel.set_title(f"{words(name)}   r = {_pearson(true[:, column], predicted[:, column])}", size=12)
        panel.set(xlim=(low - margin, high + margin), ylim=(low - margin, high + margin), aspect="equal")
        panel.set(xlabel="true", ylabel="predicted")
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        panel.grid(alpha=0.25)
    return save(figure, path)


def error_against_faces(predictions: Predictions, path: str | os.PathLike) -> Path:
    """Each clip's mean absolute error over emotions against its share of frames with a face, and the mean
    error in five ranges of that share, with the number of clips in each."""
    scored = _scored(predictions)
    share = predictions.face_share[scored]
    # Labels that are missing say nothing of a clip's error.
    error = np.nanmean(np.abs(predictions.predicted - predictions.true)[scored], axis=1)
    figure, (panel,) = sheet(1, panel=(8.0, 4.6), title="Error against visible faces")
    spread = np.random.default_rng(0).uniform(-0.012, 0.012, len(share))  # many clips share 0 and 1 exactly
    panel.scatter(share + spread, error, s=14, alpha=0.35, color=COLOURS[0], lw=0, label="a clip")
    groups = [("none", share == 0)]
    groups += [
        (f"{25 * i}–{25 * (i + 1)} %", (share > i / 4) & (share <= (i + 1) / 4) & (share > 0)) for i in range(4)
    ]
    centres = (0.0, 0.125, 0.375, 0.625, 0.875)
    means = [float(error[inside].mean()) if inside.any() else math.nan for _, inside in groups]
    panel.plot(centres, means, color=COLOURS[1], marker="D", lw=2, label="mean of a range")
    ticks = [f"{name}\n{count_of(int(inside.sum()), 'clip')}" for name, inside in groups]
    panel.set_xticks(centres, ticks)
    panel.set(xlim=(-0.06, 1.06), ylabel="mean absolute error", xlabel="frames with a face")
    panel.set_ylim(bottom=0)
    panel.grid(axis="y", alpha=0.25)
    panel.legend(frameon=False, loc="upper right", bbox_to_anchor=(1, 1.12), ncols=2)
    return save(figure, path)


def _scored(predictions: Predictions) -> np.ndarray:
    scored = predictions.scored
    if not scored.any():
        raise ViperError(
            "plots of predictions: no clip has both a label and a prediction; score a labelled split"
        )
    return scored


def _pearson(x: np.ndarray, y: np.ndarray) -> str:
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return "–"
    return f"{np.corrcoef(x, y)[0, 1]:.2f}"


# --- ablation -------------------------------------------------------------------------------------


def ablation_plot(rows: Sequence[Mapping[str, Any]], path: str | os.PathLike) -> Path:
    """Subsets of modalities, the first on top: which are in (left), their score with interval (right).

    ``rows``: ``modalities`` (names), ``score``, ``measure`` (its name), ``low`` and ``high`` (None: unknown),
    ``intervals_over``, ``intervals_caution``.
    """
    rows = rows[::-1]
    modalities = max((list(row["modalities"]) for row in rows), key=len)
    modalities += sorted({m for row in rows for m in row["modalities"]} - set(modalities))
    figure = new_figure((7.5 + 0.5 * len(modalities), 1.6 + 0.34 * len(rows)))
    widths = {"width_ratios": [0.45 * len(modalities), 5]}
    left, right = figure.subplots(1, 2, sharey=True, gridspec_kw=widths)
    for y, row in enumerate(rows):
        inside = [modality in row["modalities"] for modality in modalities]
        left.scatter(range(len(modalities)), [y] * len(modalities), s=60, color="#dddddd")
        chosen = [x for x, there in enumerate(inside) if there]
        left.plot(chosen, [y] * len(chosen), color=COLOURS[0], marker="o", ms=8, lw=2)
        value, is_known = row["score"], row["low"] is not None
        spread = [[value - row["low"]], [row["high"] - value]] if is_known else None
        right.errorbar(value, y, xerr=spread, fmt="o", color=COLOURS[0], ecolor="#777777", capsize=3)
        end = row["high"] if is_known else value
        right.annotate(f"{value:.3f}", (end, y), (6, 0), textcoords="offset points", va="center", size=9)
    left.set_xticks(range(len(modalities)), [words(m) for m in modalities], rotation=40, ha="right")
    left.set(yticks=[], xlim=(-0.5, len(modalities) - 0.5), ylim=(-0.7, len(rows) - 0.3))
    left.tick_params(length=0)
    for side in left.spines.values():
        side.set_visible(False)
    if min(row["score"] if row["low"] is None else row["low"] for row in rows) < 0:
        right.axvline(0, color="#888888", lw=1, ls="--")
    right.set(xlabel=rows[0]["measure"] + intervals_in_words(rows))
    right.margins(x=0.12)
    right.grid(axis="x", alpha=0.25)
    return save(figure, path)


def intervals_in_words(rows: Sequence[Mapping[str, Any]]) -> str:
    """``, 95 % intervals over subjects``; empty where no row has any."""
    # Rows of a run that an earlier version began do not say it.
    known = [
        over_in_words(row.get("intervals_over") or "", row.get("intervals_caution"))
        for row in rows
        if row.get("low") is not None
    ]
    over = " and ".join(sorted({what for what in known if what}, reverse=True))
    return (", 95 % intervals" + f" over {over}" * bool(over)) * bool(known)


# --- windows of one clip --------------------------------------------------------------------------


def windows_plot(records: Sequence[Record], path: str | os.PathLike) -> Path:
    """Intensities over a clip's time, a line per emotion, a point in the middle of every window.

    ``records``: those of the windows, with ``window_seconds`` (start, end); a record without, such as the
    mean, is left out, and a window that could not be scored leaves a gap.
    """
    windows = [record for record in records if record.get("window_seconds")]
    scored = [record for record in windows if record["valid"] and None not in record["intensities"].values()]
    if not scored:
        raise ViperError(f"{path}: no window has been scored; nothing to plot")
    spans = [record["window_seconds"] for record in windows]
    figure, (panel,) = sheet(1, panel=(10.0, 4.6))
    for index, name in enumerate(scored[0]["intensities"]):
        values = [record["intensities"][name] if record["valid"] else None for record in windows]
        _curve(panel, [(start + end) / 2 for start, end in spans], values, words(name), index)
    faceless = [(r["start_seconds"], r["end_seconds"]) for r in scored if r.get("face_found") == 0]
    for number, (start, end) in enumerate(merge_spans(faceless)):
        panel.axvspan(start, end, color="#888888", alpha=0.18, lw=0, label="" if number else "no face")
    # A file's name may hold dollar signs, which are no formula here.
    panel.set_title(Path(windows[0]["clip"]).name, parse_math=False)
    panel.set_ylabel("intensity")
    drawn = [v for record in scored for v in record["intensities"].values() if v is not None]
    if min(drawn, default=0) >= 0 and max(drawn, default=1) <= 1:
        panel.set_ylim(-0.02, 1.02)
    _time_axis(panel, spans[0][0], max(end for _, end in spans))
    panel.grid(alpha=0.25)
    panel.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return save(figure, path)


def _time_axis(panel: Axes, start: float | int, end: float | int) -> None:
    """Seconds for short clips; for longer ones minutes and seconds, with marks at round times."""
    panel.set_xlim(start, end)
    if end < 120:
        panel.set_xlabel("time in seconds")
        return
    step = next((s for s in (15, 30, 60, 120, 300, 600, 1800) if (end - start) / s <= 10), 3600)
    panel.set_xticks(np.arange(math.ceil(start / step) * step, end + 1, step))
    panel.xaxis.set_major_formatter(lambda seconds, _: f"{int(seconds) // 60}:{int(seconds) % 60:02d}")
    panel.set_xlabel("time (minutes:seconds)")
