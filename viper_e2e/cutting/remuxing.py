"""remuxing.py: copies a stretch of a film into a file of its own, packet by packet, without re-encoding."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.bitstream import BitStreamFilterContext
from av.container import OutputContainer
from av.error import FFmpegError

from viper_e2e.clip import Segment
from viper_e2e.config import LimitsConfig
from viper_e2e.cutting.frame_log import NO_FRAME, Picture, picture_hash
from viper_e2e.cutting.pcm import sound_as_wav
from viper_e2e.cutting.stretches import TAIL_SECONDS, Stretch, packets_of, time_of
from viper_e2e.decoding import (
    EXACT_SECONDS,
    ClipMedia,
    Timeline,
    open_clip,
    prepare_video_codec,
    read_timeline,
    whole_frames,
)
from viper_e2e.errors import ClipError

EXTENSIONS = {"matroska": "mkv", "mpegts": "ts"}
"""File extensions that differ from the muxer's name."""
WHOLE_BYTES = 64 * 2**20
"""A file that cannot be cut goes along whole with each of its clips, if it is not larger than this."""
SAME_SECONDS = 1e-3
"""Matroska rounds times to the millisecond."""


@dataclass(frozen=True)
class Cut:
    """A file that holds a stretch, and where in it that lies."""

    data: bytes
    extension: str
    segment: Segment
    sound: bytes | None = None
    """A wav that belongs to it, where no container has both."""
    is_uncut: bool = False
    """Whether it is the whole file, as that cannot be cut."""


def cut(stretch: Stretch, limits: LimitsConfig) -> Cut:
    """A stretch as a file of its own; as the whole file, where that is small and its copy is not exact.

    Raises `ClipError`, stage ``cut``.
    """
    if stretch.muxer is not None:
        try:
            return cut_exactly(stretch, limits)
        except ClipError:
            if stretch.path.stat().st_size > min(WHOLE_BYTES, limits.max_bytes_in_memory):
                raise
    segment = Segment(stretch.start_seconds, stretch.end_seconds)
    is_uncut = stretch.is_uncut or stretch.muxer is not None
    return Cut(stretch.path.read_bytes(), stretch.path.suffix[1:].lower(), segment, is_uncut=is_uncut)


def cut_exactly(stretch: Stretch, limits: LimitsConfig) -> Cut:
    """A stretch as a file of its own. Raises `ClipError`, stage ``cut`` where that would not be exact."""
    name = str(stretch.path)
    try:
        data, sound = _remuxed(stretch, limits)
    except (FFmpegError, ValueError) as error:
        raise ClipError(f"cannot be cut into {stretch.muxer} ({error})", stage="cut", clip=name) from error
    late = stretch.origin_seconds - stretch.zero_seconds
    start, end = (max(at + late, 0.0) for at in (stretch.start_seconds, stretch.end_seconds))
    with open_clip(data, limits, name) as media:
        timeline = read_timeline(media, data, with_sound=True)
    inside = frames_between(timeline, start, end)
    shown = timeline.seconds[inside]
    is_same = len(shown) == len(stretch.frame_seconds)
    is_same = is_same and np.abs(shown - stretch.frame_seconds).max() <= SAME_SECONDS
    if is_same and len(stretch.hashes):
        is_same = np.array_equal(_hashes(data, limits, timeline, inside), stretch.hashes)
    if not is_same:
        at = f"from {stretch.start_seconds:g} s to {stretch.end_seconds:g} s"
        message = f"cannot be cut exactly {at}: it has other frames there after a copy of its packets"
        raise ClipError(message, stage="cut", clip=name)
    extension = EXTENSIONS.get(str(stretch.muxer), str(stretch.muxer))
    return Cut(data, extension, Segment(start, end), sound)


def _hashes(data: bytes, limits: LimitsConfig, timeline: Timeline, inside: slice) -> np.ndarray:
    """uint32: hashes of some of a file's frames, of those that exist."""
    times, hashes = [], []
    with open_clip(data, limits) as media:
        prepare_video_codec(media)
        for packet in [*media.packets(media.video), None]:
            frames, failure = whole_frames(media, packet)
            if failure is not None:
                raise failure
            times += [frame.pts for frame in frames]
            hashes += [picture_hash(frame) for frame in frames]
    if timeline.by_order:
        return np.array(hashes[inside], np.uint32)
    by_time = dict(zip(times, hashes, strict=True))
    return np.array([by_time[at] for at in timeline.pts[inside].tolist() if at in by_time], np.uint32)


def frames_between(timeline: Timeline, start_seconds: float, end_seconds: float) -> slice:
    """Frames as `Plan` finds them; if none begins in between, the one on screen."""
    first, last = np.searchsorted(timeline.seconds, np.array([start_seconds, end_seconds]) - EXACT_SECONDS)
    first = first if first < last else max(last - 1, 0)
    return slice(int(first), int(max(last, first + 1)))


