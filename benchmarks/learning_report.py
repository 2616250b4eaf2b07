"""learning_report.py: the table and the plot of `learning.py`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from learning_variants import ALL, VARIANTS

from viper_e2e.runtime import console, table


def told(rows: Sequence[Mapping[str, Any]]) -> str:
    """Mean over seeds, and the interval over subjects of the first."""
    if not rows:
        return "–"
    low, high = rows[0]["interval"]
    return f"{fmean(row['mean_pearson'] for row in rows):.3f} [{low:.2f}, {high:.2f}]"


def print_table(options: argparse.Namespace, results: Mapping[str, Mapping[str, Any]]) -> None:
    lines = []
    for key, variant in ALL.items():
        by_size = [rows_of(results, key, n) for n in options.clips]
        if any(by_size):
            last = next(rows[0] for rows in reversed(by_size) if rows)
            lines.append(
                (variant.name, *map(told, by_size), f"{last['parameters']:,}", f"{last['seconds']:.0f}")
            )
    titles = ("reads the same frozen tokens", *(f"{n} clips" for n in options.clips), "parameters", "seconds")
    console.print(table("mean Pearson on unseen subjects", titles, lines))


def rows_of(results: Mapping[str, Mapping[str, Any]], key: str, num_clips: int) -> list[Mapping[str, Any]]:
    return [row for name, row in sorted(results.items()) if name.rsplit("/", 1)[0] == f"{key}/{num_clips}"]


def draw(options: argparse.Namespace, results: Mapping[str, Mapping[str, Any]]) -> None:
    """Score against number of clips."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    for key, style in (("default", "o-"), ("ridge", "s--"), ("perceiver", "^-"), ("before", "v:")):
        points = [(n, rows) for n in options.clips if (rows := rows_of(results, key, n))]
        if not points:
            continue
        means = [fmean(row["mean_pearson"] for row in rows) for _, rows in points]
        axes.plot([n for n, _ in points], means, style, label=VARIANTS[key].name.removeprefix("… "))
    axes.set(xscale="log", xlabel="training clips", ylabel="mean Pearson, unseen subjects")
    axes.set_xticks(options.clips, [str(n) for n in options.clips])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(options.plot, metadata={"Date": None})
