"""sound.py: the wanted seconds of a sound stream, mono at one rate, on the clip's clock."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import islice

import av
import numpy as np
from av.error import FFmpegError

from viper_e2e.clip import SoundRun
from viper_e2e.decoding.downmix import mixed, mono_weights
from viper_e2e.decoding.limits import check_sound_format
from viper_e2e.decoding.media import ClipMedia, Media, SoundMedia
from viper_e2e.decoding.sampling import Span
from viper_e2e.decoding.timeline import RescanNeeded, TornPackets
from viper_e2e.errors import ClipError

_WARM_UP_SECONDS = 0.5
"""Decoded before a span after a jump: overlapping transforms (AAC, Opus) and MP3's bit reservoir look back."""
_TAIL_SECONDS = 0.1
"""Decoded after a span: what decoder and resampler still hold when a span's last packet has gone in."""
_SAMPLES_AT_ONCE = 16_384
"""Resampled together: each call has its price, and codecs give 1,024 samples or fewer at a time."""
_PACKETS_AT_ONCE = 64
_PACKET_BYTES_AT_ONCE = 2**20
"""Packets are decoded that many together, at most: taking turns with the pictures, each codec finds the
processor's caches full of the other's tables."""
_GAP_SECONDS = 0.05
"""Times that disagree by less are rounding (FLV and Matroska count milliseconds); more is a gap."""
_DRIFT_SECONDS = 0.02
"""A recorder's clock and its sampling differ by a thousandth, say: so far apart, a new run sets them right."""
_DRIFT_FRAMES = 16
"""Times of single frames are off by chance; the mean over about so many is not."""


TORN_SOUND = "the file breaks off in its last packet of sound, which is left out"


class SoundExtent:
    """From when to when a stream has sound, in its own ticks, told from its packets."""

    def __init__(self) -> None:
        self.start = self.end = self.last_start = 0
        self.num_packets = 0
        self.torn = TornPackets()
        self.is_last_torn = False

    def add(self, packet: av.Packet) -> None:
        """Take the next packet."""
        self.torn.add(packet.is_corrupt)
        self.is_last_torn = packet.is_corrupt
        if packet.pts is not None:
            self.start = packet.pts if self.num_packets == 0 else min(self.start, packet.pts)
            self.end = max(self.end, packet.pts + (packet.duration or 0))
            self.last_start = packet.pts
        self.num_packets += 1

    def is_end_torn(self, media: Media) -> bool:
        """Whether a file breaks off in its last packet of sound."""
        return media.may_break_off and self.torn.is_end_torn

    def seconds(self, media: Media, stream: av.AudioStream) -> Span:
        """Start and end on the file's own clock, of what is whole."""
        tick = media.tick_seconds_of(stream)
        end = self.last_start if self.is_end_torn(media) else self.end
        return float(self.start * tick), float(end * tick)


def read_sound_extent(media: SoundMedia) -> Span:
    """Start and end of a file's sound in seconds; reads `media` to its end.

    Raises `ClipError` (stage ``sound``) if it is torn or there is none.
    """
    extent = SoundExtent()
    for packet in media.packets(media.audio):
        extent.add(packet)
    # Of a wav that was written into a pipe, whose header knows no length, the last packet is short, not torn.
    has_no_length = media.kind in ("wav", "w64") and media.head[4:8] in (b"\xff" * 4, b"\0" * 4)
    num_torn = extent.torn.num_amid(media.may_break_off) - (has_no_length and extent.is_last_torn)
    if num_torn or not extent.num_packets:
        raise media.fail("has no sound in it, or is cut short; copy it again", stage="sound")
    return extent.seconds(media, media.audio)


