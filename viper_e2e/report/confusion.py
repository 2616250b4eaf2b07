"""confusion.py: confusion matrices of intensities in ten bins and of the dominant emotion, as CSV and PNG."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64, Int64

from viper_e2e.errors import ViperError
from viper_e2e.labels import LabelSet
from viper_e2e.model import Predictions
from viper_e2e.report.drawing import save, sheet, words
from viper_e2e.runtime import count_of, written_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NUM_BINS = 10
"""Number of bins; each is a tenth of the label range, 0.1 for intensities in [0, 1]."""


@dataclass(frozen=True)
class Confusion:
    """Counts of clips by true class (row) and predicted class (column)."""

    name: str
    classes: tuple[str, ...]
    counts: Int64[np.ndarray, "C C"]
    clamped: dict[str, int]
    """Values outside the label range, counted in the outermost bins; empty for classes without a range."""

    @property
    def shares(self) -> Float64[np.ndarray, "C C"]:
        """Counts divided by their row's sum; NaN in a row without clips."""
        sums = self.counts.sum(1, keepdims=True)
        return np.where(sums > 0, self.counts / np.maximum(sums, 1), np.nan)


def intensity_confusions(predictions: Predictions) -> list[Confusion]:
    """One 10 × 10 matrix per emotion, bins of true against bins of predicted intensity.

    A bin holds its lower edge, the last one also its upper. Source: ``confusion_matrix.py`` of the published
    ViPER pipeline (Vaiani et al. 2022), which drops nothing and normalises rows.
    """
    labels, scored = predictions.labels, predictions.scored
    edges = np.linspace(labels.minimum, labels.maximum, NUM_BINS + 1)
    classes = tuple(f"{low:g}–{high:g}" for low, high in zip(edges.round(4), edges[1:].round(4), strict=False))
    made = []
    for column, name in enumerate(labels.names):
        true, predicted = predictions.true[scored, column], predictions.predicted[scored, column]
        clamped = {
            f"{what}_{side}": int(count)
            for what, values in (("true", true), ("predicted", predicted))
            for side, count in (
                ("below", (values < labels.minimum).sum()),
                ("above", (values > labels.maximum).sum()),
            )
        }
        counts = _count(bins(true, labels), bins(predicted, labels), NUM_BINS)
        made.append(Confusion(name, classes, counts, clamped))
    return made


def dominant_confusion(predictions: Predictions, name: str = "dominant") -> Confusion:
    """The emotion with the highest true intensity against the highest predicted; of equals the first.

    Of a class: the one that is true against the most probable.
    """
    scored, names = predictions.scored, predictions.labels.names
    true, predicted = predictions.true[scored].argmax(1), predictions.predicted[scored].argmax(1)
    return Confusion(name, tuple(map(words, names)), _count(true, predicted, len(names)), {})


def has_dominant(labels: LabelSet) -> bool:
    """Whether one of the labels can be said to dominate: intensities in [0, 1] of several emotions."""
    return labels.in_unit_interval and len(labels) > 1


def bins(values: Float64[np.ndarray, "N"], labels: LabelSet) -> Int64[np.ndarray, "N"]:
    """Number of the bin, 0 to 9, that a value falls into; values outside the range in the outermost."""
    tenths = (values - labels.minimum) / (labels.maximum - labels.minimum) * NUM_BINS
    # 0.3 is stored as 0.299…: a value at an edge, to seven digits, belongs to the bin that starts there.
    return np.floor(tenths + 1e-6).clip(0, NUM_BINS - 1).astype(np.int64)


def class_confusion(predictions: Predictions, task: str, folder: Path) -> list[Path]:
    """Draw and write ``confusion_TASK.png`` and ``.csv`` of a class alone; see `Predictions.by_task`."""
    confusion = dominant_confusion(predictions, task)
    picture, table = folder / f"confusion_{task}.png", folder / f"confusion_{task}.csv"
    draw_dominant(confusion, picture, words(task))
    _write_csv(confusion, table)
    return [picture, table]


