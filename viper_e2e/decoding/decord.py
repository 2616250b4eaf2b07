"""decord.py: the second backend: wanted frames through decord, where its answers can be trusted.

decord 0.6.0 brings its own FFmpeg 4.1 and detects formats by itself. It gives wrong frames without a word
on TS, AVI and FLV, knows no AV1, rounds 10-bit video differently, and dies (SIGSEGV) on offsets outside a
buffer when it reads from memory through Python. So it gets a file descriptor, of mp4, mov, mkv and webm
only, and never the sound. Which frames are wanted is still read from the packets by PyAV.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import av
import numpy as np

from ..errors import ViperError
from .container import Media, Source, quarter_turns
from .pyav import scaled_size
from .timeline import Timeline

_TRUSTED = ("mp4", "mov", "mkv", "webm")
_FRAMES_AT_ONCE = 8
_ADVICE = "set decoding.backend to pyav"


def why_not_decord(media: Media, timeline: Timeline, frame: av.VideoFrame) -> str:
    """Why a clip has to be read by PyAV all the same; empty if decord can be trusted with it.

    `frame`: the clip's first, as PyAV gives it.
    """
    if media.kind not in _TRUSTED:
        return f"decord gives wrong frames from {media.kind} files"
    if media.video.codec_context.codec.canonical_name == "av1":
        return "decord has no AV1"
    depth = max(component.bits for component in frame.format.components)
    if depth > 8:
        return f"decord rounds {depth}-bit video differently"
    if timeline.by_order or len(timeline.packet_pts) != len(timeline.pts):
        return "decord numbers frames differently where an edit list hides some"
    # decord would take the first 4 KB's best guess; a file of ours must not look like a playlist to it.
    if media.head[:1] not in (b"\0", b"\x1a") or b"<mpd" in media.head.lower():
        return "its first bytes are unusual"
    return ""


class DecordReader:
    """Wanted frames of a clip that `why_not_decord` has no objection to."""

    num_decoded = None
    """decord does not tell."""

    def __init__(
        self,
        media: Media,
        source: Source,
        frame: av.VideoFrame,
        wanted: np.ndarray,
        max_side: int | None,
    ):
        """`frame`: the clip's first. `wanted`: bool mask over the timeline's frames."""
        self.media, self.source, self._num_frames = media, source, len(wanted)
        self._indices = np.flatnonzero(wanted).tolist()
        # decord turns frames upright by itself, and wants the size they have then.
        self.display_size = (frame.width, frame.height)[:: -1 if quarter_turns(frame.rotation) % 2 else 1]
        self._size = scaled_size(*self.display_size, max_side)

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        """(index in the timeline, uint8 ``H W 3``) of each wanted frame, ascending."""
        decord = import_decord()
        with _descriptor(self.source) as descriptor:
            try:
                reader = decord.VideoReader(
                    f"/proc/self/fd/{descriptor}",
                    width=self._size[0],
                    height=self._size[1],
                    num_threads=1,
                    fault_tol=1,
                )
                if len(reader) != self._num_frames:
                    message = f"decord counts {len(reader):,} frames and PyAV {self._num_frames:,}; {_ADVICE}"
                    raise self.media.fail(message, stage="decode")
                for start in range(0, len(self._indices), _FRAMES_AT_ONCE):
                    some = self._indices[start : start + _FRAMES_AT_ONCE]
                    yield from zip(some, reader.get_batch(some).asnumpy(), strict=True)
            except decord.DECORDError as error:
                reason = str(error).splitlines()[0][:200]
                raise self.media.fail(f"decord cannot read it ({reason}); {_ADVICE}", stage="decode") from error


def import_decord() -> ModuleType:
    """decord, or a `ViperError` that says how to get it."""
    try:
        # decord's libraries must not be the first of the two in a process.
        import decord
        import torch  # noqa: F401
    except ImportError as error:
        message = "decord is not installed (it has wheels for Linux on x86-64 only): pip install decord, or"
        raise ViperError(f"{message} leave decoding.backend at pyav") from error
    return decord


@contextmanager
def _descriptor(source: Source) -> Iterator[int]:
    """A file descriptor that decord's FFmpeg can open by its number: no name of ours reaches it."""
    in_memory = isinstance(source, bytes)
    descriptor = os.memfd_create("clip") if in_memory else os.open(source, os.O_RDONLY)
    try:
        if in_memory:
            with open(descriptor, "wb", closefd=False) as file:
                file.write(source)
        yield descriptor
    finally:
        os.close(descriptor)
