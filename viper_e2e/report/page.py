"""page.py: an evaluation as one self-contained HTML file: figures and face crops inside, nothing fetched."""

from __future__ import annotations

import base64
import io
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from viper_e2e.labels import LabelSet, name_of
from viper_e2e.model import Predictions
from viper_e2e.report.drawing import span_of, words
from viper_e2e.report.prediction_bars import parts_said
from viper_e2e.report.tables import (
    columns_measured,
    intervals_over,
    measure_cell,
    metrics_rows,
    notes_on_constants,
)
from viper_e2e.runtime import write_text
from viper_e2e.scoring import AGREEMENT, Scores, TaskScores, main_measure
from viper_e2e.tasks import measure_title

NUM_EXTREMES = 5
"""Clips shown at either end of the ranking; their strips are worth collecting."""

LARGE_FIGURE = 1500
"""Pixels of width from which a figure has several panels."""

MAX_CROPS, CROP_SIDE = 10, 96
"""Most crops of a strip, evenly chosen, and their greatest height in pixels."""

MAX_LETTERS = 400
"""Shown of the words in a clip."""


def write_page(
    path: str | os.PathLike,
    predictions: Predictions,
    scores: Scores | None,
    *,
    figures: Mapping[str, str | os.PathLike],
    strips: Mapping[str, Sequence[UInt8[np.ndarray, "_ _ 3"]]],
    config: Mapping[str, Any],
    versions: Mapping[str, str],
    yardstick: str = "",
    title: str = "Evaluation",
) -> Path:
    """Write the report of an evaluation.

    Args:
        scores: of the labelled, readable clips, shown as `scores_tables` shows them; None where the set has no
            labels.
        figures: caption to PNG file, in the order of the page.
        strips: key to face crops in order of time, for the clips of :func:`extremes`.
        config: resolved settings, nested.
        versions: package to version.
        yardstick: what the model was measured against when it was trained, in a line.

    Everything that comes from a corpus (names of clips, identifiers, reasons) is escaped, and the page's own
    policy forbids scripts and anything from outside. Raises :class:`ViperError` if the file cannot be written.
    """
    from jinja2 import Environment, StrictUndefined

    source = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    best, worst = extremes(predictions)
    whole = scores.whole if scores is not None and scores.of_one_task else None
    tasks = [*scores.tasks.values()] if scores is not None and whole is None else []
    html = template.from_string(source).render(
        title=title,
        num_clips=len(predictions),
        num_scored=int(predictions.scored.sum()),
        headline=_headline(whole, tasks),
        rows=metrics_rows(whole) if whole else [],
        tasks=[_task(one) for one in tasks],
        note_on_intervals=intervals_over(whole.over, whole.caution) if whole and whole.intervals else "",
        note="; ".join(notes_on_constants(whole)) if whole else "",
        yardstick=yardstick,
        figures=[_figure(caption, Path(file).read_bytes()) for caption, file in figures.items()],
        groups=[
            ("Closest to their labels", [_clip(predictions, row, strips) for row in best]),
            ("Farthest from their labels", [_clip(predictions, row, strips) for row in worst]),
        ],
        unread=_unread(predictions),
        config=list(_flat(config)),
        versions=versions,
    )
    write_text(path, html)
    return Path(path)


def extremes(predictions: Predictions) -> tuple[list[int], list[int]]:
    """Rows of the best and the worst clips that the page shows."""
    return predictions.best_and_worst(NUM_EXTREMES)


def _clip(predictions: Predictions, row: int, strips: Mapping[str, Sequence[np.ndarray]]) -> dict[str, Any]:
    key, labels = predictions.keys[row], predictions.labels
    crops = strips.get(key, ())
    there = [words(m) for m, p in zip(predictions.modalities, predictions.present[row], strict=True) if p]
    return {
        "key": key,
        "file_id": predictions.file_ids[row],
        "shard": predictions.shards[row],
        "error": f"{math.sqrt(predictions.squared_error[row]):.3f}",
        "faces": f"{predictions.face_share[row]:.0%}",
        "seconds": f"{predictions.duration_seconds[row]:.1f}",
        "present": ", ".join(there) or "nothing",
        "words": _beginning((predictions.words[row] if predictions.words else None) or ""),
        "strip": _strip(crops) if len(crops) else None,
        "parts": _parts(predictions, row, labels),
    }


