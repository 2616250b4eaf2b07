"""cutting.py: a stretch of a long file as a file of its own: its packets as they are, nothing encoded anew."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError
from av.stream import Discard

from viper_e2e.clip import Segment
from viper_e2e.config import DecodingConfig, LimitsConfig
from viper_e2e.decoding.container import open_clip
from viper_e2e.decoding.decoder import ClipDecoder
from viper_e2e.decoding.media import ClipMedia
from viper_e2e.decoding.plan import EXACT_SECONDS
from viper_e2e.decoding.scan import read_timeline
from viper_e2e.decoding.timeline import Timeline
from viper_e2e.errors import ClipError

MUXERS = {
    "mp4": ("mp4", "matroska"),
    "mov": ("mov", "mp4", "matroska"),
    "mkv": ("matroska",),
    "webm": ("webm", "matroska"),
    "flv": ("flv", "matroska"),
    "ts": ("mp4", "mpegts", "matroska"),
    "ogg": ("matroska",),
}
"""FFmpeg's names of what may hold the packets of a file of this kind, the likelier first."""
EXTENSIONS = {"matroska": "mkv", "mpegts": "ts"}
"""Where it is not the muxer's name."""
SEEKABLE = ("mp4", "mov", "mkv", "webm")
"""Kinds that are read from near a stretch on; others from their beginning."""
WHOLE_BYTES = 64 * 2**20
"""A file that cannot be cut goes along whole with each of its clips, if it is not larger than this."""
WARM_UP_SECONDS = 0.5
"""Of sound before a stretch, and `TAIL_SECONDS` behind it: what decoders need to give it exactly."""
TAIL_SECONDS = 0.1
INTERLEAVED_SECONDS = 2.0
"""By so much a file may hold sound before or behind the pictures of the same time."""
WORST_INTERLEAVED_SECONDS = 10.0
"""Farther behind the last picture no sound is waited for."""
SAME_SECONDS = 1e-3
"""Matroska rounds times to the millisecond."""


@dataclass(frozen=True)
class Stretch:
    """What of a long file a clip needs; all that `cut` has to know of the file."""

    path: Path
    start_seconds: float
    """On the file's clock (0 = its first frame)."""
    end_seconds: float
    muxer: str | None = None
    """FFmpeg's name of the new file's kind; ``None``: the whole file goes along."""
    num_packets: int = 0
    """Of pictures, from the first one on, in the file's order."""
    first: tuple[int, int] = (0, 0)
    """Time, in ticks of its stream, and bytes of the first of them."""
    zero_seconds: float = 0.0
    """When the new file's first frame is shown, on the clock of the packets."""
    origin_seconds: float = 0.0
    """The same of the long file's first frame."""
    frame_seconds: np.ndarray = field(default_factory=lambda: np.zeros(0), compare=False)
    """Times of the clip's frames in the new file, on its clock."""


@dataclass(frozen=True)
class Cut:
    """A file that holds a stretch, and where in it that lies."""

    data: bytes
    extension: str
    segment: Segment


