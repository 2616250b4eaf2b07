"""preparing.py: clips in any form -> decoded, on the module's device, with the person's face found."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from viper_e2e.clip import DecodedClip, Pixels, Sample, with_all_words
from viper_e2e.encoders import PreparedClip
from viper_e2e.errors import ClipError, ViperError, did_you_mean
from viper_e2e.faces import FaceTrack
from viper_e2e.loading import decoded as decode_sample
from viper_e2e.loading import words_beside
from viper_e2e.model.close_ups import CloseUps
from viper_e2e.model.prediction import OTHERS_IN_VIEW
from viper_e2e.model.transfer import Transfer
from viper_e2e.runtime import likely_path

Clip = bytes | str | os.PathLike | Sample | DecodedClip | PreparedClip | ClipError | None
"""Input of the module: bytes, a path, a packed sample, or a clip further on its way. A
:class:`ClipError` or ``None`` holds the place of a clip that could not be read."""

FindFace = Callable[[Tensor, Tensor], FaceTrack]
"""From frames (N H W 3) and their seconds (N)."""


def decode(
    clip: Clip, decoder: Callable[..., DecodedClip], *, reads_words: bool = False
) -> DecodedClip | PreparedClip | ClipError:
    """Decode a clip; one that is further along passes through. ``decoder``: a `ClipDecoder`. ``reads_words``:
    whether words in a file beside a clip are wanted."""
    if isinstance(clip, DecodedClip | PreparedClip | ClipError):
        return clip
    if clip is None:
        return ClipError("no clip in this place", stage="read")
    try:
        if isinstance(clip, Sample):
            return decode_sample(clip, decoder)
        name = "" if isinstance(clip, bytes) else os.fspath(clip)
        made = decoder(clip, name=name)
        is_file = reads_words and not isinstance(clip, bytes)
        return with_all_words(made, words_beside(Path(name))) if is_file else made
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
        return [clip for clip in clips if not isinstance(clip, DecodedClip)]
    transfer = Transfer(device)
    arrays = {place: _arrays_of(clip) for place, clip in decoded.items()}
    sent = {place: transfer.send(list(of_clip.values())) for place, of_clip in arrays.items()}
    with close_ups(transfer) as closer:
        begun = {}
        for place, clip in decoded.items():
            arrived = dict(zip(arrays[place], sent[place](), strict=True))
            begun[place] = closer.begin(_prepared(clip, arrived, find_face), clip)
        return [begun[place]() if isinstance(clip, DecodedClip) else clip for place, clip in enumerate(clips)]


def _arrays_of(clip: DecodedClip) -> dict[str, Pixels | np.ndarray]:
    """Arrays that must come to the device, by name."""
    arrays: dict[str, Pixels | np.ndarray] = {
        "frames": clip.frames,
        "seconds": clip.frame_seconds.astype(np.float32),
    }
    if clip.sound_instants is not None:
        arrays["sound_instants"] = clip.sound_instants.astype(np.float32)
    if clip.action_units is not None:
        arrays["units"] = clip.action_units
    return arrays | {f"sound {number}": run.samples for number, run in enumerate(clip.sound)}


def _prepared(clip: DecodedClip, arrived: Mapping[str, Tensor], find_face: FindFace) -> PreparedClip:
    """``arrived``: as `_arrays_of` names them."""
    frames, seconds = arrived["frames"], arrived["seconds"]
    track = find_face(frames, seconds)
    return PreparedClip(
        name=clip.name,
        seconds=seconds,
        duration_seconds=clip.duration_seconds,
        track=track,
        pixels=frames,
        sound=[(run.start_seconds, arrived[f"sound {number}"]) for number, run in enumerate(clip.sound)],
        sound_seconds=clip.sound_seconds,
        sound_instants=arrived.get("sound_instants"),
        unheard_seconds=clip.unheard_seconds,
        units=arrived.get("units"),
        display_size=clip.display_size,
        frame_size=(clip.frames.shape[2], clip.frames.shape[1]),
        notes=(*clip.notes, OTHERS_IN_VIEW) if track.others_in_view else clip.notes,
        words=clip.words,
    )


# --- one clip or several ----------------------------------------------------------------------------


def is_one(clips: object) -> bool:
    """A name is one clip, not a batch of letters."""
    return clips is None or isinstance(clips, bytearray | memoryview | Clip)


# Anything a person may hand over: what is no clip is refused by name.
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


def refuse_absent(batch: Sequence[Clip]) -> None:
    """`ViperError` for an address, and for a path where nothing is: nothing else can be meant by either."""
    for clip in batch:
        if not isinstance(clip, str | os.PathLike) or Path(clip).exists():
            continue
        where = os.fspath(clip)
        if "://" in where:
            raise ViperError(
                f"{where}: an address; predict takes files and bytes, and `viper infer` reads addresses"
            )
        raise ViperError(f"{where}: no such file{did_you_mean(likely_path(where))}")


def name_of(clip: Clip) -> str:
    """Name for people: a path, a key, or nothing."""
    if isinstance(clip, str | os.PathLike):
        return os.fspath(clip)
    if isinstance(clip, Sample):
        return clip.key
    return getattr(clip, "name", "")
