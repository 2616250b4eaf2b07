"""pyav.py: the default backend: wanted frames out of a video stream, and nothing else, through PyAV."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np

from viper_e2e.clip import Side
from viper_e2e.decoding.attempts import FieldsFound, RescanNeeded, TornEnd
from viper_e2e.decoding.av1 import References
from viper_e2e.decoding.codec import can_skip, prepare_video_codec, whole_frames
from viper_e2e.decoding.deinterlacing import Deinterlacer, with_neighbours
from viper_e2e.decoding.geometry import Size, pixel_aspect
from viper_e2e.decoding.media import ClipMedia
from viper_e2e.decoding.picture import Scaler
from viper_e2e.decoding.sound import SoundReader
from viper_e2e.decoding.timeline import PacketAction, Timeline

_SKIP, _DROP, _WANTED = int(PacketAction.SKIP), int(PacketAction.DROP), int(PacketAction.WANTED)
LEAP_SECONDS = 1.0
"""Packets that nobody needs are read all the same if they are fewer than of so long; a seek costs as much."""


class FrameReader:
    """Packets in, wanted frames out, as a player shows them, and scaled.

    Pictures that nothing refers to are left out, and so is everything between the last frame wanted before
    a keyframe and that keyframe; in a long file with an index such packets are not even read. What comes out is
    bit for bit what decoding everything would give.
    """

    def __init__(
        self,
        media: ClipMedia,
        timeline: Timeline,
        wanted: np.ndarray,
        max_side: int | None,
        sound: SoundReader | None = None,
        *,
        has_fields: bool = False,
        side: Side = "full",
    ):
        """`wanted`: bool mask over the timeline's frames. `sound` gets its packets if they are in this file.

        `has_fields`: frames may be interlaced; without, `FieldsFound` is raised at the first that is.
        `side`: the half of each picture that is handed out.
        """
        self.media, self.timeline, self.wanted = media, timeline, wanted
        self.sound = None if sound is not None and sound.is_apart else sound
        self.num_decoded = 0
        self._scaler = Scaler(media, max_side, side=side)
        self._codec = media.video.codec_context
        # Where all frames are decoded anyhow, neighbours are at hand.
        self._fields = Deinterlacer(wanted) if has_fields or timeline.by_order else None
        self._needed_frames = wanted if self._fields is None else with_neighbours(wanted)
        self._aspects: dict[int | None, Fraction] = {}
        """Shape of pixels, which may change, by the time of frames that are still on their way."""
        packets = timeline.packets
        feed = None if packets is None else packets.feed(self._needed_frames)
        # As bytes: plain numbers are cheaper than enum members, once for every packet of a long clip.
        self._feed = None if feed is None else feed.tobytes()
        self._skips = not timeline.by_order and can_skip(media)
        is_av1 = self._codec.codec.canonical_name == "av1" and not timeline.by_order
        self._references = References(self._codec.extradata) if is_av1 else None
        self._next_packet = self._next_frame = 0
        self._is_running = self._is_landing = self._is_over = False
        self._started_at: int | None = None
        """The time of the keyframe that decoding last began at."""
        self._landing_seconds = -math.inf
        """Time that the last seek aimed at."""
        self._leaps: _Leaps | None = None
        if packets is not None and feed is not None and media.is_indexed and not media.kept.is_complete:
            seconds = (packets.pts - timeline.pts[0]) * float(timeline.tick_seconds)
            self._leaps = _Leaps(np.flatnonzero(feed != _SKIP), packets.pts, seconds)
        prepare_video_codec(media)

    @property
    def display_size(self) -> Size:
        """Width, height as shown, before scaling; known with the first frame."""
        return self._scaler.display_size

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on the pictures so far."""
        return self._scaler.notes

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        """(index in the timeline, uint8 ``H W 3``) of each wanted frame, ascending; feeds `sound` beside it."""
        streams = self.media.video, self.media.audio if self.sound else None
        while not self._is_over:
            self._is_over = True
            for packet in self.media.packets(*streams):
                if packet.stream is self.media.video:
                    yield from self._read(packet)
                    if self._leap():
                        break
                elif self.sound is not None:
                    self.sound.read(packet)
        yield from self._finish()
        if self._fields is not None:
            yield from self._converted(self._fields.finish())
        if self.sound is not None:
            self.sound.finish()

    def _read(self, packet: av.Packet) -> Iterator[tuple[int, np.ndarray]]:
        if self._feed is None:
            yield from self._pick(self._decode(packet))
            return
        if self._is_landing:
            self._next_packet, self._is_landing = self._landed_at(packet), False
        feed = self._feed[self._next_packet]
        self._next_packet += 1
        if feed == _SKIP:
            yield from self._finish()
        elif feed != _DROP:
            if not self._is_running:
                self._is_running, self._started_at = True, packet.pts
            if self._skips:
                self._codec.skip_frame = "DEFAULT" if feed == _WANTED else "NONREF"
            elif self._references is not None:
                needed = self._references.needed_part(memoryview(packet))
                if feed != _WANTED:
                    packet = _replaced(packet, needed)
            if packet.size:  # an empty one would tell the decoder that the stream ends
                frames = self._decode(packet)
                if feed == _WANTED:
                    self._aspects[packet.pts] = pixel_aspect(self.media)
                yield from self._pick(frames)

    def _decode(self, packet: av.Packet | None) -> list[av.VideoFrame]:
        frames, failure = whole_frames(self.media, packet)
        if failure is None or (self._feed is None and self.timeline.is_torn):
            return frames
        is_last = self._feed is not None and self._next_packet == len(self._feed)
        if is_last and self.media.may_break_off and not self.timeline.is_torn:
            raise TornEnd from failure
        raise failure

    def _finish(self) -> Iterator[tuple[int, np.ndarray]]:
        """Get what the decoder still holds; it can start again at a keyframe afterwards."""
        if self._is_running or self._feed is None:
            yield from self._pick(self._decode(None))
            self._codec.flush_buffers()
            self._is_running = False

    def _leap(self) -> bool:
        """Go on where the next packet is needed, if many before it are not; whether the file stands there."""
        leaps, at = self._leaps, self._next_packet - 1
        if leaps is None or self._feed is None or self._feed[at] != _SKIP:
            return False
        place = np.searchsorted(leaps.needed, at)
        target = leaps.seconds[leaps.needed[place]] if place < len(leaps.needed) else math.inf
        if self.sound is not None:
            target = min(target, self.sound.needed_from())
        if target - leaps.seconds[at] < LEAP_SECONDS or target <= self._landing_seconds:
            return False
        self._landing_seconds = target
        if self.sound is not None:
            self.sound.seek(target)
        if target < math.inf:
            ticks = math.floor(target / float(self.timeline.tick_seconds)) + int(self.timeline.pts[0])
            self.media.seek(self.media.video, ticks)
            self._is_over, self._is_landing = False, True
        return True

    def _landed_at(self, packet: av.Packet) -> int:
        """Number of this packet in the timeline, after a seek. Raises `RescanNeeded` if that is unclear."""
        assert self._leaps is not None
        pts = packet.pts if packet.pts is not None else packet.dts
        found = np.flatnonzero(self._leaps.pts == pts)
        if len(found) != 1 or self._leaps.seconds[found[0]] > self._landing_seconds:
            raise RescanNeeded
        return int(found[0])

    def _pick(self, frames: list[av.VideoFrame]) -> Iterator[tuple[int, np.ndarray]]:
        for frame in frames:
            self.num_decoded += 1
            if not frame.key_frame and frame.pts is not None and frame.pts == self._started_at:
                # Its packet is marked as a keyframe, and built on those jumped over.
                raise RescanNeeded
            index = self._index_of(frame)
            if index is None or not self._needed_frames[index]:
                continue
            if self._fields is not None:
                yield from self._converted(self._fields.push(index, frame))
            elif frame.interlaced_frame:
                raise FieldsFound
            else:
                yield from self._converted([(index, frame)])

    def _converted(self, frames: Iterable[tuple[int, av.VideoFrame]]) -> Iterator[tuple[int, np.ndarray]]:
        for index, frame in frames:
            yield index, self._scaler(frame, self._aspects.pop(int(self.timeline.pts[index]), None))

    def _index_of(self, frame: av.VideoFrame) -> int | None:
        if self._feed is None:
            self._next_frame += 1
            return self._next_frame - 1 if self._next_frame <= len(self.wanted) else None
        pts = self.timeline.pts
        index = int(np.searchsorted(pts, frame.pts)) if frame.pts is not None else len(pts)
        return index if index < len(pts) and pts[index] == frame.pts else None


@dataclass(frozen=True)
class _Leaps:
    """Targets of seeks in a long file with an index, for every packet of the timeline in the file's order."""

    needed: np.ndarray
    """int64: the packets that are."""
    pts: np.ndarray
    seconds: np.ndarray
    """Times on the clip's clock."""


def _replaced(packet: av.Packet, content: bytes | memoryview) -> av.Packet:
    """The packet itself if `content` is all of it, else one in its place with only that."""
    if len(content) == packet.size:
        return packet
    other = av.Packet(bytes(content))
    other.pts, other.dts, other.time_base = packet.pts, packet.dts, packet.time_base
    return other