class LongFile:
    """A file that several clips are cut out of: when its frames are shown, and which packets they come from."""

    def __init__(self, path: Path, limits: LimitsConfig, name: str = ""):
        """Raises `ClipError` for a file that cannot be read."""
        self.path, self.limits, self.name = path, limits, name or str(path)
        with open_clip(path, limits, self.name) as media:
            self.kind, self.num_bytes = media.kind, media.num_bytes
            self.timeline = read_timeline(media, path, with_sound=True)
        self.duration_seconds = max(self.timeline.duration_seconds, self.timeline.sound_end_seconds)
        self._sizes: np.ndarray | None = self._packet_sizes()
        self._muxer: str | None = None
        self._is_proved = False

    def stretch(self, start_seconds: float, end_seconds: float) -> Stretch:
        """What is to be copied so that the frames and the sound between two times come out bit for bit.

        Raises `ClipError` where the file can be neither cut nor taken whole.
        """
        timeline, packets = self.timeline, self.timeline.packets
        end_seconds = min(end_seconds, self.duration_seconds)
        whole = Stretch(self.path, start_seconds, end_seconds)
        if packets is None or self._sizes is None:
            return self._checked_whole(whole)
        wanted = _frames_between(timeline, start_seconds, end_seconds)
        first, last = int(packets.keyframe[wanted].min()), int(packets.own[wanted].max())
        if first == 0 and last == len(packets.pts) - 1:
            return whole
        tick, zero = timeline.tick_seconds, int(packets.pts[first])
        made = replace(
            whole,
            num_packets=last - first + 1,
            first=(zero, int(self._sizes[first])),
            zero_seconds=float(zero * tick),
            origin_seconds=timeline.start_seconds,
            frame_seconds=(timeline.pts[wanted] - zero) * float(tick),
        )
        if not self._is_proved:
            self._muxer, self._is_proved = self._prove(made), True
        return replace(made, muxer=self._muxer) if self._muxer else self._checked_whole(whole)

    def _checked_whole(self, stretch: Stretch) -> Stretch:
        if self.num_bytes > min(WHOLE_BYTES, self.limits.max_bytes_in_memory):
            raise ClipError(
                f"is a {self.kind} file that cannot be cut exactly without encoding it anew, and too large "
                f"({self.num_bytes:,} bytes) to go along whole with each clip; cut it, or convert it with "
                "`ffmpeg -i FILE -c copy FILE.mp4`",
                stage="cut",
                clip=self.name,
            )
        return stretch

    def _packet_sizes(self) -> np.ndarray | None:
        """int64, bytes of each packet of pictures, in the file's order; None where their times are not those of
        the timeline, as where a clock starts anew."""
        packets, found = self.timeline.packets, []
        if packets is None or self.kind not in MUXERS:
            return None
        with open_clip(self.path, self.limits, self.name) as media:
            for packet in _demuxed(media, media.video):
                found.append((_time_of(packet), packet.size))
        if any(at is None for at, _ in found):
            return None
        times = np.array(found, np.int64).reshape(-1, 2)
        return times[:, 1] if np.array_equal(times[:, 0], packets.pts) else None

    def _prove(self, stretch: Stretch) -> str | None:
        """The first muxer whose file shows the very pixels of this one."""
        decode = ClipDecoder(DecodingConfig(num_frames=4, max_side=None, sound="none", limits=self.limits))
        meant = decode(self.path, segment=Segment(stretch.start_seconds, stretch.end_seconds), name=self.name)
        for muxer in MUXERS[self.kind]:
            try:
                made = cut(replace(stretch, muxer=muxer), self.limits)
                shown = decode(made.data, segment=made.segment, name=self.name)
            except ClipError:
                continue
            if np.array_equal(np.asarray(shown.frames), np.asarray(meant.frames)):
                return muxer
        return None


def cut(stretch: Stretch, limits: LimitsConfig) -> Cut:
    """A stretch as a file of its own. Raises `ClipError`, stage ``cut`` where that would not be exact."""
    path, name = stretch.path, str(stretch.path)
    if stretch.muxer is None:
        segment = Segment(stretch.start_seconds, stretch.end_seconds)
        return Cut(path.read_bytes(), path.suffix[1:].lower(), segment)
    try:
        data = _remuxed(stretch, limits)
    except (FFmpegError, ValueError) as error:
        raise ClipError(f"cannot be cut into {stretch.muxer} ({error})", stage="cut", clip=name) from error
    late = stretch.origin_seconds - stretch.zero_seconds
    start, end = (max(at + late, 0.0) for at in (stretch.start_seconds, stretch.end_seconds))
    with open_clip(data, limits, name) as media:
        timeline = read_timeline(media, data, with_sound=True)
    shown = timeline.seconds[_frames_between(timeline, start, end)]
    is_same = len(shown) == len(stretch.frame_seconds)
    if not is_same or np.abs(shown - stretch.frame_seconds).max() > SAME_SECONDS:
        at = f"from {stretch.start_seconds:g} s to {stretch.end_seconds:g} s"
        message = f"cannot be cut exactly {at}: it has other frames there after a copy of its packets"
        raise ClipError(message, stage="cut", clip=name)
    extension = EXTENSIONS.get(stretch.muxer, stretch.muxer)
    return Cut(data, extension, Segment(start, end))


def _frames_between(timeline: Timeline, start_seconds: float, end_seconds: float) -> slice:
    """As `Plan` has it; where no frame begins in between, the one that stands."""
    first, last = np.searchsorted(timeline.seconds, np.array([start_seconds, end_seconds]) - EXACT_SECONDS)
    first = first if first < last else max(last - 1, 0)
    return slice(int(first), int(max(last, first + 1)))


def _demuxed(media: ClipMedia, *streams: av.stream.Stream) -> Iterator[av.Packet]:
    """Packets with the times that are written in the file."""
    for stream in media.container.streams:
        stream.discard = Discard.default if stream in streams else Discard.all
    for packet in media.container.demux(*streams):
        if packet.size:
            yield packet


