"""parallel.py: trials of a sweep as lines across one axis for each setting, coloured by their scores."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any, NamedTuple

from viper_e2e.report.drawing import new_figure
from viper_e2e.runtime import count_of, written_whole
from viper_e2e.scoring import as_measured

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOG_FACTOR = 50.0
"""Positive values that span more than this stand on a logarithmic axis."""
MAX_TICKS = 12
TITLE_LETTERS = 18
"""Most letters in a line below an axis."""


class _Scale(NamedTuple):
    """Places of one setting's values on its axis, from 0 to 1."""

    places: list[float]
    ticks: dict[float, str]


def trials_plot(rows: Sequence[Mapping[str, Any]], path: str | os.PathLike, measure: str) -> Path:
    """``rows``: of each trial ``settings`` (name → value as written) and ``score``, `None` if undefined.

    Trials with ``failed`` are dashed, and end before the axis of scores. The better stands higher, also where
    an error is measured.
    """
    scored = sorted((row for row in rows if row["score"] is not None), key=lambda row: row["score"])
    failed = [row for row in rows if "failed" in row]
    names = [*(rows[0]["settings"] if rows else ())]
    scales = [_scale([row["settings"][name] for row in (*scored, *failed)]) for name in names]
    scores = _scale([f"{float(row['score']):.6f}" for row in scored], is_number=True)
    scales.append(_as_measured(scores, measure))
    figure = new_figure((2.2 + 1.7 * len(names), 4.6))
    axes = figure.subplots()
    _draw_lines(axes, scales, len(scored), len(failed))
    _draw_axes(axes, scales, [*(name.removeprefix("model.") for name in names), measure])
    told = f", {len(failed)} failed (dashed)" if failed else ""
    count = count_of(len(rows), "trial")
    axes.set_title(f"{count}{told}, the best in bold", size=10, loc="left")
    with written_whole(Path(path)) as partial:
        figure.savefig(partial, dpi=130, format="png")
    return Path(path)


def _draw_lines(axes: Axes, scales: Sequence[_Scale], num_scored: int, num_failed: int) -> None:
    """A line for each trial: those with a score first, the best of them last."""
    import matplotlib

    colours = matplotlib.colormaps["viridis"]
    for number in range(num_scored):
        is_best = number == num_scored - 1
        axes.plot(
            range(len(scales)),
            [scale.places[number] for scale in scales],
            color=colours(0.95 * (1 - scales[-1].places[number])),
            lw=3.0 if is_best else 1.2,
            alpha=1.0 if is_best else 0.7,
            marker="o",
            ms=5 if is_best else 3,
            zorder=3 if is_best else 2,
        )
    for number in range(num_scored, num_scored + num_failed):
        line = [scale.places[number] for scale in scales[:-1]]
        axes.plot(range(len(line)), line, color="#888888", lw=1.0, ls="--", marker="x", ms=4, zorder=2)


def _draw_axes(axes: Axes, scales: Sequence[_Scale], titles: Sequence[str]) -> None:
    """An upright axis for each setting, and one for the scores."""
    for x, scale in enumerate(scales):
        axes.axvline(x, color="#bbbbbb", lw=1, zorder=1)
        for place, label in scale.ticks.items():
            last = x == len(scales) - 1
            axes.annotate(
                label,
                (x, place),
                (6 if last else -6, 0),
                textcoords="offset points",
                ha="left" if last else "right",
                va="center",
                size=8,
                zorder=4,
                bbox={"boxstyle": "square,pad=0.1", "color": "white", "alpha": 0.75, "lw": 0},
            )
    wrapped = [
        fill(title.replace("fusion.", "fusion. "), TITLE_LETTERS, break_long_words=False) for title in titles
    ]
    axes.set_xticks(range(len(scales)), wrapped, size=9)
    axes.set(yticks=[], xlim=(-0.6, len(scales) - 0.4), ylim=(-0.06, 1.06))
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)


def _scale(values: Sequence[str], *, is_number: bool = False) -> _Scale:
    """Numbers by their size, words side by side."""
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        words = list(dict.fromkeys(sorted(values)))
        spread = {word: _share(i, 0, len(words) - 1) for i, word in enumerate(words)}
        return _Scale([spread[value] for value in values], {place: word for word, place in spread.items()})
    if not numbers:
        return _Scale([], {})
    is_log = not is_number and min(numbers) > 0 and max(numbers) / min(numbers) > LOG_FACTOR
    sized = [math.log(number) if is_log else number for number in numbers]
    low, high = min(sized), max(sized)
    distinct = sorted(set(zip(sized, (f"{number:.3g}" for number in numbers), strict=True)))
    if len(distinct) > MAX_TICKS or is_number:
        marks = [low + (high - low) * i / 4 for i in range(5)] if high > low else [low]
        distinct = [(mark, f"{math.exp(mark) if is_log else mark:.3g}") for mark in marks]
    return _Scale(
        [_share(number, low, high) for number in sized],
        {_share(number, low, high): text for number, text in distinct},
    )


def _as_measured(scale: _Scale, measure: str) -> _Scale:
    """Scores are drawn as they rank, and labelled as what was measured."""
    ticks = {place: f"{as_measured(float(text), measure):.3g}" for place, text in scale.ticks.items()}
    return scale._replace(ticks=ticks)


def _share(number: float | int, low: float | int, high: float | int) -> float:
    return 0.5 if high <= low else (number - low) / (high - low)