def _beginning(text: str) -> str:
    return text if len(text) <= MAX_LETTERS else f"{text[: MAX_LETTERS - 1]}…"


def _parts(predictions: Predictions, row: int, labels: LabelSet) -> list[dict[str, Any]]:
    """Predictions of each task for a clip, beside its labels."""
    true, said = (
        dict(zip(labels.names, rows[row].tolist(), strict=True))
        for rows in (predictions.true, predictions.predicted)
    )
    made = []
    labelled = labels.classes_of(true)
    for (task, _), part in zip(labels.parts, parts_said(said, labels), strict=True):
        bars = [
            (words(bar.name), *_bar(true[name], bar.limits), *_bar(said[name], bar.limits), bar.is_chosen)
            for name, bar in part.bars.items()
        ]
        word = labelled.get(name_of(task.name))
        heading = part.heading if word is None else f"{part.heading} (labelled {word})"
        made.append({"heading": words(heading), "bars": bars})
    return made


def _headline(whole: TaskScores | None, tasks: Sequence[TaskScores]) -> list[tuple[str, str]]:
    """Headline numbers: the main measure of each task, the means of ``whole``."""
    if whole is not None:
        return [(f"mean {measure_title(name)}", measure_cell(whole, name)) for name in AGREEMENT]
    mains = [(one, main_measure(one.task)) for one in tasks if one.num_clips]
    return [(f"{words(one.task.name)}, {measure_title(main)}", measure_cell(one, main)) for one, main in mains]


def _task(one: TaskScores) -> dict[str, Any]:
    each = columns_measured(one)
    return {
        "name": words(one.task.name),
        "kind": one.task.kind,
        "num_clips": one.num_clips,
        "notes": one.notes,
        "note_on_intervals": intervals_over(one.over, one.caution) if one.intervals else "",
        "measures": [(measure_title(name), measure_cell(one, name)) for name in one.values],
        "titles": [*map(measure_title, each), "clips"],
        "columns": [
            (
                words(name),
                [*("–" if math.isnan(row[s]) else f"{row[s]:.3f}" for s in each), f"{row['num_clips']:,.0f}"],
            )
            for name, row in one.by_column.items()
            if each
        ],
    }


def _bar(value: float, limits: tuple[float, float]) -> tuple[str, str, str]:
    """A value as text, and from where to where its bar reaches, in percent of its length."""
    if math.isnan(value):
        return "–", "0.0", "0.0"
    begin, end = span_of(value, limits)
    return f"{value:z.2f}", f"{100 * begin:.1f}", f"{100 * (end - begin):.1f}"


def _unread(predictions: Predictions) -> list[tuple[str, str, str]]:
    rows = zip(predictions.keys, predictions.shards, predictions.errors, strict=True)
    return [
        (key, shard, error or "no reason recorded")
        for (key, shard, error), valid in zip(rows, predictions.valid, strict=True)
        if not valid
    ]


def _strip(crops: Sequence[np.ndarray]) -> str:
    """Crops side by side as one JPEG."""
    from PIL import Image

    chosen = [crops[i] for i in np.linspace(0, len(crops) - 1, min(len(crops), MAX_CROPS)).round().astype(int)]
    pictures = [Image.fromarray(np.ascontiguousarray(crop)) for crop in chosen]
    for picture in pictures:
        picture.thumbnail((CROP_SIDE, CROP_SIDE))
    gap = 3
    size = (sum(p.width + gap for p in pictures) - gap, max(p.height for p in pictures))
    strip = Image.new("RGB", size, (128, 128, 128))
    x = 0
    for picture in pictures:
        strip.paste(picture, (x, 0))
        x += picture.width + gap
    file = io.BytesIO()
    strip.save(file, "JPEG", quality=85)
    return _data_uri(file.getvalue(), "jpeg")


def _figure(caption: str, png: bytes) -> tuple[str, str, bool]:
    """A figure, with whether it is too wide for a telephone, where such ones keep their size and scroll."""
    width = int.from_bytes(png[16:20], "big")
    return caption, _data_uri(png, "png"), width > LARGE_FIGURE


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", "–" if value is None else str(value)
