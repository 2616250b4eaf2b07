"""pyav.py: the default backend: wanted frames out of a video stream, and nothing else, through PyAV."""

from __future__ import annotations

import math
from collections.abc import Iterator

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import VideoReformatter

from .av1 import References
from .container import Media, check_frame_size, prepare_video_codec, quarter_turns
from .sound import SoundReader
from .timeline import Feed, FramesMissing, Timeline

_JUMP, _DROP, _WANTED = int(Feed.JUMP), int(Feed.DROP), int(Feed.WANTED)
LEAP_SECONDS = 1.0
"""Packets that nobody needs are read all the same if they are fewer than of so long; a leap costs as much."""
_ADVICE = "copy the file again, or leave the clip out"


class FrameReader:
    """Packets in, wanted frames out, upright and scaled.

    Pictures that nothing refers to are left out, and so is everything between the last frame wanted before
    a keyframe and that keyframe; in a long file with an index such packets are not even read. What comes out is
    bit for bit what decoding everything would give.
    """

    def __init__(
        self,
        media: Media,
        timeline: Timeline,
        wanted: np.ndarray,
        max_side: int | None,
        sound: SoundReader | None = None,
    ):
        """`wanted`: bool mask over the timeline's frames. `sound` gets its packets if they are in this file."""
        self.media, self.timeline, self.wanted = media, timeline, wanted
        self.sound = None if sound is not None and sound.is_apart else sound
        self.num_decoded = 0
        self.display_size = (0, 0)
        """Width, height after rotation, before scaling; known with the first frame."""
        self._scaler = Scaler(max_side)
        self._codec = media.video.codec_context
        feed = None if timeline.by_order else timeline.feed(wanted)
        # As bytes: plain numbers are cheaper than enum members, once for every packet of a long clip.
        self._feed = None if feed is None else feed.tobytes()
        self._skips = not timeline.by_order and can_skip(media)
        is_av1 = self._codec.codec.canonical_name == "av1" and not timeline.by_order
        self._references = References(self._codec.extradata) if is_av1 else None
        self._next_packet = self._next_frame = 0
        self._is_running = self._is_landing = self._is_over = False
        self._can_leap = feed is not None and media.is_indexed and not media.kept.is_complete
        self._landing_seconds = -math.inf
        """Where the last leap went to."""
        if self._can_leap:
            self._needed = np.flatnonzero(feed != _JUMP)
            self._packet_seconds = (timeline.packet_pts - timeline.pts[0]) * float(timeline.tick_seconds)
        prepare_video_codec(media)

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        """(index in the timeline, uint8 ``H W 3``) of each wanted frame, ascending; feeds `sound` beside it."""
        streams = self.media.video, self.media.audio if self.sound else None
        while not self._is_over:
            self._is_over = True
            for packet in self.media.packets(*streams):
                if packet.stream is not self.media.video:
                    self.sound.read(packet)
                    continue
                yield from self._read(packet)
                if self._can_leap and self._leap():
                    break
        yield from self._finish()
        if self.sound is not None:
            self.sound.finish()

    def _read(self, packet: av.Packet) -> Iterator[tuple[int, np.ndarray]]:
        if self._feed is None:
            yield from self._pick(decode_packet(self.media, packet))
            return
        if self._is_landing:
            self._next_packet, self._is_landing = self._packet_index_of(packet), False
        feed = self._feed[self._next_packet]
        self._next_packet += 1
        if feed == _JUMP:
            yield from self._finish()
        elif feed != _DROP:
            self._is_running = True
            if self._skips:
                self._codec.skip_frame = "DEFAULT" if feed == _WANTED else "NONREF"
            elif self._references is not None:
                needed = self._references.needed_part(memoryview(packet))
                if feed != _WANTED:
                    packet = _replaced(packet, needed)
            if packet.size:  # an empty one would tell the decoder that the stream ends
                yield from self._pick(decode_packet(self.media, packet))

    def _finish(self) -> Iterator[tuple[int, np.ndarray]]:
        """Get what the decoder still holds; it can start anew at a keyframe afterwards."""
        if self._is_running or self._feed is None:
            yield from self._pick(decode_packet(self.media, None))
            self._codec.flush_buffers()
            self._is_running = False

    def _leap(self) -> bool:
        """Go on where the next packet is needed, if many before it are not; whether the file stands there."""
        at = self._next_packet - 1
        if self._feed[at] != _JUMP:
            return False
        place = np.searchsorted(self._needed, at)
        target = self._packet_seconds[self._needed[place]] if place < len(self._needed) else math.inf
        if self.sound is not None:
            target = min(target, self.sound.needed_from())
        if target - self._packet_seconds[at] < LEAP_SECONDS or target <= self._landing_seconds:
            return False
        self._landing_seconds = target
        if self.sound is not None:
            self.sound.leap(target)
        if target < math.inf:
            ticks = math.floor(target / float(self.timeline.tick_seconds)) + int(self.timeline.pts[0])
            self.media.seek(self.media.video, ticks)
            self._is_over, self._is_landing = False, True
        return True

    def _packet_index_of(self, packet: av.Packet) -> int:
        """Which packet of the timeline this is, after a leap. Raises `FramesMissing` if it cannot be told."""
        pts = packet.pts if packet.pts is not None else packet.dts
        found = np.flatnonzero(self.timeline.packet_pts == pts)
        if len(found) != 1 or self._packet_seconds[found[0]] > self._landing_seconds:
            raise FramesMissing
        return int(found[0])

    def _pick(self, frames: list[av.VideoFrame]) -> Iterator[tuple[int, np.ndarray]]:
        for frame in frames:
            self.num_decoded += 1
            index = self._index_of(frame)
            if index is not None and self.wanted[index]:
                try:
                    image = self._scaler(frame)
                except FFmpegError as error:
                    message = f"pixel format {frame.format.name} cannot be converted; convert the clip"
                    raise self.media.fail(message, stage="decode") from error
                self.display_size = self._scaler.display_size
                yield index, image

    def _index_of(self, frame: av.VideoFrame) -> int | None:
        if self._feed is None:
            self._next_frame += 1
            return self._next_frame - 1 if self._next_frame <= len(self.wanted) else None
        pts = self.timeline.pts
        index = int(np.searchsorted(pts, frame.pts)) if frame.pts is not None else len(pts)
        return index if index < len(pts) and pts[index] == frame.pts else None


