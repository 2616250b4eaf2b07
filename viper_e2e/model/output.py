"""output.py: what the module says of a batch of clips, and a prediction for each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from viper_e2e.errors import ClipError
from viper_e2e.model.prediction import NO_FACE, NOTHING_THERE, SEEING, Box, Prediction, failed

BOX_SOURCES = ("none", "detected", "interpolated")


class ViPEROutput(NamedTuple):
    """What the module says of a batch of clips."""

    intensities: Float[Tensor, "B E"]
    """float32, in the order of the label set."""
    by_network: Float[Tensor, "B K E"]
    """The same from each of the networks that are trained to give it, K ≥ 1: what a loss is taken of."""
    valid: Bool[Tensor, "B"]
    """False: the clip could not be read; its row means nothing."""
    present: Bool[Tensor, "B M"]
    """Which modality was there at all, in the order of ``ViPER.modalities``."""
    boxes: Float[Tensor, "B T 4"]
    """x0 y0 x1 y1 in pixels of the displayed clip, upper ends exclusive; the whole frame where no face is."""
    box_source: UInt8[Tensor, "B T"]
    """0 none, 1 detected, 2 interpolated."""
    face_found: Bool[Tensor, "B T"]
    frame_seconds: Float[Tensor, "B T"]
    """Presentation time; slots beyond the clip's distinct frames repeat the last."""
    used: Bool[Tensor, "B T"]
    """The slot holds a distinct frame."""
    duration_seconds: Float[Tensor, "B"]
    errors: tuple[ClipError | None, ...]
    """Why a clip is not valid."""
    notes: tuple[tuple[str, ...], ...]
    """Per clip, what a person should know of how it was read; as in `DecodedClip`."""
    unheard_seconds: tuple[float, ...] = ()
    """Per clip, how much of its sound lies in no token's hearing; empty: nobody counted."""


def predictions_of(
    output: ViPEROutput,
    clips: Sequence[str],
    emotions: Sequence[str],
    modalities: Sequence[str],
    *,
    frames: bool = False,
    boxes: bool = False,
    hidden: tuple[str, ...] = (),
) -> list[Prediction]:
    """One for each clip of a batch. ``frames``: with their times; ``boxes``: with the face in each of them."""
    made = []
    for i, clip in enumerate(clips):
        error = output.errors[i]
        if error is not None:
            one = failed(clip, error.reason, modalities, stage=error.stage)
        else:
            one = _scored(output, i, clip, emotions, modalities, frames or boxes, boxes)
        made.append(replace(one, hidden=hidden) if hidden else one)
    return made


def _scored(
    output: ViPEROutput,
    i: int,
    clip: str,
    emotions: Sequence[str],
    modalities: Sequence[str],
    frames: bool,
    boxes: bool,
) -> Prediction:
    used = output.used[i]
    present = dict(zip(modalities, output.present[i].tolist(), strict=True))
    face_found = None
    if any(modality in SEEING for modality in modalities):
        face_found = int((output.face_found[i] & used).sum()) / max(1, int(used.sum()))
    made = Prediction(
        clip,
        start_seconds=0.0,
        end_seconds=round(output.duration_seconds[i].item(), 3),
        intensities=dict(zip(emotions, output.intensities[i].tolist(), strict=True)),
        present=present,
        face_found=face_found,
        unheard_seconds=round(output.unheard_seconds[i], 3) if output.unheard_seconds else 0.0,
        frame_seconds=tuple(round(s, 4) for s in output.frame_seconds[i][used].tolist()) if frames else None,
        boxes=_boxes(output, i) if boxes else None,
    )
    told = [*output.notes[i], NO_FACE] if made.is_faceless else list(output.notes[i])
    if not any(present.values()):
        told.append(NOTHING_THERE)
    return replace(made, warning="; ".join(told) or None)


def _boxes(output: ViPEROutput, i: int) -> tuple[Box | None, ...]:
    used = output.used[i]
    sources = output.box_source[i][used].tolist()
    return tuple(
        (*(round(value, 2) for value in box), BOX_SOURCES[source]) if source else None
        for box, source in zip(output.boxes[i][used].tolist(), sources, strict=True)
    )
