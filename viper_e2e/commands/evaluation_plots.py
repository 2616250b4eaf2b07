"""evaluation_plots.py: plots that `viper eval` draws of predictions, and the faces that its page shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from viper_e2e.clip import DecodedClip
from viper_e2e.commands.common import reading_of
from viper_e2e.config import EvalConfig, looks_at_face
from viper_e2e.encoders import PreparedClip
from viper_e2e.errors import ClipError
from viper_e2e.labels import name_of
from viper_e2e.loading import DecodeSample
from viper_e2e.model import Predictions, ViPER
from viper_e2e.report import (
    CANNOT_DRAW,
    class_confusion,
    confusion_matrices,
    extremes,
    figures,
    has_dominant,
    reliability_plot,
    selective_plot,
    words,
)
from viper_e2e.runtime import AS_IT_IS, console
from viper_e2e.scoring import Hooks, Subset, reliability, score, selective
from viper_e2e.shards import ShardSet
from viper_e2e.tasks import MEASURE_TITLES, Task

STRIP_SIZE = 96
"""Side of the face crops shown in the report, in pixels."""


Drawing = tuple[tuple[str, ...], Callable[[], Sequence[Path]]]
"""Captions, and what makes as many pictures."""


def drawings(predictions: Predictions, out: Path) -> list[Drawing]:
    """All that is drawn of an evaluation: of each task in its kind, then of all."""
    found: list[Drawing] = []
    for task, part in predictions.by_task():
        name = name_of(task.name)
        of_task, suffix = (f": {words(name)}", f"_{name}") if predictions.labels.names_tasks else ("", "")
        if task.kind in ("class", "labels") and part.scored.any():
            found.append(((f"Said and found{of_task}",), partial(_reliability, part, task, out)))
            found.append(((f"Score against confidence{of_task}",), partial(_selective, part, task, out)))
        if task.kind == "class" and part.scored.any():
            found.append(((f"Confusion{of_task}",), partial(class_confusion, part, name, out)))
        elif task.kind in ("intensities", "number") and (part.scored.any() or not suffix):
            scatter = out / f"scatter{suffix}.png"
            found.append(((f"Predicted against true{of_task}",), partial(_scatter, part, scatter)))
            captions = [f"True against predicted intensity, in tenths{of_task}"]
            captions += [f"The dominant emotion{of_task}"] * has_dominant(part.labels)
            found.append((tuple(captions), partial(confusion_matrices, part, out, suffix)))
    if _sees(predictions):
        faces = out / "error_against_faces.png"
        found.append(
            (("Error against visible faces",), lambda: [figures.error_against_faces(predictions, faces)])
        )
    return found


def _scatter(predictions: Predictions, path: Path) -> list[Path]:
    return [figures.predicted_against_true(predictions, path)]


def _reliability(predictions: Predictions, task: Task, out: Path) -> list[Path]:
    one, name = reliability(task, *_of_scored(predictions), num_resamples=0), name_of(task.name)
    return [reliability_plot(one, task.kind, name, out / f"reliability_{name}.png")]


def _selective(predictions: Predictions, task: Task, out: Path) -> list[Path]:
    curve, name = selective(task, *_of_scored(predictions)), name_of(task.name)
    return [selective_plot(curve, MEASURE_TITLES, name, out / f"confidence_{name}.png")]


def _of_scored(predictions: Predictions) -> tuple[np.ndarray, np.ndarray]:
    return predictions.predicted[predictions.scored], predictions.true[predictions.scored]


def draw_all(predictions: Predictions, out: Path) -> dict[str, Path]:
    """Caption → picture, of those that could be drawn."""
    pictures: dict[str, Path] = {}
    for captions, draw in drawings(predictions, out):
        try:
            pictures |= dict(zip(captions, draw(), strict=False))
        except CANNOT_DRAW as error:
            console.print(f"{captions[0]}: not drawn: {error}", style="yellow", **AS_IT_IS)
    return pictures


def face_strips(
    model: ViPER, shards: ShardSet, predictions: Predictions, options: EvalConfig
) -> dict[str, list[np.ndarray]]:
    """Face crops of the best and the worst clips, for people to look at."""
    keys = {predictions.keys[row] for rows in extremes(predictions) for row in rows}
    shown = Subset(shards, [i for i in range(len(shards)) if shards.entry(i).key in keys])
    strips: dict[str, list[np.ndarray]] = {}

    def keep(_: int, decoded: DecodedClip | ClipError) -> None:
        with torch.no_grad():
            (clip,) = model.prepare([decoded])
        if isinstance(clip, PreparedClip) and clip.pixels is not None:
            strips[clip.name] = model.faces.pictures(clip.pixels, clip.track.boxes, STRIP_SIZE)

    decode, hooks = DecodeSample(model.decoder), Hooks(on_clip=keep)
    for _ in score(None, shown, reading_of(options), decode=decode, hooks=hooks):
        pass
    return strips


def _sees(predictions: Predictions) -> bool:
    """Whether faces were looked for at all."""
    return any(map(looks_at_face, predictions.modalities))
