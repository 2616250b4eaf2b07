"""external.py: the base of backends that open files by themselves, and which clips they may read.

Such a library detects formats by itself and numbers frames by its own lights. So it gets clips only of kinds
where its answers were compared with PyAV's, and never the sound; which frames are wanted is still read from
the packets by PyAV, and PyAV has the last word on what such a library cannot read.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator

import av
import numpy as np
from av.error import FFmpegError

from viper_e2e.clip import Pixels
from viper_e2e.decoding.attempts import RescanNeeded
from viper_e2e.decoding.colour import guessed_matrix, has_alpha, is_hdr
from viper_e2e.decoding.container import Source
from viper_e2e.decoding.geometry import orientation_of, pixel_aspect, scaled_size
from viper_e2e.decoding.headers import NO_CROP
from viper_e2e.decoding.media import ClipMedia
from viper_e2e.decoding.timeline import Timeline

_log = logging.getLogger(__name__)

TRUSTED = ("mp4", "mov", "mkv", "webm")
FRAMES_AT_ONCE = 8
MISMARKED = "it starts at pictures that are marked as keyframes and are none"


class ExternalReader(ABC):
    """Wanted frames of a clip that `why_not` has no objection to."""

    library: str
    num_decoded: int | None = None
    """Such libraries do not tell."""
    notes: tuple[str, ...] = ()

    def __init__(
        self,
        media: ClipMedia,
        source: Source,
        frame: av.VideoFrame,
        wanted: np.ndarray,
        max_side: int | None,
    ):
        """`frame`: the clip's first. `wanted`: bool mask over the timeline's frames."""
        self.media, self.source, self._num_frames = media, source, len(wanted)
        self._indices = np.flatnonzero(wanted).tolist()
        # They turn frames upright by themselves.
        self.display_size = orientation_of(frame).size((frame.width, frame.height))
        self._size = scaled_size(*self.display_size, max_side)

    @abstractmethod
    def __iter__(self) -> Iterator[tuple[int, Pixels]]:
        """(index in the timeline, uint8 ``H W 3``) of each wanted frame, ascending. Raises `RescanNeeded`."""

    @classmethod
    def why_not(cls, media: ClipMedia, timeline: Timeline, frame: av.VideoFrame) -> str:
        """Why a clip has to be read by PyAV all the same; empty if the library can be trusted with it.

        `frame`: the clip's first, as PyAV gives it; `media` is positioned after it and is read to its end.
        """
        if media.kind not in TRUSTED:
            return f"its frames from {media.kind} files are not reliable"
        if timeline.packets is None or len(timeline.packets.pts) != len(timeline.pts):
            return "it numbers frames differently where an edit list hides some"
        if _num_marked(media) > len(np.unique(timeline.packets.keyframe)):
            return MISMARKED
        # It would take the first bytes' best guess; a file of ours must not look like a playlist to it.
        if media.head[:1] not in (b"\0", b"\x1a") or b"<mpd" in media.head.lower():
            return "its first bytes are unusual"
        return _why_not_shown(media, frame)

    def _check_count(self, num_frames: int) -> None:
        if num_frames != self._num_frames:
            raise self._give_up(f"it counts {num_frames:,} frames and PyAV {self._num_frames:,}")

    def _give_up(self, reason: object) -> RescanNeeded:
        """The exception that leaves the clip to PyAV."""
        reason = (str(reason).strip() or "no reason given").splitlines()[0][:200]
        _log.warning("%s is left to PyAV by %s: %s", self.media.name or "a clip", self.library, reason)
        return RescanNeeded()


def _num_marked(media: ClipMedia) -> int:
    """Keyframes by the file's own table; packets of some codecs are marked by what is in them instead."""
    return sum(entry.is_keyframe for entry in media.video.index_entries or ())


def _why_not_shown(media: ClipMedia, frame: av.VideoFrame) -> str:
    """Why such a library would not give the picture that a player shows; empty if it would."""
    if frame.interlaced_frame:
        return "it leaves interlaced pictures as they are"
    if orientation_of(frame).is_mirrored:
        return "it does not mirror pictures"
    if pixel_aspect(media) != 1:
        return "it takes every pixel for square"
    if media.crop != NO_CROP:
        return "it shows edges that the file hides"
    if is_hdr(frame):
        return "it does not map HDR to SDR"
    if has_alpha(frame):
        return "it shows what is transparent"
    if guessed_matrix(frame) is not None:
        return "it takes all colours without a flag for BT.601"
    return _why_not_to_its_end(media, frame)


def _why_not_to_its_end(media: ClipMedia, first: av.VideoFrame) -> str:
    """The same for the rest of a clip, by its keyframes, the only frames that are decoded."""
    kind = _kind(media, first)
    try:
        for frame in _keyframes(media):
            if not frame.key_frame:
                return MISMARKED
            if _kind(media, frame) != kind:
                return "its pictures change midway"
    except FFmpegError:
        return "a keyframe cannot be decoded"
    return ""


def _keyframes(media: ClipMedia) -> Iterator[av.VideoFrame]:
    """Decode packets that are marked as keyframes, from the position of `media` on."""
    codec = media.video.codec_context
    codec.flush_buffers()
    for packet in media.packets(media.video):
        if packet.is_keyframe:
            yield from codec.decode(packet)
    yield from codec.decode(None)


def _kind(media: ClipMedia, frame: av.VideoFrame) -> tuple:
    size = frame.width, frame.height, frame.format.name, pixel_aspect(media)
    return *size, frame.interlaced_frame, frame.color_trc, frame.colorspace, orientation_of(frame)
