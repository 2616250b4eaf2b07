"""sound.py: decoding of those packets of sound that the wanted seconds need, in time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import av
from av.error import FFmpegError

from viper_e2e.clip import SoundRun
from viper_e2e.decoding.attempts import RescanNeeded
from viper_e2e.decoding.media import Media
from viper_e2e.decoding.sound_pieces import SoundPieces
from viper_e2e.decoding.timeline import LONGEST_SECONDS, TORN_SOUND, Span
from viper_e2e.errors import ClipError

_WARM_UP_SECONDS = 0.5
"""Decoded before a span after a jump: overlapping transforms (AAC, Opus) and MP3's bit reservoir look back."""
_TAIL_SECONDS = 0.1
"""Decoded after a span: what decoder and resampler still hold when a span's last packet has gone in."""
_PACKETS_AT_ONCE = 64
_PACKET_BYTES_AT_ONCE = 2**20
"""Packets are decoded that many together, at most: taking turns with the pictures, each codec finds the
processor's caches full of the other's tables."""
_GAP_SECONDS = 0.05
"""Packets that begin later than this after where they should continue are not those that were sought."""


@dataclass(frozen=True)
class SoundTrack:
    """Source of a clip's sound."""

    media: Media
    stream: av.AudioStream
    extent: Span
    """Extent of the sound, on the clip's clock (0 = first frame)."""
    zero_seconds: float
    """The clip's zero on the clock of the file with the sound."""
    is_apart: bool
    """Whether the file is opened for its sound alone; else the reader of the pictures brings the packets."""
    is_torn: bool = False
    """Whether a packet is beyond the extent, in which the file breaks off."""


