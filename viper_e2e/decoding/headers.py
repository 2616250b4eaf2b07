"""headers.py: a file's header (length, tables, edges to hide), checked before FFmpeg relies on it.

Of an mp4, a table that says "all samples have one size" takes 20 bytes for any number of samples, but FFmpeg
keeps 24 bytes for each of them: 100 KB that claim 50 million one-byte samples cost 1.8 GB. So the boxes are
walked here first; nothing is read but their headers and a few numbers.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedIOBase

import av
from av.container import InputContainer

from viper_e2e.errors import ClipError

_ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
# The boxes that FFmpeg looks into (mov_default_parse_table, libavformat/mov.c).
_NESTING = {
    *(b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"moof", b"traf"),
    *(b"mvex", b"udta", b"dinf", b"tref", b"wave", b"sinf", b"schi", b"gmhd"),
}
_SOUND_HANDLER = struct.unpack(">I", b"soun")
_MAX_BOXES = 1_000_000
_MAX_DEPTH = 12
_USUAL_EDITS = 16
# Of Matroska: its elements that lead to a picture's edges.
_SEGMENT, _TRACKS, _CLUSTER, _ENTRY, _TYPE, _VIDEO = 0x18538067, 0x1654AE6B, 0x1F43B675, 0xAE, 0x83, 0xE0
_EDGES = {0x54CC: "left", 0x54BB: "top", 0x54DD: "right", 0x54AA: "bottom"}
_PARENTS = (_SEGMENT, _TRACKS, _VIDEO)
_MAX_ELEMENT_DEPTH, _MAX_ELEMENTS = 4, 10_000


def stated_seconds(container: InputContainer, kind: str) -> float:
    """Duration of a file by its header; 0 if it states none."""
    seconds = (container.duration or 0) / av.time_base
    if kind in ("mkv", "webm"):
        # It tells when it ends: a part of a recording that begins hours into it is not hours long.
        seconds -= max(container.start_time or 0, 0) / av.time_base
    return max(seconds, 0.0)


def check_length(head: bytes, num_bytes: int, name: str) -> None:
    """Refuse a mkv, webm, avi, asf or wav that is shorter than it says (mp4: counted in `timeline.py`)."""
    promised = 0
    if head[:4] in (b"RF64", b"BW64") and head[12:16] == b"ds64":
        promised = struct.unpack("<Q", head[20:28])[0] + 8
    elif head.startswith(b"RIFF"):
        promised = struct.unpack("<I", head[4:8])[0] + 8
        # What writers leave there that could not go back to fill it in.
        promised = 0 if promised in (8, 0xFFFFFFFF + 8) else promised
    elif (at := head.find(_ASF_FILE_PROPERTIES)) > 0 and len(head) >= at + 92:
        size, flags = struct.unpack("<40xQ40xI", head[at : at + 92])
        # A broadcast is written without knowing its end.
        promised = 0 if flags & 1 else size
    elif head.startswith(b"\x1a\x45\xdf\xa3") and (at := head.find(b"\x18\x53\x80\x67")) > 0:
        promised = _ebml_size(head[at + 4 : at + 12]) + at
    if promised > num_bytes + 1:
        message = f"is cut short: {num_bytes:,} of {promised:,} bytes; copy it again"
        raise ClipError(message, stage="container", clip=name)


def _ebml_size(field: bytes) -> int:
    """An EBML variable-length size plus the bytes it is written in, or 0 if it says that it is unknown."""
    if len(field) < 8 or field[0] == 0:
        return 0
    width = 9 - field[0].bit_length()
    value = int.from_bytes(field[:width]) & ((1 << 7 * width) - 1)
    return 0 if value == (1 << 7 * width) - 1 else value + width + 4


# --- mp4 ------------------------------------------------------------------------------------------


@dataclass
class _Track:
    """Boxes of one track, which may come in any order."""

    num_samples: int = 0
    same_size: bool = False
    is_sound: bool = False
    one_tick_each: bool = False
    num_edits: int = 0

    @property
    def num_free(self) -> int:
        """Entries that FFmpeg makes but no byte of the file pays for."""
        # Uncompressed sound, a tick a sample, is indexed by chunk (mov_build_index).
        return 0 if not self.same_size or (self.is_sound and self.one_tick_each) else self.num_samples


def check_mp4_tables(file: BufferedIOBase, num_bytes: int, max_samples: int, name: str) -> None:
    """Refuse tables that claim more than the file can hold or than `max_samples` over all tracks.

    Raises `ClipError` (stage ``container``). Leaves the file's position anywhere.
    """
    tracks, in_fragments = [_Track()], 0
    for kind, start, end in _boxes(file, 0, num_bytes, 0):
        track = tracks[-1]
        if kind == b"trak":
            tracks.append(_Track())
        elif kind == b"cmov":
            _refuse("its header is compressed, which can hide any size; convert it", name)
        elif kind == b"hdlr":
            track.is_sound |= _numbers(file, start, end, ">8xI", name) == _SOUND_HANDLER
        elif kind == b"stts":
            (count,) = _numbers(file, start, end, ">4xI", name)
            track.one_tick_each = count == 1 and _numbers(file, start, end, ">12xI", name) == (1,)
        elif kind == b"stsz":
            size, track.num_samples = _numbers(file, start, end, ">4xII", name)
            track.same_size = size > 0
            if size * track.num_samples > num_bytes:
                _refuse(f"claims {track.num_samples:,} samples of {size:,} bytes in {num_bytes:,} bytes", name)
        elif kind == b"trun":
            flags, count = _numbers(file, start, end, ">II", name)
            # Bits 8 to 11: fields that each sample brings along; none: only the count is written.
            in_fragments += 0 if flags & 0xF00 else count
        elif kind == b"elst":
            (track.num_edits,) = _numbers(file, start, end, ">4xI", name)
    claimed = in_fragments + sum(track.num_free for track in tracks)
    if claimed > max_samples:
        _refuse(f"claims {claimed:,} samples; limits.max_frames allows {max_samples:,}", name)
    for track in tracks:
        # Each edit repeats the entries of the samples it shows.
        if track.num_edits > _USUAL_EDITS and track.num_edits * track.num_samples > max_samples:
            _refuse(f"has an edit list of {track.num_edits:,} entries; convert it", name)


def _boxes(file: BufferedIOBase, start: int, end: int, depth: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, first and last byte of the content of every box; a torn one ends the walk."""
    seen = 0
    while start + 8 <= end and depth < _MAX_DEPTH:
        file.seek(start)
        size, kind = struct.unpack(">I4s", file.read(8))
        content = start + 8
        if size == 1 and content + 8 <= end:
            (size,) = struct.unpack(">Q", file.read(8))
            content += 8
        stop = end if size == 0 else start + size
        if stop < content or seen > _MAX_BOXES:
            return
        yield kind, content, min(stop, end)
        if kind in _NESTING:
            yield from _boxes(file, content, min(stop, end), depth + 1)
        start, seen = stop, seen + 1


