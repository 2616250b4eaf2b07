"""handover.py: results on their way from a worker to its parent: large arrays cross as memory, not as copies.

A worker writes a result into files without a name (`memfd`) and sends their handles; the parent maps them.
Against a pickle through a pipe that saves two copies of every frame. Nothing can be left behind in `/dev/shm`,
whose size containers limit, and what was sent outlives its sender. Where handles cannot be sent (Windows) the
same parts go through the pipe.
"""

from __future__ import annotations

import mmap
import os
import pickle
import sys
import tempfile
from multiprocessing import reduction
from multiprocessing.connection import Connection
from typing import Any

SHARED_MIN_BYTES = 1 << 20
"""Arrays from this size on are mapped; smaller ones are copied. What is kept of a clip (its sound, say) then
does not keep the memory of its frames alive."""
PIECE_BYTES = 1 << 26
"""Messages through a pipe are no longer than this: some systems count their bytes in 32 bits."""


def can_send_handles() -> bool:
    """Whether processes can give one another open files here."""
    return sys.platform != "win32" and hasattr(reduction, "send_handle")


def send(parent: Connection, result: object) -> None:
    """Send ``("result", sizes)`` and what `receive` needs to build the result: its pickle, and large arrays."""
    parts = _parts(result)
    parent.send(("result", [part.nbytes for part in parts]))
    for part in parts:
        if can_send_handles():
            handle = _memory_file(part)
            try:
                reduction.send_handle(parent, handle, None)
            finally:
                os.close(handle)
        else:
            for start in range(0, part.nbytes, PIECE_BYTES):
                parent.send_bytes(part[start : start + PIECE_BYTES])


def receive(worker: Connection, sizes: list[int]) -> Any:
    """The result whose sizes have just come; large arrays stay in the memory that came with it."""
    parts: list[mmap.mmap | bytearray]
    if can_send_handles():
        parts = [_mapped(reduction.recv_handle(worker), size) for size in sizes]
    else:
        parts = [_read(worker, size) for size in sizes]
    header, *large = parts
    result = pickle.loads(header, buffers=large)
    if isinstance(header, mmap.mmap):
        header.close()
    return result


def _parts(result: object) -> list[memoryview]:
    """The pickle, then each large array's memory."""
    large: list[memoryview] = []

    def keep_inside(buffer: pickle.PickleBuffer) -> bool:
        view = buffer.raw()
        if view.nbytes < SHARED_MIN_BYTES:
            return True
        large.append(view)
        return False

    header = pickle.dumps(result, protocol=5, buffer_callback=keep_inside)
    return [memoryview(header), *large]


def _mapped(handle: int, size: int) -> mmap.mmap:
    try:
        return mmap.mmap(handle, size)
    finally:
        os.close(handle)


def _read(worker: Connection, size: int) -> bytearray:
    content, at = bytearray(size), 0
    while at < size:
        at += worker.recv_bytes_into(content, at)
    return content


def _memory_file(content: memoryview) -> int:
    """A file without a name that holds `content`; it is gone with its last handle."""
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create("viper-clip")
    else:  # not Linux
        with tempfile.TemporaryFile() as file:
            handle = os.dup(file.fileno())
    while content:
        content = content[os.write(handle, content) :]
    return handle