def read_indexed_extent(media: ClipMedia, stream: av.AudioStream) -> SoundExtent:
    """The same, of the sound of an indexed clip: only its first packets and its last are read."""
    entries, extent = stream.index_entries, SoundExtent()
    for ticks in (entries[0].timestamp, entries[-1].timestamp):
        media.seek(stream, ticks)
        for packet in islice(media.packets(stream), 2):
            extent.add(packet)
    extent.num_packets = sum(entry.size > 0 and entry.pos + entry.size <= media.num_bytes for entry in entries)
    return extent


@dataclass(frozen=True)
class SoundTrack:
    """Where a clip's sound comes from."""

    media: Media
    stream: av.AudioStream
    extent: Span
    """From when to when there is sound, on the clip's clock (0 = first frame)."""
    zero_seconds: float
    """The clip's zero on the clock of the file with the sound."""
    is_apart: bool
    """Whether the file is opened for its sound alone; else whoever reads the pictures brings the packets."""
    is_torn: bool = False
    """Whether a packet lies behind the extent, in which the file breaks off."""


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
        """Whether `read_until` fetches the packets; else whoever reads the pictures brings them to `read`."""
        self._packets = media.packets(stream) if track.is_apart else None
        self._waiting: list[av.Packet] = []
        self._waiting_bytes = 0
        self._given_seconds = -math.inf
        """Where the packets end that were brought to `read`."""
        self._landing_seconds: float | None = None
        """Where packets go on after a seek, until one of them has come."""
        self._extent_start = track.extent[0]
        self._end_seconds = track.extent[1] if track.is_torn else math.inf
        self._failure: FFmpegError | None = None
        """Of the last packet, which may be where the file breaks off."""
        self._pieces: list[_Piece] = []
        self._resampler: av.AudioResampler | None = None
        self._gathered = av.AudioFifo()
        """Decoded and not yet resampled."""
        self._format: tuple = ()
        self._weights = np.ones(1, np.float32)
        """Of the channels, as they come."""
        self._expected_seconds: float | None = None
        """Where the last sample ends, by the number of samples since the piece's first."""
        self._drift_seconds = 0.0
        """How far times are off that, on average of late."""
        self._is_running = self._has_jumped = False

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of the sound that came so far."""
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
        """From when on packets are needed, of those that have not come yet; ``inf``: none are."""
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
        self._end_piece()
        self.reached_seconds = math.inf

    def cut(self, start_seconds: float, end_seconds: float) -> tuple[SoundRun, ...]:
        """What was read between two times, in order of time, not overlapping."""
        runs = []
        for piece in self._pieces:
            run = piece.cut(start_seconds, end_seconds)
            if run is not None:
                runs.append(run)
                start_seconds = run.start_seconds + len(run.samples) / self.sample_rate
        return tuple(runs)

    def forget(self, before_seconds: float) -> None:
        """Let go of sound that nobody will ask for again."""
        for piece in self._pieces:
            piece.forget(before_seconds)
        # The last one may still grow.
        self._pieces = [piece for piece in self._pieces[:-1] if piece.chunks] + self._pieces[-1:]

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
        if self._landing_seconds is not None:
            if start > self._landing_seconds + _GAP_SECONDS:
                raise RescanNeeded
            self._landing_seconds = None
        while self._spans and self._spans[-1][1] + _TAIL_SECONDS < start:
            self._spans.pop()
        if self._whole or (self._spans and end >= self._spans[-1][0] - _WARM_UP_SECONDS):
            self._is_running = True
            is_warm_up = self._has_jumped and not self._whole and end <= self._spans[-1][0]
            self._decode(packet, is_warm_up)
        else:
            self._stop()
            self._has_jumped = True
        if not self._gathered.samples:
            self.reached_seconds = max(self.reached_seconds, end - _TAIL_SECONDS)

    def _clock(self, pts: int) -> float:
        return pts * self._tick_seconds - self._zero_seconds

    def _start_of(self, pts: int | None) -> float:
        """What has no time of its own begins where the last sample ended."""
        return (self._expected_seconds or 0.0) if pts is None else self._clock(pts)

    def _decode(self, packet: av.Packet | None, is_warm_up: bool) -> None:
        try:
            for frame in self._codec.decode(packet):
                check_sound_format(self.media, frame.sample_rate, frame.layout.nb_channels)
                self._place(frame)
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

    def _place(self, frame: av.AudioFrame) -> None:
        start, expected = self._start_of(frame.pts), self._expected_seconds
        # Samples are counted, and the count is held against every time that comes.
        error = math.inf if expected is None else start - expected
        has_gap = abs(error) > _GAP_SECONDS
        self._drift_seconds += 0.0 if has_gap else (error - self._drift_seconds) / _DRIFT_FRAMES
        if expected is not None and not has_gap and abs(self._drift_seconds) > _DRIFT_SECONDS:
            has_gap, start = True, expected + self._drift_seconds
        if expected is None or not self._pieces or (has_gap and not self._whole):
            self._end_piece()
            self._pieces.append(_Piece(start, self.sample_rate))
            expected, self._drift_seconds = start, 0.0
        self._expected_seconds = expected + frame.samples / frame.sample_rate
        found = (frame.format.name, frame.layout.name, frame.sample_rate)
        if self._resampler is None or found != self._format:
            self._flush_resampler()
            # Each channel by itself: FFmpeg's own way down to mono does not keep the level.
            self._resampler = av.AudioResampler(format="flt", layout=frame.layout, rate=self.sample_rate)
            self._format, self._weights = found, self._weights_of(frame.layout)
        frame.pts = None  # told apart by `_expected_seconds`; the fifo would count on its own
        self._gathered.write(frame)
        if self._gathered.samples >= _SAMPLES_AT_ONCE:
            self._resample_gathered()

    def _resample_gathered(self) -> None:
        if self._resampler is not None and self._gathered.samples:
            self._keep(self._resampler.resample(self._gathered.read()))

    def _keep(self, frames: list[av.AudioFrame]) -> None:
        for frame in frames:
            self._pieces[-1].chunks.append(mixed(frame, self._weights))

    def _weights_of(self, layout: av.AudioLayout) -> np.ndarray:
        # The published scripts hear the mean of all channels.
        num_channels = layout.nb_channels
        return np.full(num_channels, 1 / num_channels, np.float32) if self._whole else mono_weights(layout)

    def _flush_resampler(self) -> None:
        if self._resampler is not None:
            self._resample_gathered()
            self._keep(self._resampler.resample(None))
            self._resampler, self._gathered = None, av.AudioFifo()

    def _end_piece(self) -> None:
        self._flush_resampler()
        self._expected_seconds = None

    def _stop(self) -> None:
        if self._is_running:
            self._end_piece()
            self._codec.flush_buffers()
            self._is_running = False


class _Piece:
    """Sound without a gap."""

    def __init__(self, origin_seconds: float, sample_rate: int):
        self.origin_seconds, self.sample_rate = origin_seconds, sample_rate
        self.chunks: list[np.ndarray] = []
        self._num_forgotten = 0

    def cut(self, start_seconds: float, end_seconds: float) -> SoundRun | None:
        held = sum(map(len, self.chunks))
        first, last = (
            int(np.clip(self._index(at), self._num_forgotten, self._num_forgotten + held))
            for at in (start_seconds, end_seconds)
        )
        if last <= first:
            return None
        samples = np.concatenate(self.chunks)[first - self._num_forgotten : last - self._num_forgotten]
        return SoundRun(self.origin_seconds + first / self.sample_rate, samples)

    def forget(self, before_seconds: float) -> None:
        while self.chunks and self._num_forgotten + len(self.chunks[0]) <= self._index(before_seconds):
            self._num_forgotten += len(self.chunks.pop(0))

    def _index(self, seconds: float) -> float:
        """The first sample at or after a time; a millionth of a sample is rounding."""
        if math.isinf(seconds):
            return seconds
        return float(math.ceil((seconds - self.origin_seconds) * self.sample_rate - 1e-6))