def _remuxed(stretch: Stretch, limits: LimitsConfig) -> bytes:
    """The packets of a stretch in a new file."""
    packets = _Packets(stretch, limits)
    try:
        found = packets.read(from_near=True)
    except _LandedLate:
        found = packets.read(from_near=False)
    file = io.BytesIO()
    with open_clip(stretch.path, limits, str(stretch.path)) as media:
        streams = media.container.streams
        options = _muxer_options(stretch.muxer, [Fraction(packet.time_base) for _, packet in found])
        with av.open(file, "w", format=stretch.muxer, options=options) as made:
            places = {}
            for index in sorted({index for index, _ in found} | {media.video.index}):
                # `opaque`: there may be no encoder for it.
                places[index] = made.add_stream_from_template(streams[index], opaque=True)
                places[index].time_base = streams[index].time_base
            _set_decoding_times([packet for index, packet in found if index == media.video.index])
            late = _shift(found)
            for index, packet in found:
                ticks = round(late / packet.time_base)
                packet.pts = None if packet.pts is None else packet.pts - ticks
                packet.dts = None if packet.dts is None else packet.dts - ticks
                packet.stream = places[index]
                made.mux(packet)
    return file.getvalue()


def _muxer_options(muxer: str | None, ticks: list[Fraction]) -> dict[str, str]:
    # Without the program's version and a random number: same packets, same bytes.
    options = {"fflags": "+bitexact"}
    scale = math.lcm(*(tick.denominator for tick in ticks))
    if muxer in ("mp4", "mov") and scale < 2**31:
        # In this unit edit lists say when a track begins; in the usual one, milliseconds, sound would be off.
        options["movie_timescale"] = str(scale)
    return options


def _time_of(packet: av.Packet) -> int | None:
    return packet.pts if packet.pts is not None else packet.dts


def _set_decoding_times(packets: list[av.Packet]) -> None:
    """Where a container keeps times of display alone: the same times in order, as early as need be."""
    if all(packet.dts is not None for packet in packets):
        return
    times = [at for packet in packets if (at := _time_of(packet)) is not None]
    ordered = sorted(times)
    early = max(sooner - at for sooner, at in zip(ordered, times, strict=True))
    for packet, at in zip(packets, ordered, strict=True):
        packet.dts = at - early


def _shift(found: list[tuple[int, av.Packet]]) -> Fraction:
    """Seconds to take off all times, so that they begin near 0: whole ticks of all streams, where possible."""
    ticks = {Fraction(packet.time_base) for _, packet in found}
    step = Fraction(
        math.lcm(*(tick.numerator for tick in ticks)), math.gcd(*(tick.denominator for tick in ticks))
    )
    begin = min(
        at * Fraction(packet.time_base)
        for _, packet in found
        for at in (packet.dts, packet.pts)
        if at is not None
    )
    return begin if step > 1 else math.floor(begin / step) * step


class _LandedLate(Exception):
    """A seek went behind the packet that it was to come before."""


class _Packets:
    """Reads the packets of one stretch."""

    def __init__(self, stretch: Stretch, limits: LimitsConfig):
        self.stretch, self.limits = stretch, limits
        start, end = (at + stretch.origin_seconds for at in (stretch.start_seconds, stretch.end_seconds))
        # Sound from the first picture on, for who plays the file from its beginning.
        self.sound = min(stretch.zero_seconds, start - WARM_UP_SECONDS), end + TAIL_SECONDS

    def read(self, *, from_near: bool) -> list[tuple[int, av.Packet]]:
        """(number of the stream, packet), in the file's order."""
        with open_clip(self.stretch.path, self.limits, str(self.stretch.path)) as media:
            early = self.stretch.zero_seconds - INTERLEAVED_SECONDS
            # From its beginning a file is read, not sought: sound before its zero would be lost.
            if from_near and media.kind in SEEKABLE and early > self.stretch.origin_seconds:
                media.seek(media.video, math.floor(early / media.tick_seconds))
            # Streams without a decoder may lack what a muxer must know of them.
            sounds = [stream for stream in media.container.streams.audio if stream.codec_context is not None]
            return list(self._of(media, sounds, from_near))

    def _of(
        self, media: ClipMedia, sounds: list[av.AudioStream], from_near: bool
    ) -> Iterator[tuple[int, av.Packet]]:
        waiting, is_begun = self.stretch.num_packets, False
        heard = {stream.index for stream in sounds}
        for packet in _demuxed(media, media.video, *sounds):
            at = _time_of(packet)
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
                if not waiting and (not heard or seconds > self.sound[1] + WORST_INTERLEAVED_SECONDS):
                    break
            elif at is not None:
                seconds = float(at * packet.time_base)
                length = float((packet.duration or 0) * packet.time_base)
                if seconds > self.sound[1]:
                    heard.discard(packet.stream.index)
                elif seconds + length >= self.sound[0]:
                    yield packet.stream.index, packet
            if not waiting and not heard:
                break
        if waiting:
            raise ValueError(f"{waiting} packets of pictures are not where they were")
