"""clip.py: one clip at each stage: packed sample, decoded clip, the crop an encoder wants."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from viper_e2e.errors import ViperError

UNHEARD = " of sound are not used"
"""Words of the note on seconds of sound that no token covers."""
WORTH_TELLING_SECONDS = 0.1
"""Fewer of them are not reported."""


@dataclass(frozen=True, slots=True)
class Cue:
    """Something that is said in a clip; never empty."""

    text: str
    start_seconds: float | None = None
    """On the clip's clock (0 = first frame); ``None``, as its end: nobody noted when."""
    end_seconds: float | None = None


def cues_within(cues: Sequence[Cue], start_seconds: float, end_seconds: float) -> tuple[Cue, ...]:
    """Cues of a stretch of a clip, also partial ones, on the stretch's own clock. Cues without a time stay,
    empty ones do not."""
    kept = []
    for cue in cues:
        if not cue.text.strip():
            continue
        if cue.start_seconds is None or cue.end_seconds is None:
            kept.append(cue)
        elif cue.start_seconds < end_seconds and cue.end_seconds > start_seconds:
            start, end = cue.start_seconds - start_seconds, cue.end_seconds - start_seconds
            kept.append(Cue(cue.text, start, end))
    return tuple(kept)


Side = Literal["left", "right", "full"]
"""A half of the picture, as it is shown, or all of it."""


@dataclass(frozen=True)
class Segment:
    """The part of its file that a clip is: frames with start ≤ time < end, sound between, a half of each."""

    start_seconds: float = 0.0
    """On the file's clock (0 = its first frame)."""
    end_seconds: float = math.inf
    side: Side = "full"

    def __post_init__(self) -> None:
        if not 0 <= self.start_seconds < self.end_seconds:
            raise ValueError(f"a segment from {self.start_seconds} s to {self.end_seconds} s")

    @property
    def span(self) -> tuple[float, float]:
        """Start and end in seconds."""
        return self.start_seconds, self.end_seconds

    def to_json(self) -> dict[str, float | str | None]:
        """Plain data; without an end, the segment lasts to the end of the file."""
        end = None if math.isinf(self.end_seconds) else self.end_seconds
        return {"start": self.start_seconds, "end": end, "side": self.side}


@dataclass(frozen=True)
class Sample:
    """One clip as it lies in a shard, never decoded."""

    key: str
    """Name inside the shard, unique in a split."""
    video: bytes | os.PathLike[str]
    """The clip's file, untouched; or, where it lies in no shard, its path, so that it is never read whole."""
    file_id: str = ""
    """The corpus's own identifier, kept verbatim (Hume-Reaction writes ``[12345]``)."""
    sound: bytes | None = None
    """A separately kept file with sound alone; ``None`` means the video file's own sound."""
    action_units: np.ndarray | None = None
    """Precomputed action units, float32, ``T' 27``, spread evenly over the clip."""
    words: tuple[Cue, ...] = ()
    """The words said, in order; empty if they are unknown."""
    words_by: str = ""
    """The model that transcribed them, and who checked it; empty: a person wrote them, or unknown."""
    intensities: tuple[float, ...] | None = None
    """Targets in the order of the label set; ``None`` for an unlabelled clip."""
    subject: str | None = None
    shard: str = ""
    """Path or URL of the shard, for messages."""
    segment: Segment | None = None
    """The part of ``video`` (and of ``sound``) that is the clip; ``None``: all of it."""


@dataclass(frozen=True)
class SoundRun:
    """An unbroken stretch of sound."""

    start_seconds: float
    """Time of the first sample on the clip's clock (0 = first frame)."""
    samples: np.ndarray
    """float32, mono, at ``DecodingConfig.sample_rate``."""


@dataclass(frozen=True)
class FrameSource:
    """Where decoded frames came from, to decode them again."""

    source: np.ndarray | str | Path
    """The file's bytes (uint8), which cross between processes as memory, or its path."""
    indices: np.ndarray
    """int64, ``N``: each frame's number in the file."""
    side: Side = "full"
    """The side of them that is shown."""


