"""fold_report.py: a cross-validation as tables for the terminal and as a plot."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from viper_e2e.report import drawing, tables
from viper_e2e.report.tables import plain_table, rounded, task_title, with_interval
from viper_e2e.runtime import count_of
from viper_e2e.scoring import FoldScores, Spread, main_measure, over_seeds
from viper_e2e.tasks import measure_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANEL_INCHES = 4.6
LETTER_INCHES, SLANTED_INCHES = 0.09, 0.18
"""The width of a letter below a plot, and how far apart slanted names stand that do not touch."""


def fold_tables(scores: Mapping[str, FoldScores]) -> list[Table]:
    """Each task's measures, of all clips and over folds, then each fold's."""
    made = []
    for one in scores.values():
        whole = plain_table(
            f"{task_title(one.pooled.task)}, {count_of(one.pooled.num_clips, 'clip')} in "
            f"{count_of(len(one.by_fold), 'fold')}",
            ("measure", "all clips", "mean ± sd over folds"),
        )
        for measure in one.measures:
            pooled = with_interval(one.pooled.values[measure], one.pooled.intervals.get(measure))
            whole.add_row(measure_title(measure), pooled, spread(one.over_folds(measure)))
        made += [whole, _each(one)]
    return made


def fold_seed_tables(by_seed: Mapping[int, Mapping[str, FoldScores]]) -> list[Table]:
    """Each task's measures of all clips, over seeds."""
    made = []
    for name, first in next(iter(by_seed.values())).items():
        whole = plain_table(
            f"{task_title(first.pooled.task)}, all clips, {count_of(len(by_seed), 'seed')}",
            ("measure", "mean ± sd over seeds", "each"),
        )
        for measure, over in over_seeds([scores[name] for scores in by_seed.values()]).items():
            each = " ".join("–" if value is None else rounded(value) for value in over.values)
            whole.add_row(measure_title(measure), spread(over), each)
        made.append(whole)
    return made


def _each(scores: FoldScores) -> Table:
    measures = list(scores.measures)[:3]
    each = plain_table("", ("fold", *(measure_title(measure) for measure in measures), "clips"))
    for fold, one in scores.by_fold.items():
        each.add_row(
            fold, *(with_interval(one.values[measure], None) for measure in measures), f"{one.num_clips:,}"
        )
    return each


def spread(over: Spread) -> str:
    """``0.612 ± 0.034``."""
    if over.mean is None:
        return "–"
    return rounded(over.mean) if over.deviation is None else f"{rounded(over.mean)} ± {rounded(over.deviation)}"


def fold_plot(scores: Mapping[str, FoldScores], path: str | os.PathLike) -> Path:
    """Each task's main measure: a point per fold, mean and deviation, and all clips with their interval."""
    shown = list(scores.items())
    figure, panels = drawing.sheet(len(shown), panel=(PANEL_INCHES, 3.4), max_columns=3)
    for panel, (name, one) in zip(panels, shown, strict=True):
        measure = main_measure(one.pooled.task)
        folds = list(one.by_fold)
        values = [one.by_fold[fold].values[measure] for fold in folds]
        panel.scatter(range(len(folds)), values, color=drawing.COLOURS[0], zorder=3)
        mean, deviation = one.over_folds(measure).mean, one.over_folds(measure).deviation
        if mean is not None:
            panel.axhline(mean, color="#777777", lw=1, ls="--", label="mean over folds")
            if deviation is not None:
                panel.axhspan(mean - deviation, mean + deviation, color="#777777", alpha=0.15, lw=0)
        pooled, interval = one.pooled.values[measure], one.pooled.intervals.get(measure)
        bars = (
            None
            if interval is None
            else [[max(pooled - interval.low, 0.0)], [max(interval.high - pooled, 0.0)]]
        )
        panel.errorbar([len(folds)], [pooled], yerr=bars, fmt="s", color=drawing.COLOURS[1], capsize=3)
        _name_folds(panel, [*folds, "all"])
        over = tables.over_in_words(one.pooled.over, one.pooled.caution)
        told = f"; all: 95 % over {over}" if interval is not None else ""
        panel.set_xlabel(f"fold{told}", size=8 if told else None)
        panel.set(ylabel=measure_title(measure), title=drawing.words(name))
        panel.grid(axis="y", alpha=0.25)
    return drawing.save(figure, path)


def _name_folds(panel: Axes, names: Sequence[str]) -> None:
    """Below their points: slanted where they would run together, and of very many every second, third, …"""
    room = (PANEL_INCHES - 0.7) / len(names)
    if max(map(len, names)) * LETTER_INCHES + 0.05 <= room:
        panel.set_xticks(range(len(names)), names)
        return
    step, last = math.ceil(SLANTED_INCHES / room), len(names) - 1
    places = [*range(0, last - step + 1, step), last]
    labels = [names[place] for place in places]
    panel.set_xticks(places, labels, rotation=60, ha="right", rotation_mode="anchor")
