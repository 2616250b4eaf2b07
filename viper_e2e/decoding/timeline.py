"""timeline.py: when each frame of a clip is shown, how long it sounds, and what must be decoded to see it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from fractions import Fraction

import av
import numpy as np
from av.error import FFmpegError

from viper_e2e.decoding.media import Media

Span = tuple[float, float]
"""Start and end in seconds."""

TORN_SOUND = "the file breaks off in its last packet of sound, which is left out"

LONGEST_SECONDS = 10.0
"""A packet that does not say how long it sounds (WavPack, ALAC in Matroska) sounds no longer."""


class TornPackets:
    """Counts packets of a stream that are flagged as torn, and tells those with which a file breaks off.

    A parser hands the flag to all packets that it cuts out of a torn block, not to the torn one after them.
    """

    def __init__(self) -> None:
        self.num_packets = self._num_torn = self._run = self._behind = 0

    def add(self, is_torn: bool) -> None:
        """Take the next packet."""
        self.num_packets += 1
        self._num_torn += is_torn
        if is_torn:
            self._run = 1 if self._behind else self._run + 1
            self._behind = 0
        else:
            self._behind += 1

    @property
    def is_end_torn(self) -> bool:
        """Whether the last packet is torn, and the file whole before it."""
        return 0 < 2 * self._run < self.num_packets and self._behind <= 1

    def num_amid(self, may_break_off: bool) -> int:
        """Those that no end of the file explains, if it may break off anywhere."""
        return self._num_torn - (self._run if may_break_off and self.is_end_torn else 0)


class SoundExtent:
    """Extent of a stream's sound, in its own ticks, by its packets."""

    def __init__(self) -> None:
        self.start = self.end = self.last_start = 0
        self.num_packets = 0
        self.torn = TornPackets()
        self.is_last_torn = False
        self._without_length: av.Packet | None = None
        """The last packet, where its container does not say how long it sounds."""

    def add(self, packet: av.Packet) -> None:
        """Take the next packet."""
        self.torn.add(packet.is_corrupt)
        self.is_last_torn = packet.is_corrupt
        if packet.pts is not None:
            self.start = packet.pts if self.num_packets == 0 else min(self.start, packet.pts)
            self.end = max(self.end, packet.pts + (packet.duration or 0))
            self.last_start = packet.pts
            self._without_length = None if packet.duration else packet
        self.num_packets += 1

    def is_end_torn(self, media: Media) -> bool:
        """Whether a file breaks off in its last packet of sound."""
        return media.may_break_off and self.torn.is_end_torn

    def seconds(self, media: Media, stream: av.AudioStream) -> Span:
        """Start and end on the file's own clock, of what is whole."""
        tick = media.tick_seconds_of(stream)
        if self.is_end_torn(media):
            return float(self.start * tick), float(self.last_start * tick)
        # Where a length is stated, it is that of the sound. FFmpeg hands on the whole block of the codec, whose
        # end is the encoder's padding (up to 64 ms of AAC and Opus in mp4).
        end = float(self.end * tick)
        if self._without_length is not None:
            end = max(end, float(self.last_start * tick) + _seconds_in(self._without_length, stream))
        return float(self.start * tick), end


def _seconds_in(packet: av.Packet, stream: av.AudioStream) -> float:
    """Duration of a packet's sound, decoded by itself; 0 if it cannot be."""
    known = stream.codec_context
    if known is None:
        return 0.0
    codec = av.CodecContext.create(known.codec, "r")
    assert isinstance(codec, av.AudioCodecContext), "made for a stream of sound"
    codec.extradata, codec.sample_rate, codec.layout = known.extradata, known.sample_rate, known.layout
    try:
        frames = [*codec.decode(packet), *codec.decode(None)]
    except FFmpegError:
        return 0.0
    return sum(frame.samples / frame.sample_rate for frame in frames)