@runtime_checkable
class Pixels(Protocol):
    """uint8 RGB: an array, or, from the backend `nvdec`, a tensor in the GPU's memory."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def __len__(self) -> int: ...
    # NumPy and torch have dozens of kinds of places each; and what is put there.
    def __getitem__(self, place: Any, /) -> Any: ...
    def __setitem__(self, place: Any, value: Any, /) -> None: ...


@dataclass
class DecodedClip:
    """The part of a clip that the encoders need."""

    name: str
    """Key or file name, for messages."""
    frames: Pixels
    """uint8 RGB, ``N H W 3``, upright; N distinct frames, at most ``num_frames``, in order of time."""
    frame_seconds: np.ndarray
    """float64, ``N``: presentation time of each frame on the clip's clock (0 = first frame)."""
    duration_seconds: float
    """From the first frame to the end of the last; more where sound begins before these or ends after them."""
    sound: tuple[SoundRun, ...] = ()
    """In order of time, not overlapping; empty if there is no sound where a token needs it."""
    has_sound: bool = False
    """Whether the clip has a usable audio stream at all."""
    sound_seconds: float = 0.0
    """Length of the audio stream; the published window rule divides this."""
    sound_instants: np.ndarray | None = None
    """float64, ``num_frames``: when the tokens of sound are, on the clip's clock, evenly spaced whatever the
    pictures do. ``None``: at the frames."""
    unheard_seconds: float = 0.0
    """The part of `sound_seconds` that no token covers."""
    display_size: tuple[int, int] = (0, 0)
    """Width, height of the clip as displayed (after rotation, before scaling to ``max_side``)."""
    action_units: np.ndarray | None = None
    """float32, ``T' 27``, spread evenly over the clip, or ``None``."""
    words: tuple[Cue, ...] = ()
    """The words said in it, in order."""
    frame_source: FrameSource | None = None
    """Where the frames came from, if the clip has more pixels than they."""
    notes: tuple[str, ...] = ()
    """Notes on how this clip was read: what was chosen among several, or left out. One
    plain clause each, no full stop; they end in the record's ``warning``."""


def with_words(clip: DecodedClip, cues: Sequence[Cue], start_seconds: float = 0.0) -> DecodedClip:
    """The clip with what is said while it lasts; ``start_seconds``: of it, on the clock of the cues."""
    if not cues:
        return clip
    return replace(clip, words=cues_within(cues, start_seconds, start_seconds + clip.duration_seconds))


def with_all_words(clip: DecodedClip, cues: Sequence[Cue]) -> DecodedClip:
    """A whole clip with all that is known to be said in it; notes that most of it begins after its end."""
    made = with_words(clip, cues)
    behind = sum((cue.start_seconds or 0.0) >= clip.duration_seconds for cue in cues)
    if not behind or 2 * behind < len(cues):
        return made
    note = f"{behind} of its {len(cues)} subtitles begin after its end; they may be those of a longer film"
    return replace(made, notes=(*made.notes, note))


MAX_CROP_SIZE = 4_096
"""Pixels a side."""


@dataclass(frozen=True)
class CropSpec:
    """Specification of a face crop that an image encoder takes from a frame. Equal specs are cut once."""

    size: int
    """Side of the square output, in pixels."""
    aspect: Literal["squash", "short_side_center"] = "squash"
    """``squash``: the box is resized to a square. ``short_side_center``: its short side is resized to
    ``size`` and the centre is kept (CLIP's own preprocessing)."""
    align: Literal["box", "eyes"] = "box"
    """``box``: the face's box. ``eyes``: the square in which the eyes are level and a fixed distance apart, so
    that roll and scale are gone; the box where no landmarks are known."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    antialias: bool = True
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Statistics of pixel values in [0, 1]."""
    integer_boxes: bool = False
    """Truncate the box to whole pixels and resize in uint8, as the published scripts do."""
    resize_in_uint8: bool = field(default=False)
    """Round to uint8 after resizing, before normalising (what PIL-based preprocessors do)."""

    def __post_init__(self) -> None:
        if not 1 <= self.size <= MAX_CROP_SIZE:
            raise ViperError(f"crops of {self.size} pixels; allowed are 1 to {MAX_CROP_SIZE} pixels a side")