def _numbers(file: BufferedIOBase, start: int, end: int, layout: str, name: str) -> tuple[int, ...]:
    size = struct.calcsize(layout)
    if start + size > end:
        _refuse("is cut short inside its header; copy it again", name)
    file.seek(start)
    return struct.unpack(layout, file.read(size))


def _refuse(message: str, name: str) -> None:
    raise ClipError(message, stage="container", clip=name)


# --- edges that are not shown ---------------------------------------------------------------------


@dataclass(frozen=True)
class Crop:
    """Pixels left out at each edge of a picture as stored."""

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Size that remains; the whole size if nothing would."""
        inner = width - self.left - self.right, height - self.top - self.bottom
        return (
            inner
            if min(inner) > 0 and min(self.left, self.top, self.right, self.bottom) >= 0
            else (width, height)
        )


NO_CROP = Crop()


def read_crops(file: BufferedIOBase, kind: str, num_bytes: int) -> list[Crop]:
    """The crop of each video track of an mp4 (clean aperture) or mkv (PixelCrop), in order; else none."""
    if kind in ("mp4", "mov"):
        return list(_mp4_crops(file, num_bytes))
    if kind in ("mkv", "webm"):
        return list(_matroska_crops(file, num_bytes))
    return []


def _mp4_crops(file: BufferedIOBase, num_bytes: int) -> Iterator[Crop]:
    is_video = False
    for kind, start, end in _boxes(file, 0, num_bytes, 0):
        if kind == b"trak":
            is_video = False
        elif kind == b"hdlr":
            is_video |= _read(file, start + 8, min(end, start + 12)) == b"vide"
        elif kind == b"stsd" and is_video:
            yield _clean_aperture(_read(file, start + 8, min(end, start + 65536)))


def _clean_aperture(entry: bytes) -> Crop:
    """Crop in the first sample description (ISO/IEC 14496-12, 12.1.4 and 8.5.2)."""
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
    while start + 2 <= end and depth < _MAX_ELEMENT_DEPTH and num_seen < _MAX_ELEMENTS:
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