def _remuxed(stretch: Stretch, limits: LimitsConfig) -> tuple[bytes, bytes | None]:
    """The packets of a stretch in a new file, and its sound as a wav if that file cannot hold it."""
    found = packets_of(stretch, limits)
    file, sound = io.BytesIO(), None
    with open_clip(stretch.path, limits, str(stretch.path), stretch.tracks) as media:
        options = _muxer_options(stretch.muxer, media.tick_seconds, [Fraction(p.time_base) for _, p in found])
        if len(stretch.shown):
            found = _with_times_of_display(found, media.video, stretch.shown)
        with _muxing(file, stretch.muxer, options) as made:
            places: dict[int, av.stream.Stream] = {
                media.video.index: _place_for_pictures(made, media.video, stretch.picture)
            }
            heard = media.audio
            if heard is not None and any(index == heard.index for index, _ in found):
                if _keeps_sound_apart(made, heard):
                    sound = _wav_of(stretch, media, heard, found)
                    found = [(index, packet) for index, packet in found if index in places]
                else:
                    # `opaque`: there may be no encoder for it.
                    places[heard.index] = made.add_stream_from_template(heard, opaque=True)
                    places[heard.index].time_base = heard.time_base
            _set_decoding_times([packet for index, packet in found if index == media.video.index])
            late = _shift(found)
            for index, packet in found:
                ticks = round(late / packet.time_base)
                packet.pts = None if packet.pts is None else packet.pts - ticks
                packet.dts = None if packet.dts is None else packet.dts - ticks
                packet.stream = places[index]
                made.mux(packet)
    return file.getvalue(), sound


@contextmanager
def _muxing(file: io.BytesIO, muxer: str | None, options: dict[str, str]) -> Iterator[OutputContainer]:
    """A new file. Its errors are `ValueError`, not those of the film that is open meanwhile."""
    try:
        with av.open(file, "w", format=muxer, options=options) as made:
            yield made
    except FFmpegError as error:
        raise ValueError(error.strerror or str(error)) from error


def _place_for_pictures(
    made: OutputContainer, video: av.VideoStream, picture: Picture | None
) -> av.VideoStream:
    place = made.add_stream_from_template(video, opaque=True)
    place.time_base = video.time_base
    codec = place.codec_context
    aspect = video.sample_aspect_ratio
    if aspect is not None and aspect.numerator > 0:
        # What the container says of the shape of pixels, which the codec may not.
        codec.sample_aspect_ratio = Fraction(aspect.numerator, aspect.denominator)
    if video.codec_context.name == "rawvideo":
        # Which tells how pixels lie.
        codec.codec_tag = video.codec_context.codec_tag
    if not codec.width and picture is not None:
        codec.width, codec.height, codec.pix_fmt = picture.width, picture.height, picture.pixel_format
    return place


def _keeps_sound_apart(made: OutputContainer, stream: av.AudioStream) -> bool:
    # AVI has no time at which sound begins.
    return made.format.name == "avi" or stream.codec_context.name not in made.supported_codecs


def _wav_of(
    stretch: Stretch, media: ClipMedia, heard: av.AudioStream, found: list[tuple[int, av.Packet]]
) -> bytes:
    packets = [packet for index, packet in found if index == heard.index]
    end = stretch.end_seconds + stretch.origin_seconds + TAIL_SECONDS
    return sound_as_wav(media, heard, stretch.zero_seconds, end, packets)


def _with_times_of_display(
    found: list[tuple[int, av.Packet]], video: av.VideoStream, shown: np.ndarray
) -> list[tuple[int, av.Packet]]:
    """The packets, those of pictures with the times at which they are shown; not those that show nothing."""
    # DivX packs two pictures into one packet, because AVI has a packet for each moment, and an empty one after
    # it; where packets say when they are shown, each has its own. Others leave the filter as they were.
    is_mpeg4 = video.codec_context.name == "mpeg4"
    unpack = BitStreamFilterContext("mpeg4_unpack_bframes", video) if is_mpeg4 else None
    times, timed = iter(shown.tolist()), []
    for index, packet in found:
        if index != video.index:
            packet.pts = packet.pts if packet.pts is not None else packet.dts
            timed.append((index, packet))
            continue
        at, tick = next(times), packet.time_base
        packet.pts, packet.dts = at, None
        (packet,) = unpack.filter(packet) if unpack is not None else (packet,)
        packet.time_base = tick
        if at != NO_FRAME:
            timed.append((index, packet))
    return timed


def _muxer_options(muxer: str | None, tick: Fraction, ticks: list[Fraction]) -> dict[str, str]:
    # Without the program's version and a random number: same packets, same bytes.
    options = {"fflags": "+bitexact"}
    scale = math.lcm(*(tick.denominator for tick in ticks))
    if muxer in ("mp4", "mov") and scale < 2**31:
        # In this unit edit lists say when a track begins; in the usual one, milliseconds, sound would be off.
        options["movie_timescale"] = str(scale)
    if muxer in ("mp4", "mov") and tick.numerator == 1:
        # The film's own unit: which frames are taken at even distances depends on what counts as the same time.
        options["video_track_timescale"] = str(tick.denominator)
    if muxer == "matroska":
        options["allow_raw_vfw"] = "1"
    return options


def _set_decoding_times(packets: list[av.Packet]) -> None:
    """Set decoding times for containers that keep only times of display: these in order, shifted as needed."""
    if all(packet.dts is not None for packet in packets):
        return
    times = [at for packet in packets if (at := time_of(packet)) is not None]
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
