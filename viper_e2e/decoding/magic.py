"""magic.py: what a file is, told from its first bytes alone, before FFmpeg sees any of it.

FFmpeg given the text of a playlist (DASH, HLS, ffconcat, SDP) opens the files, sockets and addresses
it names, and given a picture plays it as a one-frame video. So the format is decided here, by strict
magic numbers, and FFmpeg is told which demuxer to use.
"""

from __future__ import annotations

from ..errors import ClipError

HEAD_BYTES = 4096
"""How much of a file `sniff` wants to see."""

VIDEO_CONTAINERS = ("mp4", "mov", "mkv", "webm", "avi", "flv", "ts", "ogg")
SOUND_CONTAINERS = ("wav", "flac")

_MP4_BOXES = {b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide", b"pnot"}
_STILL_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1", b"avif", b"avis", b"crx ", b"jxl "}
_PICTURES = {
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"GIF8": "a GIF picture",
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
_OTHERS = {
    b"ID3": "an MP3 file",
    b"\0\0\1\xba": "an MPEG program stream",
    b"\x30\x26\xb2\x75": "a Windows Media file",
    b".RMF": "a RealMedia file",
    b"PK\3\4": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"%PDF": "a PDF document",
    b"\x7fELF": "a program",
}


def sniff(head: bytes, *, name: str = "") -> str:
    """The container a file is in.

    `head`: its first bytes (`HEAD_BYTES`, or all of a shorter file).
    Returns one of ``mp4 mov mkv webm avi flv ts ogg`` (video) or ``wav flac`` (sound).
    Raises `ClipError` (stage ``container``) for everything else, saying what it is.
    """
    if not head:
        raise ClipError("is empty; copy it again", stage="container", clip=name)
    found = _container(head)
    if found is None:
        raise ClipError(
            f"is {_describe(head)}, not a clip; convert it to one of {' '.join(VIDEO_CONTAINERS)}",
            stage="container",
            clip=name,
        )
    return found


def _container(head: bytes) -> str | None:
    if head[4:8] in _MP4_BOXES:
        return _iso_media(head)
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return _ebml(head)
    if head.startswith(b"RIFF"):
        return {b"AVI ": "avi", b"WAVE": "wav"}.get(head[8:12])
    for magic, container in {b"OggS\0": "ogg", b"fLaC": "flac", b"FLV\x01": "flv"}.items():
        if head.startswith(magic):
            return container
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
