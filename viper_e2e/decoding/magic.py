"""magic.py: the kind of a file, by its first bytes alone, before FFmpeg reads any of it.

FFmpeg given the text of a playlist (DASH, HLS, ffconcat, SDP) opens the files, sockets and addresses
it names, and given a picture plays it as a one-frame video. So the format is decided here, by strict
magic numbers, and FFmpeg is told which demuxer to use.
"""

from __future__ import annotations

import shlex
from pathlib import PurePath

from viper_e2e.errors import ClipError
from viper_e2e.runtime import printable

HEAD_BYTES = 4096
"""How much of a file `sniff` wants to see."""

VIDEO_CONTAINERS = ("mp4", "mov", "mkv", "webm", "avi", "flv", "ts", "ogg", "asf", "mpeg", "gif", "dv")
"""`asf`: Windows Media (.wmv). `mpeg`: program streams (.mpg, .vob). `dv`: raw DV of tapes."""
BESIDE_CONTAINERS = ("wav", "flac", "w64", "mp3", "aac", "ogg", "mp4", "mov", "mkv", "webm")
"""Kinds of files with sound alone, beside a clip. `aac`: the bare stream (ADTS)."""
_W64 = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"

_MP4_BOXES = {b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide", b"pnot"}
_MAGICS = {
    b"OggS\0": "ogg",
    b"FLV\x01": "flv",
    b"GIF87a": "gif",
    b"GIF89a": "gif",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c": "asf",
}
_VIDEO_MARKS = {"ogg": (b"theora", b"OVP80", b"BBCD", b"video"), "gif": (b"NETSCAPE2.0",)}
"""Markers of more than sound, or of more than one picture, in these."""
_STILL_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1", b"avif", b"avis", b"crx ", b"jxl "}
_PICTURES = {
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"BM": "a BMP picture",
    b"II*\0": "a TIFF picture",
    b"MM\0*": "a TIFF picture",
    b"\0\0\0\x0cjP  ": "a JPEG 2000 picture",
    b"\0\0\0\x0cJXL ": "a JPEG XL picture",
    b"\0\0\1\0": "an icon",
    b"8BPS": "a Photoshop picture",
}
_PLAYLISTS = {
    b"#EXTM3U": "an HLS playlist",
    b"ffconcat": "an ffconcat playlist",
    b"v=0": "an SDP session description",
    b"[playlist]": "a PLS playlist",
    b"[reference]": "an ASX playlist",
    b"<asx": "an ASX playlist",
    b"<smil": "a SMIL playlist",
}
_CONVERTIBLE = {
    # MXF's index tables claim sizes that FFmpeg allocates without asking.
    b"\x06\x0e\x2b\x34\x02\x05\x01\x01": ("an MXF file", "", "-map 0:v:0 -map 0:a? -c copy", ".mov"),
    b".RMF": ("a RealMedia file", "", "", ".mp4"),
    **{
        start + unit: ("a bare video stream without times", "-framerate 25 ", "", ".mp4")
        for start in (b"\0\0\0\1", b"\0\0\1")
        # H.264's parameter sets (or the delimiter before), H.265's, and a sequence header of MPEG-1 and 2.
        for unit in (b"\x67", b"\x27", b"\x47", b"\x09", b"\x40\x01", b"\x46\x01", b"\xb3")
    },
}
"""Kinds that can hold a clip and are not opened: a name, and how FFmpeg makes one of it (options for its input
and its output, the new ending)."""
_OTHER_SOUNDS = {
    b".snd": "AU",
    b"caff": "CAF",
    b"#!AMR": "AMR",
    b"wvpk": "WavPack",
    b"MAC ": "Monkey's Audio",
    b"TTA1": "True Audio",
    b"\x0b\x77": "AC-3",
    b"\x7f\xfe\x80\x01": "DTS",
}
"""Sound alone that is not read beside a clip either; AIFF, whose name stands further in, as well."""
_OTHERS = {
    b"\0\0\1\xba": "an odd MPEG program stream",
    b"\x30\x26\xb2\x75": "an odd Windows Media file",
    b"GIF8": "an odd GIF",
    b"PK\3\4": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"%PDF": "a PDF document",
    b"\x7fELF": "a program",
}

_WITHOUT_VIDEO = {
    **dict.fromkeys(("text", "a PDF document", "a program"), "name the video itself"),
    **dict.fromkeys(("a zip archive", "a gzip archive"), "unpack it, and name the video itself"),
}
"""Kinds that no program makes a clip of, and what to do."""


def sniff(head: bytes, *, name: str = "") -> str:
    """The container a file is in.

    `head`: its first bytes (`HEAD_BYTES`, or all of a shorter file).
    Returns one of `VIDEO_CONTAINERS`.
    Raises `ClipError` (stage ``container``) for everything else, saying what it is and how to convert it.
    """
    if not head:
        raise ClipError("is empty; copy it again", stage="container", clip=name)
    found = _container(head)
    if found is None and (sound := _sound_container(head) or _other_sound(head)):
        raise ClipError(sound_alone(sound, name), stage="container", clip=name)
    if found is None and (convertible := next((m for m in _CONVERTIBLE if head.startswith(m)), None)):
        raise ClipError(_advice(convertible, name), stage="container", clip=name)
    if found is None:
        kind = _describe(head)
        advice = _WITHOUT_VIDEO.get(kind, f"convert it to one of {' '.join(VIDEO_CONTAINERS)}")
        raise ClipError(f"is {kind}, not a clip; {advice}", stage="container", clip=name)
    return found


def sniff_sound(head: bytes, *, name: str = "") -> str:
    """The same for a file that shall hold only sound; one of `BESIDE_CONTAINERS`, or what it is instead."""
    inside = head[id3_bytes(head) :] or head
    if other := _other_sound(inside):
        old, new = _files(name or "SOUND", ".flac")
        reason = f"holds {other}, which is not read beside a clip; convert it: ffmpeg -i {old} {new}"
        raise ClipError(reason, stage="container", clip=name)
    return _sound_container(inside) or sniff(head, name=name)


def sound_alone(kind: str, name: str) -> str:
    """Message about a file without pictures that was given as a clip."""
    return f"holds only sound ({kind}), no pictures; to score it with a black one: {with_black_picture(name)}"


def with_black_picture(name: str) -> str:
    """The command that makes a clip of a file with sound alone.

    Recoded without loss: not every kind can be copied into Matroska, nor keeps its first instant there.
    """
    old, new = _files(name or "SOUND", ".mkv")
    return f"ffmpeg -f lavfi -i color=black:s=64x64 -i {old} -map 0:v -map 1:a -shortest -c:a flac {new}"


def id3_bytes(head: bytes) -> int:
    """Length of an ID3 tag in front of what a file holds (ID3v2.4, section 3.1)."""
    if not head.startswith(b"ID3") or len(head) < 10 or max(head[6:10]) > 0x7F:
        return 0
    size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
    return 10 + size + (10 if head[5] & 0x10 else 0)


def _sound_container(head: bytes) -> str | None:
    if head[:4] in (b"RIFF", b"RF64", b"BW64") and head[8:12] == b"WAVE":
        return "wav"
    if head.startswith(_W64):
        return "w64"
    if head.startswith(b"fLaC"):
        return "flac"
    if head[:1] == b"\xff" and len(head) > 1 and head[1] & 0xF0 == 0xF0 and head[1] & 6 == 0:
        # A frame of ADTS: layer 0, which MPEG audio does not have.
        return "aac"
    # Of what begins like MPEG audio, FF FE is the mark of text in UTF-16.
    starts = head[:1] == b"\xff" and len(head) > 1 and head[1] & 0xE0 == 0xE0 and head[1] != 0xFE
    return "mp3" if starts or head.startswith(b"ID3") else None


def _other_sound(head: bytes) -> str | None:
    if head.startswith(b"FORM") and head[8:12] in (b"AIFF", b"AIFC"):
        return "AIFF"
    return next((kind for magic, kind in _OTHER_SOUNDS.items() if head.startswith(magic)), None)


def is_video(head: bytes) -> bool:
    """Whether a file begins like one with pictures in motion, that can be read or converted."""
    container = _container(head)
    if container is not None and container in _VIDEO_MARKS:
        return any(mark in head for mark in _VIDEO_MARKS[container])
    return container in VIDEO_CONTAINERS or head.startswith(tuple(_CONVERTIBLE))


def _advice(magic: bytes, name: str) -> str:
    what, before, after, ending = _CONVERTIBLE[magic]
    old, new = _files(name or "CLIP", ending)
    rate = " (25: give its own rate)" if before else ""
    return f"is {what}; convert it: ffmpeg {before}-i {old} {after}{' ' if after else ''}{new}{rate}"


def _files(name: str, ending: str) -> tuple[str, str]:
    """A file and its conversion with another ending, as a shell takes them."""
    path = PurePath(printable(name))
    stem = f"{path.stem}-new" if path.suffix == ending else path.stem
    return shlex.quote(f"./{path.name}"), shlex.quote(f"./{stem}{ending}")


def _container(head: bytes) -> str | None:
    if head[4:8] in _MP4_BOXES:
        return _iso_media(head)
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return _ebml(head)
    if head.startswith(b"RIFF"):
        return "avi" if head[8:12] == b"AVI " else None
    for magic, container in _MAGICS.items():
        if head.startswith(magic):
            return container
    # A pack header of MPEG-1 or MPEG-2, with its marker bits.
    if head.startswith(b"\0\0\1\xba") and len(head) > 4 and (head[4] >> 4 == 2 or head[4] >> 6 == 1):
        return "mpeg"
    # A header block of sequence 0 (SMPTE 314M); the last byte tells 525 lines from 625.
    if head.startswith(b"\x1f\x07\0") and len(head) > 3 and head[3] & 0x7F == 0x3F:
        return "dv"
    # Packets of 188 bytes, or 192 with a time code in front (camcorders).
    if any(all(head[at : at + 1] == b"\x47" for at in start) for start in ((0, 188, 376), (4, 196, 388))):
        return "ts"
    return None


def _iso_media(head: bytes) -> str | None:
    if head[4:8] != b"ftyp":
        return "mov"
    brand = head[8:12]
    if brand in _STILL_BRANDS:
        return None
    return "mov" if brand == b"qt  " else "mp4"


def _ebml(head: bytes) -> str | None:
    at = head.find(b"\x42\x82")
    if at < 0:
        return None
    doctype = head[at + 3 : at + 3 + (head[at + 2] & 0x7F)].rstrip(b"\0")
    return {b"webm": "webm", b"matroska": "mkv"}.get(doctype)


def _describe(head: bytes) -> str:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"<") and b"<mpd" in text.lower():
        return "a DASH playlist"
    for magics in (_PLAYLISTS, _PICTURES, _OTHERS):
        for magic, what in magics.items():
            if head.startswith(magic) or (magics is _PLAYLISTS and text.lower().startswith(magic.lower())):
                return what
    if head[4:8] == b"ftyp" and head[8:12] in _STILL_BRANDS:
        return f"a picture ({head[8:12].decode().strip()})"
    if head.startswith(b"RIFF"):
        return "a WebP picture" if head[8:12] == b"WEBP" else "a RIFF file of another kind"
    if all(byte >= 0x20 or byte in b"\t\n\r\f" for byte in head[:512]):
        return "text"
    return f"in no format we open (its first bytes are {head[:8].hex(' ')})"
