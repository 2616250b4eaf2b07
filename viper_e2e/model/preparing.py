"""preparing.py: clips in any form -> decoded, on the module's device, with the person's face found."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from viper_e2e.clip import DecodedClip, Sample
from viper_e2e.decoding import ClipDecoder
from viper_e2e.encoders.prepared import PreparedClip
from viper_e2e.errors import ClipError, ViperError
from viper_e2e.faces import FaceTrack
from viper_e2e.model.close_ups import CloseUps
from viper_e2e.model.transfer import Transfer

Clip = bytes | str | os.PathLike | Sample | DecodedClip | PreparedClip | ClipError | None
"""What the module takes: bytes, a path, a packed sample, or a clip further on its way. A
:class:`ClipError` or ``None`` holds the place of a clip that could not be read."""

FindFace = Callable[[Tensor, Tensor], FaceTrack]
"""From frames (N H W 3) and their seconds (N)."""


def decode(clip: Clip, decoder: ClipDecoder) -> DecodedClip | PreparedClip | ClipError:
    """What is further on its way passes through."""
    if isinstance(clip, DecodedClip | PreparedClip | ClipError):
        return clip
    if clip is None:
        return ClipError("no clip in this place", stage="read")
    try:
        if isinstance(clip, Sample):
            return decoder(clip.video, sound=clip.sound, name=clip.key, action_units=clip.action_units)
        name = "" if isinstance(clip, bytes) else os.fspath(clip)
        return decoder(clip, name=name)
    except ClipError as error:
        return error


def find_faces(
    clips: Sequence[DecodedClip | PreparedClip | ClipError],
    device: torch.device,
    find_face: FindFace,
    close_ups: Callable[[Transfer], CloseUps],
) -> list[PreparedClip | ClipError]:
    """All are on their way to the device before the first is looked at; small faces are fetched larger."""
    decoded = {place: clip for place, clip in enumerate(clips) if isinstance(clip, DecodedClip)}
    if not decoded:
        return list(clips)
    transfer = Transfer(device)
    sent = {place: _begin_to_send(clip, transfer) for place, clip in decoded.items()}
    with close_ups(transfer) as closer:
        begun = {
            place: closer.begin(_prepared(clip, sent[place](), find_face), clip)
            for place, clip in decoded.items()
        }
        return [begun[place]() if place in begun else clip for place, clip in enumerate(clips)]


def _begin_to_send(clip: DecodedClip, transfer: Transfer) -> Callable[[], list[Tensor]]:
    instants = clip.frame_seconds if clip.sound_instants is None else clip.sound_instants
    times = [clip.frame_seconds.astype(np.float32), instants.astype(np.float32)]
    units = [] if clip.action_units is None else [clip.action_units]
    return transfer.send([clip.frames, *times, *units, *(run.samples for run in clip.sound)])


def _prepared(clip: DecodedClip, arrived: Sequence[Tensor], find_face: FindFace) -> PreparedClip:
    """``arrived``: in the order of `_begin_to_send`."""
    frames, seconds, instants, *others = arrived
    units = None if clip.action_units is None else others.pop(0)
    return PreparedClip(
        name=clip.name,
        seconds=seconds,
        duration_seconds=clip.duration_seconds,
        track=find_face(frames, seconds),
        pixels=frames,
        sound=[(run.start_seconds, samples) for run, samples in zip(clip.sound, others, strict=True)],
        sound_seconds=clip.sound_seconds,
        sound_instants=None if clip.sound_instants is None else instants,
        unheard_seconds=clip.unheard_seconds,
        units=units,
        display_size=clip.display_size,
        frame_size=(clip.frames.shape[2], clip.frames.shape[1]),
        notes=clip.notes,
    )


# --- one clip or several ----------------------------------------------------------------------------


def is_one(clips: Any) -> bool:
    """A name is one clip, not a batch of letters."""
    return clips is None or isinstance(clips, bytearray | memoryview | Clip)


def batch_of(clips: Any) -> list[Clip]:
    """One clip or several → a list; `ViperError` for what is no clip."""
    batch = [clips] if is_one(clips) or not isinstance(clips, Iterable) else list(clips)
    for clip in batch:
        if not is_one(clip):
            raise ViperError(
                f"a clip is a path, the bytes of a file, or a Sample; got {type(clip).__name__}: write frames "
                "to a video file first, or build a DecodedClip"
            )
    return [bytes(clip) if isinstance(clip, bytearray | memoryview) else clip for clip in batch]


def name_of(clip: Clip) -> str:
    """What people call it: a path, a key, or nothing."""
    if isinstance(clip, str | os.PathLike):
        return os.fspath(clip)
    if isinstance(clip, Sample):
        return clip.key
    return getattr(clip, "name", "")
