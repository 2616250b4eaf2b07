"""cropping.py: hides the edges of the coded picture that the container says to crop."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from io import BufferedIOBase

import av
from av.filter import Graph
from av.filter.context import FilterContext

from viper_e2e.decoding.headers import boxes


@dataclass(frozen=True)
class Crop:
    """Pixels left out at each edge of a picture as stored."""

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0

    def size(self, width: int, height: int) -> tuple[int, int]:
        """What remains; all of it where nothing would."""
        inner = width - self.left - self.right, height - self.top - self.bottom
        return (
            inner
            if min(inner) > 0 and min(self.left, self.top, self.right, self.bottom) >= 0
            else (width, height)
        )


NO_CROP = Crop()


class Cropper:
    """Frames without those edges; no pixel is copied."""

    def __init__(self, crop: Crop):
        self.crop = crop
        self._graph = Graph()
        self._kind: tuple = ()
        """Of the frames that the graph is made for."""

    def __call__(self, frame: av.VideoFrame) -> av.VideoFrame:
        width, height = self.crop.size(frame.width, frame.height)
        if (width, height) == (frame.width, frame.height):
            return frame
        kind = frame.width, frame.height, frame.format.name
        if kind != self._kind:
            self._graph, self._kind = Graph(), kind
            place = {"x": str(self.crop.left), "y": str(self.crop.top)}
            self._graph.link_nodes(
                new_buffer(self._graph, frame),
                self._graph.add("crop", w=str(width), h=str(height), exact="1", **place),
                self._graph.add("buffersink"),
            ).configure()
        self._graph.push(frame)
        return self._graph.vpull()


def new_buffer(graph: Graph, frame: av.VideoFrame) -> FilterContext:
    """Where frames like this one enter a graph; times are of no use there, but it asks for their unit."""
    time_base = frame.time_base or Fraction(1, 1000)
    return graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=time_base)


def read_crops(file: BufferedIOBase, kind: str, num_bytes: int) -> list[Crop]:
    """The crop of each video track of an mp4 (clean aperture) or mkv (PixelCrop), in order; else none."""
    if kind in ("mp4", "mov"):
        return list(_mp4_crops(file, num_bytes))
    if kind in ("mkv", "webm"):
        return list(_matroska_crops(file, num_bytes))
    return []


def _mp4_crops(file: BufferedIOBase, num_bytes: int) -> Iterator[Crop]:
    is_video = False
    for kind, start, end in boxes(file, 0, num_bytes, 0):
        if kind == b"trak":
            is_video = False
        elif kind == b"hdlr":
            is_video |= _read(file, start + 8, min(end, start + 12)) == b"vide"
        elif kind == b"stsd" and is_video:
            yield _clean_aperture(_read(file, start + 8, min(end, start + 65536)))


def _clean_aperture(entry: bytes) -> Crop:
    """From the first sample description (ISO/IEC 14496-12, 12.1.4 and 8.5.2)."""
    if len(entry) < 86:
        return NO_CROP
    end = min(struct.unpack_from(">I", entry)[0], len(entry))
    width, height = struct.unpack_from(">HH", entry, 32)
    at = 86
    while at + 8 <= end:
        size, kind = struct.unpack_from(">I4s", entry, at)
        if kind == b"clap" and size >= 40 and at + 40 <= end:
            numbers = struct.unpack_from(">8i", entry, at + 8)
            if min(numbers[1::2]) <= 0:
                return NO_CROP
            shown_x, shown_y, offset_x, offset_y = (
                n // d for n, d in zip(numbers[::2], numbers[1::2], strict=True)
            )
            left, top = offset_x + (width - shown_x) // 2, offset_y + (height - shown_y) // 2
            return Crop(left, top, width - shown_x - left, height - shown_y - top)
        if size < 8:
            break
        at += size
    return NO_CROP


_SEGMENT, _TRACKS, _CLUSTER, _ENTRY, _TYPE, _VIDEO = 0x18538067, 0x1654AE6B, 0x1F43B675, 0xAE, 0x83, 0xE0
_EDGES = {0x54CC: "left", 0x54BB: "top", 0x54DD: "right", 0x54AA: "bottom"}
_PARENTS = (_SEGMENT, _TRACKS, _VIDEO)
_MAX_DEPTH, _MAX_ELEMENTS = 4, 10_000


def _matroska_crops(file: BufferedIOBase, num_bytes: int) -> Iterator[Crop]:
    for kind, start, end in _elements(file, 0, num_bytes):
        if kind != _ENTRY:
            continue
        is_video, edges = False, {}
        for part, at, stop in _elements(file, start, end):
            if part == _TYPE:
                is_video = _read(file, at, stop) == b"\1"
            elif part in _EDGES:
                edges[_EDGES[part]] = int.from_bytes(_read(file, at, min(stop, at + 8)))
        if is_video:
            yield Crop(**edges)


def _elements(file: BufferedIOBase, start: int, end: int, depth: int = 0) -> Iterator[tuple[int, int, int]]:
    """Id, first and last byte of the content of each element down to tracks; a cluster ends the walk."""
    num_seen = 0
    while start + 2 <= end and depth < _MAX_DEPTH and num_seen < _MAX_ELEMENTS:
        num_seen += 1
        head = _read(file, start, min(end, start + 12))
        id_bytes = 9 - head[0].bit_length()
        if head[0] == 0 or id_bytes > 4 or len(head) < id_bytes + 1 or head[id_bytes] == 0:
            return
        kind, field = int.from_bytes(head[:id_bytes]), head[id_bytes:]
        size_bytes = 9 - field[0].bit_length()
        if len(field) < size_bytes or kind == _CLUSTER:
            return
        content = start + id_bytes + size_bytes
        size = int.from_bytes(field[:size_bytes]) & ((1 << 7 * size_bytes) - 1)
        is_open = size == (1 << 7 * size_bytes) - 1
        stop = end if is_open else min(content + size, end)
        if kind in _PARENTS:
            yield from _elements(file, content, stop, depth + 1)
            if kind == _TRACKS:
                return
        else:
            yield kind, content, stop
        start = stop


def _read(file: BufferedIOBase, start: int, end: int) -> bytes:
    file.seek(start)
    return file.read(max(0, end - start))
