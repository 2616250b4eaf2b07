"""media.py: an open clip, or an open file with sound alone: its packets one by one, within the limits."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Discard

from viper_e2e.config import LimitsConfig
from viper_e2e.decoding.clocks import RunningClock
from viper_e2e.decoding.headers import NO_CROP, Crop
from viper_e2e.decoding.tracks import BY_RULE, Tracks
from viper_e2e.errors import ClipError, Stage

KEPT_BYTES = 8 * 2**20
"""A file whose packets are no more than this is read once: the second pass gets them from memory."""
PACKET_BYTES = 1024
"""Memory of a packet besides its content; of small packets, most of it."""
_WITHOUT_LENGTH = ("ts", "mpeg", "flv", "aac", "flac", "mp3")


@dataclass(frozen=True, kw_only=True)
class Media(ABC):
    """An open file with the streams that we read."""

    name: str
    kind: str
    """Kind, as `sniff` names it."""
    container: InputContainer
    limits: LimitsConfig
    head: bytes
    num_bytes: int
    """Size of the whole file."""
    kept: Kept = field(default_factory=lambda: Kept())
    num_whole: Counter[int] = field(default_factory=Counter)
    """Whole packets of each stream in the last reading: see `RunningClock`."""

    @property
    @abstractmethod
    def streams(self) -> Sequence[av.stream.Stream]:
        """Those that we read, the one that the file is opened for first."""

    @property
    def is_indexed(self) -> bool:
        """Whether an index at hand says of every packet where it lies: an mp4 that is not in fragments."""
        first = self.streams[0]
        return self.kind in ("mp4", "mov") and first.frames == len(first.index_entries)

    @property
    def is_in_fragments(self) -> bool:
        """Whether it is an mp4 as recorders write it that may crash: whole up to where it breaks off."""
        return False

    @property
    def may_break_off(self) -> bool:
        """Whether its header promises no length, so that it is whole up to where its writer stopped."""
        return self.kind in _WITHOUT_LENGTH or self.is_in_fragments

    @property
    def is_kept(self) -> bool:
        """Whether an indexed file is short enough for its packets to be kept."""
        num_packets = sum(len(stream.index_entries) for stream in self.streams)
        return self.num_bytes + num_packets * PACKET_BYTES <= KEPT_BYTES

    def tick_seconds_of(self, stream: av.stream.Stream) -> Fraction:
        """The unit of a stream's times, exact whatever PyAV computes with (its own rationals round)."""
        tick = stream.time_base
        if not tick:
            raise self.fail(f"its {stream.type} has no unit of time; it is damaged: copy it again")
        return Fraction(tick.numerator, tick.denominator)

    def seek(self, stream: av.stream.Stream, ticks: int) -> None:
        """Let `packets` go on at this stream's last keyframe whose decoding time is `ticks` or less."""
        self.container.seek(ticks, stream=stream, backward=True)

    def packets(self, *streams: av.stream.Stream | None) -> Iterator[av.Packet]:
        """The packets of these streams, in the file's order; ``None`` is no stream."""
        wanted = [stream for stream in streams if stream is not None]
        if self.kept.is_complete:
            while self.kept.packets:
                packet = self.kept.packets.popleft()
                if packet.stream in wanted:
                    yield packet
            return
        yield from self._read(wanted)

    def packets_to_keep(self, *streams: av.stream.Stream | None) -> Iterator[av.Packet]:
        """The same; if they are few, `packets` has them once more, from memory."""
        for packet in self._read([stream for stream in streams if stream is not None]):
            self.kept.add(packet)
            yield packet
        self.kept.finish()

    def _read(self, wanted: list[av.stream.Stream]) -> Iterator[av.Packet]:
        for stream in self.container.streams:
            # What nobody reads need not be fetched.
            stream.discard = Discard.default if stream in wanted else Discard.all
        clock = None if self.kind == "avi" or self.is_indexed else RunningClock(self.num_whole)
        try:
            for packet in self.container.demux(wanted):
                # The empty ones after the last say that the file ends.
                if packet.size and not (packet.is_corrupt and self.is_in_fragments):
                    if clock is not None:
                        clock.place(packet)
                    yield packet
        except IndexError:
            # PyAV 18 trips over a stream that shows up midway (TS, FLV), after the last packet was handed on.
            return

    def fail(self, message: str, stage: Stage = "container") -> ClipError:
        """The error to raise about this file."""
        return ClipError(message, stage=stage, clip=self.name)

    # --- what it may ask of us: `ClipError` with the setting, and the option, that allow more ----------

    def check_frame_size(self, width: int, height: int) -> None:
        """Raise `ClipError` if a frame is larger than the limits."""
        limits, found = self.limits, f"has frames of {width}×{height}"
        wanted = f"(--max-side-in {max(width, height)} allows more)"
        if width > limits.max_width or height > limits.max_height:
            allowed = f"{limits.max_width}×{limits.max_height}"
            raise self.fail(f"{found}; limits.max_width and max_height allow {allowed} {wanted}")
        if width * height > limits.max_pixels:
            raise self.fail(f"{found}; limits.max_pixels allows {limits.max_pixels:,} pixels {wanted}")

    def check_sound_format(self, sample_rate: int, channels: int) -> None:
        """Raise `ClipError` if the sound is outside the limits."""
        limits = self.limits
        if channels < 1 or sample_rate < 1:
            raise self.fail("its sound has no channels or no rate; it is damaged: copy it again", stage="sound")
        if channels > limits.max_channels:
            raise over("audio channels", channels, limits.max_channels, "max_channels", self.name)
        if not limits.min_sample_rate <= sample_rate <= limits.max_sample_rate:
            allowed = f"{limits.min_sample_rate:,} to {limits.max_sample_rate:,}"
            raise self.fail(
                f"has sound at {sample_rate:,} Hz; limits.min_sample_rate and max_sample_rate allow {allowed}"
            )

    def check_seconds(self, seconds: float) -> None:
        """Raise `ClipError` if something in the clip is longer than the limits."""
        if seconds > self.limits.max_seconds:
            wanted = f"--max-seconds {math.ceil(seconds)}"
            raise over(
                "seconds", round(seconds), round(self.limits.max_seconds), "max_seconds", self.name, wanted
            )

    def check_num_frames(self, num_frames: int) -> None:
        """Raise `ClipError` if there are more frames than the limits allow."""
        if num_frames > self.limits.max_frames:
            wanted = "more --max-seconds"
            raise over("frames", num_frames, self.limits.max_frames, "max_frames", self.name, wanted)


