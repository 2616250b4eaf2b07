"""lengths.py: how many bytes and seconds a file has by its own header."""

from __future__ import annotations

import struct

import av
from av.container import InputContainer

from viper_e2e.errors import ClipError

_ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")


def stated_seconds(container: InputContainer, kind: str) -> float:
    """How long a file lasts by its header; 0 if that does not say."""
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
