"""frame_log.py: the packet of each frame of a film, found by decoding, and the hash of its pixels."""

from __future__ import annotations

import zlib
from array import array
from dataclasses import dataclass

import av
import numpy as np

from viper_e2e.decoding import FramePackets, Timeline


@dataclass(frozen=True)
class Picture:
    """Facts about pictures that a muxer needs and a header may lack."""

    width: int
    height: int
    pixel_format: str

    @classmethod
    def of(cls, frame: av.VideoFrame) -> Picture:
        """A frame's."""
        return cls(frame.width, frame.height, frame.format.name)


class FrameLog:
    """Goes along while a film is decoded from its first packet to its last.

    Each packet is given its number, which the decoder hands on to the frame that it makes of it; so an order of
    packets is known without their times of display, which AVI, ASF and program streams do not keep.
    """

    def __init__(self) -> None:
        self._own, self._hashes, self._is_key = array("q"), array("L"), bytearray()
        self._is_keyframe, self._times, self._sizes = bytearray(), array("q"), array("q")
        self._unknown = 0
        self.has_fields = False
        """Whether a picture is of two fields (interlaced)."""
        self.picture: Picture | None = None
        """The first."""

    def watch(self, codec: av.VideoCodecContext) -> None:
        """Have a decoder hand on the numbers; before its first packet."""
        codec.copy_opaque = True

    def add_packet(self, packet: av.Packet) -> None:
        """Number the next packet, before it is decoded."""
        packet.opaque = len(self._times)
        time = packet.dts if packet.dts is not None else packet.pts
        self._unknown += time is None
        self._times.append(time or 0)
        self._sizes.append(packet.size)
        self._is_keyframe.append(packet.is_keyframe)

    def add_frame(self, frame: av.VideoFrame) -> None:
        """Take the next frame in the order in which they are shown."""
        self._unknown += frame.opaque is None
        self._own.append(frame.opaque if isinstance(frame.opaque, int) else 0)
        self._is_key.append(frame.key_frame)
        self._hashes.append(picture_hash(frame))
        self.picture = self.picture or Picture.of(frame)
        self.has_fields |= frame.interlaced_frame

    @property
    def hashes(self) -> np.ndarray:
        """`picture_hash` of each frame."""
        return np.array(self._hashes, np.uint32)

    @property
    def as_written(self) -> np.ndarray:
        """int64, a row for each packet: its time as written in the file, and its bytes."""
        return np.stack([np.array(self._times, np.int64), np.array(self._sizes, np.int64)], axis=1)

    def frame_packets(self, timeline: Timeline) -> FramePackets | None:
        """Packets with their times of display, `NO_FRAME` if nothing is shown; None: unknown."""
        own = np.array(self._own, np.int64)
        if self._unknown or len(own) != len(timeline.pts) or len(np.unique(own)) < len(own):
            return None
        pts = np.full(len(self._times), NO_FRAME, np.int64)
        pts[own] = timeline.pts
        is_key = np.frombuffer(self._is_keyframe, np.uint8) != 0
        is_start = np.zeros(len(pts), bool)
        is_start[own] = np.frombuffer(self._is_key, np.uint8) != 0
        keys = np.flatnonzero(is_key & is_start)
        if not len(keys) or keys[0] > own.min():
            return None
        nearest = np.searchsorted(keys, own, side="right") - 1
        is_leading = pts[keys[nearest]] > timeline.pts
        return FramePackets(own, keys[np.maximum(nearest - is_leading, 0)], pts)


NO_FRAME = -(2**63)
"""The time of display of a packet that shows nothing."""


def picture_hash(frame: av.VideoFrame) -> int:
    """A checksum of what a decoder gives: of all its planes, without what lies beside the picture."""
    found = 0
    for index, plane in enumerate(frame.planes):
        rows = np.frombuffer(memoryview(plane), np.uint8)[: plane.height * plane.line_size]
        seen = rows.reshape(plane.height, -1)[:, : _row_bytes(frame, index)]
        found = zlib.crc32(seen.tobytes(), found)
    return found


def _row_bytes(frame: av.VideoFrame, plane: int) -> int:
    kind = frame.format
    if len(frame.planes) == 1 or kind.has_palette:
        # A palette is a plane of its own, of which the picture has what it shows.
        return kind.padded_bits_per_pixel * frame.width // 8 if plane == 0 else 0
    parts = [part for part in kind.components if part.plane == plane]
    return sum((part.bits + 7) // 8 for part in parts) * frame.planes[plane].width
