"""corpus_figures.py: curves of a run on several corpora: a panel for each task, a line for each corpus."""

from __future__ import annotations

import math
import os
from pathlib import Path

from viper_e2e.report.drawing import COLOURS, LINES, MARKERS, save, sheet, words
from viper_e2e.report.run_log import EpochRecord, RunLog
from viper_e2e.scoring import MAIN_MEASURE

TRAINING, VALIDATION = "training", "validation"


def are_there(log: RunLog) -> bool:
    """Whether a run tells corpora apart."""
    return any(map(_panels_of, log.epochs))


def curves_by_corpus(log: RunLog, path: str | os.PathLike) -> Path:
    """Over epochs, of each task: the error of training clips, and the main measure of validation clips."""
    by_epoch = [(record.epoch + 1, _panels_of(record)) for record in log.epochs]
    titles = list(dict.fromkeys(title for _, panels in by_epoch for title in panels))
    corpora = list(dict.fromkeys(name for _, panels in by_epoch for own in panels.values() for name in own))
    figure, panels = sheet(len(titles), panel=(5.0, 3.6), max_columns=3)
    for panel, title in zip(panels, titles, strict=True):
        for place, corpus in enumerate(corpora):
            values = [found.get(title, {}).get(corpus) for _, found in by_epoch]
            if any(value is not None for value in values):
                panel.plot(
                    [epoch for epoch, _ in by_epoch],
                    [math.nan if value is None else value for value in values],
                    label=corpus,
                    color=COLOURS[place % len(COLOURS)],
                    marker=MARKERS[place % len(MARKERS)],
                    linestyle=LINES[place // len(COLOURS) % len(LINES)],
                )
        panel.set_title(words(title))
        panel.set_xlabel("epoch")
        panel.locator_params(axis="x", integer=True, min_n_ticks=1)
        panel.grid(alpha=0.25)
        if panel.lines:
            panel.legend(frameon=False)
    return save(figure, path)


def _panels_of(record: EpochRecord) -> dict[str, dict[str, float | None]]:
    """Title of a panel → corpus → value, training first."""
    found: dict[str, dict[str, float | None]] = {}
    for corpus, tasks in record.train.items():
        for task, own in tasks.items():
            measure = next(name for name in own if name != "num_clips")
            found.setdefault(f"{task}: {TRAINING}, {measure}", {})[corpus] = own[measure]
    for corpus, tasks in record.val.corpora.items() if record.val is not None else ():
        for task, own in tasks.items():
            measure = MAIN_MEASURE[own["kind"]]
            found.setdefault(f"{task}: {VALIDATION}, {measure}", {})[corpus] = own[measure]
    return found