class Scaler:
    """Decoded frame → uint8 RGB, upright, its longer side at most `max_side`.

    A clip whose size changes midway keeps the size of its first frame.
    """

    def __init__(self, max_side: int | None):
        self.max_side = max_side
        self.display_size = (0, 0)
        self._size: tuple[int, int] | None = None
        self._reformatter = VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        turns = quarter_turns(frame.rotation)
        if self._size is None:
            self._size = scaled_size(frame.width, frame.height, self.max_side)
            self.display_size = (frame.width, frame.height)[:: -1 if turns % 2 else 1]
        width, height = self._size
        # One thread, and named: PyAV's default is one per core.
        scaled = self._reformatter.reformat(frame, width, height, "rgb24", interpolation="BILINEAR", threads=1)
        return np.rot90(scaled.to_ndarray(), turns)


def scaled_size(width: int, height: int, max_side: int | None) -> tuple[int, int]:
    """Width, height with the longer side at most `max_side`; never larger than given."""
    if max_side is None or max(width, height) <= max_side:
        return width, height
    scale = max_side / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _replaced(packet: av.Packet, content: bytes | memoryview) -> av.Packet:
    """The packet itself if `content` is all of it, else one in its place with only that."""
    if len(content) == packet.size:
        return packet
    other = av.Packet(content)
    other.pts, other.dts, other.time_base = packet.pts, packet.dts, packet.time_base
    return other


def can_skip(media: Media) -> bool:
    """Whether the decoder leaves out, packet by packet, pictures that nothing refers to, and only those.

    libdav1d (see `av1.py`), VP8 and VP9 decide once at the start. In HEVC with temporal layers "not referred
    to" holds for one layer only (H.265 7.4.2.2), so there all are decoded.
    """
    codec = media.video.codec_context
    if codec.name == "hevc":
        header = codec.extradata or b""
        # ISO/IEC 14496-15, HEVCDecoderConfigurationRecord: numTemporalLayers.
        return len(header) > 21 and header[0] == 1 and header[21] >> 3 & 7 == 1
    return codec.name in ("h264", "mpeg4", "mpeg2video", "mpeg1video")


def decode_packet(media: Media, packet: av.Packet | None) -> list[av.VideoFrame]:
    """Frames that the video decoder gives for a packet; ``None`` asks for all that it still holds.

    Raises `ClipError` (stage ``decode``) for damaged data, also where the decoder painted over it.
    """
    try:
        frames = media.video.codec_context.decode(packet)
    except FFmpegError as error:
        where = (
            "" if packet is None or packet.pts is None else f" at {float(packet.pts * packet.time_base):.2f} s"
        )
        raise media.fail(f"a frame{where} cannot be decoded; {_ADVICE}", stage="decode") from error
    for frame in frames:
        if frame.is_corrupt:
            raise media.fail(f"the frame at {frame.time or 0.0:.2f} s is damaged; {_ADVICE}", stage="decode")
        check_frame_size(media, frame.width, frame.height)
    return frames