@dataclass(frozen=True, kw_only=True)
class ClipMedia(Media):
    """An open clip."""

    video: av.VideoStream
    audio: av.AudioStream | None
    tracks: Tracks = BY_RULE
    """Tracks that a person asked for."""
    notes: tuple[str, ...] = ()
    """Notes on what was chosen among several; see `DecodedClip.notes`."""
    crop: Crop = NO_CROP
    """Edges of the coded picture that are not shown."""

    @property
    def streams(self) -> Sequence[av.stream.Stream]:
        return (self.video,) if self.audio is None else (self.video, self.audio)

    @property
    def is_in_fragments(self) -> bool:
        return self.kind in ("mp4", "mov") and self.video.frames == 0

    @property
    def tick_seconds(self) -> Fraction:
        """The unit of the video stream's times."""
        return self.tick_seconds_of(self.video)

    @property
    def frame_rate(self) -> Fraction:
        """Frames a second as the header has it; 25 if it has none."""
        rate = self.video.average_rate or Fraction(25)
        return Fraction(rate.numerator, rate.denominator)


@dataclass(frozen=True, kw_only=True)
class SoundMedia(Media):
    """An open file that is read for its sound alone."""

    audio: av.AudioStream

    @property
    def streams(self) -> Sequence[av.stream.Stream]:
        return (self.audio,)


class Kept:
    """The packets of a short file."""

    def __init__(self) -> None:
        self.packets: deque[av.Packet] = deque()
        self.is_complete = False
        self._room = KEPT_BYTES

    def add(self, packet: av.Packet) -> None:
        self._room -= packet.size + PACKET_BYTES
        if self._room >= 0:
            self.packets.append(packet)
        else:
            self.packets.clear()

    def finish(self) -> None:
        self.is_complete = self._room >= 0


def over(what: str, found: int, allowed: int, setting: str, name: str, wanted: str = "") -> ClipError:
    """The error to raise where there is more than a limit allows.

    `wanted`: the option that raises the limit, as it would have to be given.
    """
    message = f"has {found:,} {what}; limits.{setting} allows {allowed:,}"
    return ClipError(f"{message} ({wanted} allows more)" if wanted else message, stage="container", clip=name)


def reason_of(error: FFmpegError) -> str:
    """FFmpeg's reason, in a form that fits into a sentence."""
    return (error.strerror or type(error).__name__).rstrip(".").lower()
