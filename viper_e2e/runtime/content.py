"""content.py: identity by content: hashes of clips and files, of samples of them where they are large."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

WHOLE_BYTES = 1024**2
"""Up to this size every byte is read."""
NUM_PIECES, PIECE_BYTES = 16, 16 * 1024
"""Samples of a larger file. Films are compressed: a new encoding differs nearly everywhere, so samples from
its head to its tail tell it, and an hour of 4K costs as little as ten seconds."""


def digest(data: object) -> str:
    """The sha256 of plain data (what JSON holds), 64 hex digits."""
    text = json.dumps(data, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def sampled_digest(read: Callable[[int, int], bytes], size: int) -> str:
    """A hash of the ``size`` bytes that ``read(offset, size)`` gives: of all, or of pieces of many."""
    found = hashlib.sha256(str(size).encode())
    if size <= WHOLE_BYTES:
        found.update(read(0, size))
    else:
        for piece in range(NUM_PIECES):
            found.update(read(piece * (size - PIECE_BYTES) // (NUM_PIECES - 1), PIECE_BYTES))
    return found.hexdigest()


def file_id(path: Path) -> str | None:
    """Identity of a file's state, which changes when the file is replaced; ``None`` if there is no file.

    Its bytes (sampled) and its times: a copy that kept size and time has other bytes, and whoever changes a few
    bytes between the samples and sets the time back changes the time of that change (``ctime``).
    """
    try:
        if not path.is_file():
            return None
        stat = path.stat()
        with path.open("rb") as file:

            def read(offset: int, size: int) -> bytes:
                file.seek(offset)
                return file.read(size)

            content = sampled_digest(read, stat.st_size)
    except OSError as error:
        return f"unreadable: {error.strerror}"
    return digest([content, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns])
