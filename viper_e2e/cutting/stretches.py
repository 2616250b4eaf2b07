"""stretches.py: the stretch of a long film that a clip needs, and its packets, read from nearby."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
from av.stream import Discard

from viper_e2e.config import LimitsConfig
from viper_e2e.cutting.frame_log import Picture
from viper_e2e.decoding import BY_RULE, LONGEST_SECONDS, SLACK_SECONDS, ClipMedia, Tracks, open_clip

SEEKABLE = ("mp4", "mov", "mkv", "webm", "avi", "dv")
"""Kinds that are read from near a stretch on; others from their beginning."""
WARM_UP_SECONDS = 0.5
"""Sound before a stretch that decoders need to decode it exactly."""
TAIL_SECONDS = SLACK_SECONDS + 0.1
"""Sound after a stretch: where a film's sound outlasts its pictures, that of its copy does too."""
INTERLEAVED_SECONDS = 2.0
"""Distance in a file between sound and the pictures of the same time, at most."""
WORST_INTERLEAVED_SECONDS = 10.0
"""Sound that is further after the last picture is not waited for."""


@dataclass(frozen=True)
class Stretch:
    """Stretch of a long file that a clip needs: all that `cut` has to know of the file."""

    path: Path
    start_seconds: float
    """Begin on the file's clock (0 = its first frame)."""
    end_seconds: float
    tracks: Tracks = BY_RULE
    """The sound that goes along: the track that is used of the whole file."""
    muxer: str | None = None
    """FFmpeg's name of the new file's kind; ``None``: the whole file goes along."""
    num_packets: int = 0
    """Number of picture packets, from the first one on, in the file's order."""
    first: tuple[int, int] = (0, 0)
    """Time, in ticks of its stream, and bytes of the first of them."""
    zero_seconds: float = 0.0
    """When the new file's first frame is shown, on the clock of the packets."""
    origin_seconds: float = 0.0
    """The same of the long file's first frame."""
    frame_seconds: np.ndarray = field(default_factory=lambda: np.zeros(0), compare=False)
    """Times of the clip's frames in the new file, on its clock."""
    shown: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64), compare=False)
    """int64, in ticks: when each packet's picture is shown, `NO_FRAME`: never; empty: as the file has it."""
    hashes: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint32), compare=False)
    """`picture_hash` of the clip's frames, where they are known."""
    picture: Picture | None = None
    is_uncut: bool = False
    """Whether the whole file goes along because it cannot be cut."""

    @property
    def early_seconds(self) -> float:
        """Seconds of film in the new file before the clip."""
        return max(self.start_seconds + self.origin_seconds - self.zero_seconds, 0.0) if self.muxer else 0.0


def demuxed(media: ClipMedia, *streams: av.stream.Stream) -> Iterator[av.Packet]:
    """Packets with the times that are written in the file."""
    for stream in media.container.streams:
        stream.discard = Discard.default if stream in streams else Discard.all
    for packet in media.container.demux(*streams):
        if packet.size:
            yield packet


def time_of(packet: av.Packet) -> int | None:
    """When it is shown, else when it is decoded."""
    return packet.pts if packet.pts is not None else packet.dts


def packets_of(stretch: Stretch, limits: LimitsConfig) -> list[tuple[int, av.Packet]]:
    """(number of the stream, packet) of all that belongs to a stretch, in the film's order."""
    packets = _Packets(stretch, limits)
    try:
        return packets.read(from_near=True)
    except _LandedLate:
        return packets.read(from_near=False)


class _LandedLate(Exception):
    """A seek ended after the packet that it should have ended before."""


class _Packets:
    """Reads the packets of one stretch."""

    def __init__(self, stretch: Stretch, limits: LimitsConfig):
        self.stretch, self.limits = stretch, limits
        start, end = (at + stretch.origin_seconds for at in (stretch.start_seconds, stretch.end_seconds))
        # Sound from the first picture on, for who plays the file from its beginning.
        self.sound = min(stretch.zero_seconds, start - WARM_UP_SECONDS), end + TAIL_SECONDS

    def read(self, *, from_near: bool) -> list[tuple[int, av.Packet]]:
        """(number of the stream, packet), in the file's order."""
        with open_clip(self.stretch.path, self.limits, str(self.stretch.path), self.stretch.tracks) as media:
            early = self.stretch.zero_seconds - INTERLEAVED_SECONDS
            # From its beginning a file is read, not sought: sound before its zero would be lost.
            if from_near and media.kind in SEEKABLE and early > self.stretch.origin_seconds:
                media.seek(media.video, math.floor(early / media.tick_seconds))
            # A stream without a decoder may lack what a muxer must know of it.
            is_known = media.audio is not None and media.audio.codec_context is not None
            return list(self._of(media, media.audio if is_known else None, from_near))

    def _written(self, packet: av.Packet) -> int | None:
        # Without times of display, those that FFmpeg makes up depend on where reading began.
        is_decoding_time = len(self.stretch.shown) and packet.dts is not None
        return packet.dts if is_decoding_time else time_of(packet)

    def _of(
        self, media: ClipMedia, sound: av.AudioStream | None, from_near: bool
    ) -> Iterator[tuple[int, av.Packet]]:
        waiting, is_begun, is_heard = self.stretch.num_packets, False, sound is None
        for packet in demuxed(media, media.video, *([] if sound is None else [sound])):
            at = self._written(packet)
            if packet.stream is media.video and at is not None:
                is_first = (at, packet.size) == self.stretch.first
                if (
                    from_near
                    and not is_begun
                    and not is_first
                    and packet.is_keyframe
                    and at > self.stretch.first[0]
                ):
                    raise _LandedLate
                is_begun = is_begun or is_first
                if is_begun and waiting:
                    waiting -= 1
                    yield packet.stream.index, packet
                seconds = float(at * packet.time_base)
                if not waiting and (is_heard or seconds > self.sound[1] + WORST_INTERLEAVED_SECONDS):
                    break
            elif at is not None:
                seconds = float(at * packet.time_base)
                length = float(packet.duration * packet.time_base) if packet.duration else LONGEST_SECONDS
                if seconds > self.sound[1]:
                    is_heard = True
                elif seconds + length >= self.sound[0]:
                    yield packet.stream.index, packet
            if not waiting and is_heard:
                break
        if waiting:
            raise ValueError(f"{waiting} video packets are no longer where they were; was the file changed?")
