"""output.py: the module's output for a batch of clips, and a prediction for each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from viper_e2e.config import looks_at_face
from viper_e2e.encoders import Account, PreparedClip, Stream
from viper_e2e.errors import ClipError
from viper_e2e.labels import LabelSet
from viper_e2e.model.calibration import Calibration
from viper_e2e.model.prediction import NO_FACE, NOTHING_THERE, Box, Prediction, failed
from viper_e2e.model.records import Record, record_of
from viper_e2e.model.slots import Slots

BOX_SOURCES = ("none", "detected", "interpolated")


class ViPEROutput(NamedTuple):
    """The output of the module for a batch of clips."""

    intensities: Float[Tensor, "B E"]
    """float32, in the order of the label set."""
    by_network: Float[Tensor, "B K E"]
    """The same from each of the networks that are trained to give it, K ≥ 1, for the loss. In evaluation mode
    K > 1 are heads that were trained separately."""
    valid: Bool[Tensor, "B"]
    """False: the clip could not be read; its row means nothing."""
    present: Bool[Tensor, "B M"]
    """Whether the clip has each modality, in the order of ``ViPER.modalities``."""
    boxes: Float[Tensor, "B T 4"]
    """x0 y0 x1 y1 in pixels of the displayed clip, upper ends exclusive;
    the whole frame if there is no face."""
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
    """Per clip, what a user should know about how it was read; as in `DecodedClip`."""
    unheard_seconds: tuple[float, ...] = ()
    """Per clip, the seconds of its sound that no token covers; empty: not counted."""
    words: tuple[str | None, ...] = ()
    """Per clip, the words that were read; empty: not asked for, as in training."""
    streams: Mapping[str, Stream] | None = None
    """The tokens of each modality, before any is hidden from the fusion; None: not asked for."""

    def without_rows(self) -> ViPEROutput:
        """Output of an empty batch."""
        of_batch = self._asdict()
        streams = of_batch.pop("streams")
        none: dict[str, Any] = {name: rows[:0] for name, rows in of_batch.items()}
        if streams is not None:
            none["streams"] = {name: Stream(*(rows[:0] for rows in one)) for name, one in streams.items()}
        return ViPEROutput(**none)


def output_of(
    answers: Float[Tensor, "B *K E"],
    present: Bool[Tensor, "B M"],
    clips: Sequence[PreparedClip | ClipError],
    slots: Slots,
    accounts: Sequence[Account] | None = None,
) -> ViPEROutput:
    """The fusion head's answer, with facts about each clip.

    ``accounts``: what the encoders tell of each clip.
    """
    told = accounts or [Account()] * len(clips)
    by_network = answers if answers.ndim == 3 else answers[:, None]
    return ViPEROutput(
        intensities=by_network.mean(1),
        by_network=by_network,
        valid=slots.valid,
        present=present,
        boxes=slots.boxes,
        box_source=slots.box_source,
        face_found=slots.face_found,
        frame_seconds=slots.seconds,
        used=slots.used,
        duration_seconds=slots.duration_seconds,
        errors=tuple(clip if isinstance(clip, ClipError) else None for clip in clips),
        notes=tuple(
            () if isinstance(clip, ClipError) else (*clip.notes, *account.notes)
            for clip, account in zip(clips, told, strict=True)
        ),
        unheard_seconds=tuple(0.0 if isinstance(clip, ClipError) else clip.unheard_seconds for clip in clips),
        words=tuple(account.words for account in told) if accounts is not None else (),
    )


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
    if any(map(looks_at_face, modalities)):
        face_found = int((output.face_found[i] & used).sum()) / max(1, int(used.sum()))
    made = Prediction(
        clip,
        start_seconds=0.0,
        end_seconds=round(output.duration_seconds[i].item(), 3),
        intensities=dict(zip(emotions, output.intensities[i].tolist(), strict=True)),
        spread=_spread(output, i, emotions),
        present=present,
        face_found=face_found,
        unheard_seconds=round(output.unheard_seconds[i], 3) if output.unheard_seconds else 0.0,
        words=output.words[i] if output.words else None,
        frame_seconds=tuple(round(s, 4) for s in output.frame_seconds[i][used].tolist()) if frames else None,
        boxes=_boxes(output, i) if boxes else None,
    )
    told = [*output.notes[i], NO_FACE] if made.is_faceless else list(output.notes[i])
    if not any(present.values()):
        told.append(NOTHING_THERE)
    return replace(made, warning="; ".join(told) or None)


def _spread(output: ViPEROutput, i: int, emotions: Sequence[str]) -> dict[str, float] | None:
    if output.by_network.shape[1] == 1:
        return None
    return dict(zip(emotions, output.by_network[i].std(0).tolist(), strict=True))


def _boxes(output: ViPEROutput, i: int) -> tuple[Box | None, ...]:
    used = output.used[i]
    sources = output.box_source[i][used].tolist()
    return tuple(
        (*(round(value, 2) for value in box), BOX_SOURCES[source]) if source else None
        for box, source in zip(output.boxes[i][used].tolist(), sources, strict=True)
    )


def records_of(
    output: ViPEROutput,
    clips: Sequence[str],
    labels: LabelSet,
    modalities: Sequence[str],
    *,
    boxes: bool = False,
    calibration: Calibration | None = None,
) -> list[Record]:
    """One record per clip of a batch; see `record_of`."""
    made = predictions_of(output, clips, labels.names, modalities, frames=True, boxes=boxes)
    return [record_of(one, labels, calibration) for one in made]
