"""containers.py: boxes of MP4 files, found and overwritten."""

from __future__ import annotations

import struct

CODECS = {"mp4": "libx264", "mov": "libx264", "mkv": "libx264", "flv": "libx264", "ts": "libx264"}


def boxes(data: bytes, kind: bytes) -> list[int]:
    """Where the content of boxes of a kind begins."""
    found, at = [], data.find(kind)
    while at >= 0:
        found.append(at + 4)
        at = data.find(kind, at + 1)
    return found


def put(data: bytes, at: int, layout: str, *values: int) -> bytes:
    packed = struct.pack(layout, *values)
    return data[:at] + packed + data[at + len(packed) :]


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content