class SoundReader:
    """Packets in; runs of sound out, float32, mono (see `downmix.py`), at `sample_rate`.

    Under `whole` the stream is one run from its own first sample, as a wav made from it would be, the mean of
    its channels: gaps between its packets are not looked at. Otherwise only `spans` are decoded, and a gap
    ends a run.
    """

    def __init__(self, track: SoundTrack, spans: list[Span], sample_rate: int, *, whole: bool):
        """`spans`: on the clip's clock, ascending, apart."""
        media, stream = track.media, track.stream
        if stream.codec_context is None:
            raise media.fail("its sound is coded in a way that this build of PyAV cannot decode", stage="sound")
        self.media, self.sample_rate = media, sample_rate
        self.reached_seconds = -math.inf
        """Sound up to here has been read, where it is wanted."""
        self._codec = stream.codec_context
        self._codec.thread_type, self._codec.thread_count = "NONE", 1
        self._tick_seconds = float(media.tick_seconds_of(stream))
        self._zero_seconds, self._whole = track.zero_seconds, whole
        self._spans = spans[::-1]
        self.is_apart = track.is_apart
        """Whether `read_until` fetches the packets; else the reader of the pictures hands them to `read`."""
        self._packets = media.packets(stream) if track.is_apart else None
        self._waiting: list[av.Packet] = []
        self._waiting_bytes = 0
        self._given_seconds = -math.inf
        """End of the packets that were given to `read`."""
        self._landing_seconds: float | None = None
        """Time at which packets continue after a seek, until one has come."""
        self._extent_start = track.extent[0]
        self._end_seconds = track.extent[1] if track.is_torn else math.inf
        self._failure: FFmpegError | None = None
        """Error of the last packet, at which the file may break off."""
        self._pieces = SoundPieces(sample_rate, whole=whole)
        self._is_running = self._has_jumped = False

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on the sound so far."""
        return () if self._failure is None else (TORN_SOUND,)

    def read(self, packet: av.Packet) -> None:
        """Take the stream's next packet."""
        self._waiting.append(packet)
        self._waiting_bytes += packet.size
        if packet.pts is not None:
            self._given_seconds = self._clock(packet.pts + (packet.duration or 0))
        if len(self._waiting) >= _PACKETS_AT_ONCE or self._waiting_bytes >= _PACKET_BYTES_AT_ONCE:
            self._read_waiting()

    def read_until(self, seconds: float) -> None:
        """Read as far as `seconds` on the clip's clock, or to the end, where packets are ours to get."""
        if self.reached_seconds < seconds:
            self._read_waiting()
        while self._packets is not None and self.reached_seconds < seconds:
            packet = next(self._packets, None)
            if packet is None:
                self.finish()
            else:
                self._read(packet)

    def needed_from(self) -> float:
        """Time from which later packets are needed; ``inf``: none are."""
        if self._whole:
            return -math.inf
        still = (start for start, end in reversed(self._spans) if end + _TAIL_SECONDS >= self._given_seconds)
        return next(still, math.inf) - _WARM_UP_SECONDS

    def seek(self, seconds: float) -> None:
        """Say that the next packet begins at `seconds` or before."""
        self._read_waiting()
        self._stop()
        self._has_jumped, self._landing_seconds = True, max(seconds, self._extent_start)

    def finish(self) -> None:
        """Say that the stream has ended."""
        self._read_waiting()
        if self._is_running:
            self._decode(None, False)
        self._pieces.end()
        self.reached_seconds = math.inf

    def cut(self, start_seconds: float, end_seconds: float) -> tuple[SoundRun, ...]:
        """Runs of sound between two times, in order of time, not overlapping."""
        return self._pieces.cut(start_seconds, end_seconds)

    def forget(self, before_seconds: float) -> None:
        """Let go of sound that nobody will ask for again."""
        self._pieces.forget(before_seconds)

    def _read_waiting(self) -> None:
        packets, self._waiting, self._waiting_bytes = self._waiting, [], 0
        for packet in packets:
            self._read(packet)

    def _read(self, packet: av.Packet) -> None:
        start = self._start_of(packet.pts)
        if self._failure is not None:
            raise self._damaged() from self._failure
        if start > self._end_seconds - self._tick_seconds:
            return
        end = start + (packet.duration or 0) * self._tick_seconds
        may_end = end if packet.duration else start + LONGEST_SECONDS
        if self._landing_seconds is not None:
            if start > self._landing_seconds + _GAP_SECONDS:
                raise RescanNeeded
            self._landing_seconds = None
        while self._spans and self._spans[-1][1] + _TAIL_SECONDS < start:
            self._spans.pop()
        if self._whole or (self._spans and may_end >= self._spans[-1][0] - _WARM_UP_SECONDS):
            self._is_running = True
            is_warm_up = self._has_jumped and not self._whole and end <= self._spans[-1][0]
            self._decode(packet, is_warm_up)
        else:
            self._stop()
            self._has_jumped = True
        if not self._pieces.are_waiting:
            self.reached_seconds = max(self.reached_seconds, end - _TAIL_SECONDS)

    def _clock(self, pts: int) -> float:
        return pts * self._tick_seconds - self._zero_seconds

    def _start_of(self, pts: int | None) -> float:
        """Begin of a frame; one without a time begins where the last sample ended."""
        return (self._pieces.expected_seconds or 0.0) if pts is None else self._clock(pts)

    def _decode(self, packet: av.Packet | None, is_warm_up: bool) -> None:
        try:
            for frame in self._codec.decode(packet):
                self.media.check_sound_format(frame.sample_rate, frame.layout.nb_channels)
                self._pieces.add(frame, self._start_of(frame.pts))
        except FFmpegError as error:
            if is_warm_up:
                # MP3 after a jump refers to bytes that were jumped over.
                return
            self._failure = error
            # The last packet of all may be torn; `_read` raises if another comes.
            if packet is None or not self.media.may_break_off:
                raise self._damaged() from error

    def _damaged(self) -> ClipError:
        at = f"after {max(self.reached_seconds, 0):.2f} s"
        return self.media.fail(f"its sound cannot be decoded {at}; copy the file again", stage="sound")

    def _stop(self) -> None:
        if self._is_running:
            self._pieces.end()
            self._codec.flush_buffers()
            self._is_running = False