def confusion_matrices(predictions: Predictions, folder: str | os.PathLike, suffix: str = "") -> list[Path]:
    """Draw and write all matrices of a set into ``folder``; returns the files, the pictures first.

    ``confusion.png`` (a panel per emotion), ``confusion_dominant.png`` where labels are intensities of several
    emotions (of valence and arousal neither can dominate), and per matrix ``confusion_<name>.csv``
    with shares of each true row and its number of clips; ``confusion_clamped.csv`` counts what lay outside.
    ``suffix``: added to the names of files that have no emotion's.
    Raises :class:`ViperError` if no clip has both a label and a prediction.
    """
    if not predictions.scored.any():
        raise ViperError(
            "confusion matrices: no clip has both a label and a prediction; score a labelled split"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    intensities = intensity_confusions(predictions)
    dominant = [dominant_confusion(predictions)] if has_dominant(predictions.labels) else []
    files = [folder / f"confusion{suffix}.png"]
    draw_intensities(intensities, int(predictions.scored.sum()), files[0])
    for confusion in dominant:
        files.append(folder / f"confusion_dominant{suffix}.png")
        draw_dominant(confusion, files[-1])
    for confusion in (*intensities, *dominant):
        files.append(folder / f"confusion_{confusion.name}.csv")
        _write_csv(confusion, files[-1])
    files.append(folder / f"confusion_clamped{suffix}.csv")
    clamped = [[confusion.name, *confusion.clamped.values()] for confusion in intensities]
    _write_rows(files[-1], [["emotion", *intensities[0].clamped], *clamped])
    return files


def _count(true: np.ndarray, predicted: np.ndarray, size: int) -> Int64[np.ndarray, "C C"]:
    return np.bincount(true * size + predicted, minlength=size * size).reshape(size, size).astype(np.int64)


def _write_csv(confusion: Confusion, path: Path) -> None:
    rows: list[list[object]] = [["true \\ predicted", *confusion.classes, "clips"]]
    for name, shares, counts in zip(confusion.classes, confusion.shares, confusion.counts, strict=True):
        cells = ["" if np.isnan(share) else f"{share:.6g}" for share in shares]
        rows.append([name, *cells, int(counts.sum())])
    _write_rows(path, rows)


def _write_rows(path: Path, rows: Iterable[Sequence[object]]) -> None:
    with written_whole(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def draw_intensities(confusions: list[Confusion], num_clips: int, path: Path) -> None:
    """A panel per emotion into one picture."""
    figure, panels = sheet(
        len(confusions), panel=(4.1, 4.2), title=f"True against predicted, {count_of(num_clips, 'clip')}"
    )
    for panel, confusion in zip(panels, confusions, strict=True):
        _draw(panel, confusion, text_size=7)
        outside = sum(confusion.clamped.values())
        panel.set_title(words(confusion.name) + (f"  ({outside:,} values clamped)" if outside else ""), size=12)
    save(figure, path)


def draw_dominant(confusion: Confusion, path: Path, what: str = "dominant emotion") -> None:
    """Draw a confusion matrix of the largest label of each clip."""
    total = int(confusion.counts.sum())
    title = (
        f"{what[0].upper()}{what[1:]}, {count_of(int(total), 'clip')}, "
        f"{np.trace(confusion.counts) / total:.0%} right"
    )
    side = 3.2 + 0.55 * len(confusion.classes)
    figure, (panel,) = sheet(1, panel=(side + 1, side), title=title)
    _draw(panel, confusion, text_size=10)
    save(figure, path)


def _draw(panel: Axes, confusion: Confusion, *, text_size: int) -> None:
    """Cells hold percent of their row; a row without clips is hatched."""
    shares, size = confusion.shares, len(confusion.classes)
    panel.imshow(np.nan_to_num(shares), cmap="Blues", vmin=0, vmax=1)
    for row in range(size):
        if np.isnan(shares[row]).any():
            panel.axhspan(row - 0.5, row + 0.5, facecolor="#eeeeee", edgecolor="#b0b0b0", hatch="///", lw=0)
            box = {"facecolor": "#eeeeee", "edgecolor": "none", "pad": 1}
            middle = (size - 1) / 2
            panel.text(
                middle, row, "no clips", ha="center", va="center", size=text_size, color="#555555", bbox=box
            )
            continue
        for column in range(size):
            share = shares[row, column]
            colour = "white" if share > 0.55 else "black"
            label = f"{100 * share:.0f}" if share > 0 else ""
            panel.text(column, row, label, ha="center", va="center", size=text_size, color=colour)
    sums = confusion.counts.sum(1)
    panel.set_xticks(range(size), confusion.classes, rotation=45, ha="right", rotation_mode="anchor")
    panel.set_yticks(range(size), [f"{name}  ({n:,})" for name, n in zip(confusion.classes, sums, strict=True)])
    panel.tick_params(labelsize=max(text_size, 8), length=0)
    panel.set_xlabel("predicted")
    panel.set_ylabel("true (clips); cells: % of row")
