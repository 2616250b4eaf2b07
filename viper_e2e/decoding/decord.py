"""decord.py: the second backend: wanted frames through decord, where its answers can be trusted.

decord 0.6.0 brings its own FFmpeg 4.1. It gives wrong frames without a word on TS, AVI and FLV and in open
GOPs, knows no AV1, rounds 10-bit video differently, scales turned video wrongly, and dies (SIGSEGV) on offsets
outside a buffer when it reads from memory through Python. So it gets a file descriptor.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import av
import numpy as np

from viper_e2e.decoding.container import Source
from viper_e2e.decoding.external import FRAMES_AT_ONCE, ExternalReader
from viper_e2e.decoding.geometry import Orientation, orientation_of
from viper_e2e.decoding.media import ClipMedia
from viper_e2e.decoding.timeline import Timeline
from viper_e2e.errors import ViperError


class DecordReader(ExternalReader):
    """Wanted frames, scaled by decord."""

    library = "decord"

    @classmethod
    def why_not(cls, media: ClipMedia, timeline: Timeline, frame: av.VideoFrame) -> str:
        if media.video.codec_context.codec.canonical_name == "av1":
            return "it has no AV1"
        depth = max(component.bits for component in frame.format.components)
        if depth > 8:
            return f"it rounds {depth}-bit video differently"
        if orientation_of(frame) != Orientation():
            return "it scales turned video to another size at times"
        if len(media.container.streams.video) > 1:
            return "it chooses among several video tracks by itself"
        if timeline.has_leading_frames:
            return "it gives wrong frames where some depend on the keyframe after them (open GOPs)"
        return super().why_not(media, timeline, frame)

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
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
                self._check_count(len(reader))
                for start in range(0, len(self._indices), FRAMES_AT_ONCE):
                    some = self._indices[start : start + FRAMES_AT_ONCE]
                    yield from zip(some, reader.get_batch(some).asnumpy(), strict=True)
            except (decord.DECORDError, decord.DECORDLimitReachedError) as error:
                raise self._give_up(error) from error


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
    descriptor = os.memfd_create("clip") if isinstance(source, bytes) else os.open(source, os.O_RDONLY)
    try:
        if isinstance(source, bytes):
            with open(descriptor, "wb", closefd=False) as file:
                file.write(source)
        yield descriptor
    finally:
        os.close(descriptor)