class PacketAction(IntEnum):
    """Action of the decoding pass on a packet."""

    SKIP = 0
    """Nobody needs it nor what follows up to the next keyframe: finish the decoder, start again there."""
    DROP = 1
    """Shown before the keyframe that decoding starts at, and built on what was jumped over."""
    REFERENCE = 2
    """Needed only if other pictures refer to it."""
    WANTED = 3


@dataclass(frozen=True)
class FramePackets:
    """The packets that the frames of a clip come from."""

    own: np.ndarray
    """int64: each frame's packet, in the file's order."""
    keyframe: np.ndarray
    """int64: the packet from which decoding must start to see each frame exactly."""
    pts: np.ndarray
    """int64: of every packet, in the file's order."""

    @property
    def has_leading_frames(self) -> bool:
        """Whether some frame comes after a keyframe in the file and still needs the one before it."""
        starts = np.unique(self.keyframe)
        return bool((starts[np.searchsorted(starts, self.own, side="right") - 1] != self.keyframe).any())

    def feed(self, wanted: np.ndarray) -> np.ndarray:
        """uint8 `PacketAction` for every packet, so that the `wanted` frames (bool mask) come out exact."""
        feed = np.zeros(len(self.pts), np.uint8)
        for first, last in _segments(self.keyframe[wanted], self.own[wanted]):
            inside = slice(first, last + 1)
            leading = self.pts[inside] < self.pts[first]
            feed[inside] = np.where(leading, PacketAction.DROP, PacketAction.REFERENCE)
        feed[self.own[wanted]] = PacketAction.WANTED
        return feed


@dataclass(frozen=True)
class Timeline:
    """All frames of a clip in the order in which they are shown."""

    pts: np.ndarray
    """int64, ascending, in ticks of the video stream."""
    tick_seconds: Fraction
    last_frame_ticks: int
    """How long the last frame is shown."""
    packets: FramePackets | None = None
    """None: frames are identified by their order out of the decoder."""
    sound_start_seconds: float = 0.0
    """Begin of the file's own sound, on the clip's clock (0 = first frame)."""
    sound_end_seconds: float = 0.0
    """Equal to the start if there is no sound."""
    is_torn: bool = False
    """Whether the file breaks off in its last frame, which is left out of these."""
    is_sound_torn: bool = False
    """Whether it does so in its last packet of sound, which ends after `sound_end_seconds`."""
    notes: tuple[str, ...] = ()
    """Notes for people; see `DecodedClip.notes`."""
    num_decoded: int = 0
    """Frames that had to be decoded to learn all this."""

    @property
    def by_order(self) -> bool:
        """Whether frames are identified by their order out of the decoder."""
        return self.packets is None

    @property
    def seconds(self) -> np.ndarray:
        """float64: when each frame is shown, on the clip's clock (0 = first frame)."""
        return (self.pts - self.pts[0]) * float(self.tick_seconds)

    @property
    def start_seconds(self) -> float:
        """Time of the first frame on the file's own clock."""
        return float(int(self.pts[0]) * self.tick_seconds)

    @property
    def duration_seconds(self) -> float:
        """Seconds from the first frame to the end of the last."""
        # As Python's integers: a hostile file's times overflow 64 bits.
        return float((int(self.pts[-1]) - int(self.pts[0]) + self.last_frame_ticks) * self.tick_seconds)

    @property
    def has_leading_frames(self) -> bool:
        """Whether some frame comes after a keyframe in the file and still needs the one before it."""
        return self.packets is not None and self.packets.has_leading_frames


def _segments(first: np.ndarray, last: np.ndarray) -> list[tuple[int, int]]:
    """Stretches of packets from a keyframe to the last wanted frame before the next jump."""
    segments: list[tuple[int, int]] = []
    for start, end in sorted(zip(first.tolist(), last.tolist(), strict=True)):
        if segments and start <= segments[-1][1] + 1:
            segments[-1] = (segments[-1][0], max(segments[-1][1], end))
        else:
            segments.append((start, end))
    return segments
