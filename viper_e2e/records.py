"""records.py: what is said of a clip, as plain data that JSON, CSV and Parquet can hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .model import ViPEROutput

BOX_SOURCES = ("none", "detected", "interpolated")

Record = dict[str, Any]


def records_of(
    output: ViPEROutput,
    clips: Sequence[str],
    emotions: Sequence[str],
    modalities: Sequence[str],
    *,
    boxes: bool = False,
) -> list[Record]:
    """One record per clip of a batch.

    Keys: ``clip``, ``valid``, ``error``, ``duration_seconds``, ``intensities`` (``{name: value}``), ``present``
    (``{modality: bool}``), ``face_found`` (share of the looked-at frames that have a face), ``frame_seconds``
    and, with ``boxes``, ``boxes``: per frame ``[x0, y0, x1, y1, "detected" | "interpolated"]`` or ``None``.
    A clip that could not be read has ``valid`` False, its ``error``, and ``None`` elsewhere.
    """
    return [
        failed(clip, output.errors[i].reason, modalities)
        if output.errors[i] is not None
        else _scored(output, i, clip, emotions, modalities, boxes)
        for i, clip in enumerate(clips)
    ]


def failed(clip: str, reason: str, modalities: Sequence[str]) -> Record:
    """The record of a clip that could not be read."""
    return {
        "clip": clip,
        "valid": False,
        "error": reason,
        "duration_seconds": None,
        "intensities": None,
        "present": dict.fromkeys(modalities, False),
        "face_found": None,
        "frame_seconds": None,
    }


def _scored(
    output: ViPEROutput, i: int, clip: str, emotions: Sequence[str], modalities: Sequence[str], boxes: bool
) -> Record:
    used = output.used[i]
    record = {
        "clip": clip,
        "valid": True,
        "error": None,
        "duration_seconds": round(output.duration_seconds[i].item(), 3),
        "intensities": dict(zip(emotions, output.intensities[i].tolist(), strict=True)),
        "present": dict(zip(modalities, output.present[i].tolist(), strict=True)),
        "face_found": output.face_found[i][used].float().mean().item(),
        "frame_seconds": [round(s, 4) for s in output.frame_seconds[i][used].tolist()],
    }
    if boxes:
        sources = output.box_source[i][used].tolist()
        record["boxes"] = [
            [*(round(value, 2) for value in box), BOX_SOURCES[source]] if source else None
            for box, source in zip(output.boxes[i][used].tolist(), sources, strict=True)
        ]
    return record
