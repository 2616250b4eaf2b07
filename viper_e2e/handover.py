"""handover.py: results on their way from a worker to its parent: large arrays cross as memory, not as copies.

A worker writes a result into files without a name (`memfd`) and sends their handles; the parent maps them.
Against a pickle through a pipe that saves two copies of every frame. Nothing can be left behind in `/dev/shm`,
whose size containers limit, and what was sent outlives its sender.
"""

from __future__ import annotations

import mmap
import os
import pickle
import tempfile
from typing import Any

SHARED_MIN_BYTES = 1 << 20
"""Arrays from this size on are mapped; smaller ones are copied. What is kept of a clip (its sound, say) then
does not keep the memory of its frames alive."""


def pack(result: Any) -> tuple[list[int], list[int]]:
    """File handles and sizes: first the pickle, then each large array as memory that the parent maps."""
    large: list[memoryview] = []

    def keep_inside(buffer: pickle.PickleBuffer) -> bool:
        view = buffer.raw()
        if view.nbytes < SHARED_MIN_BYTES:
            return True
        large.append(view)
        return False

    header = pickle.dumps(result, protocol=5, buffer_callback=keep_inside)
    parts = [memoryview(header), *large]
    return [_memory_file(part) for part in parts], [part.nbytes for part in parts]


def unpack(handles: list[int], sizes: list[int]) -> Any:
    """Build the result; large arrays stay in the memory that the worker filled, until they are let go."""
    try:
        maps = [mmap.mmap(handle, size) for handle, size in zip(handles, sizes, strict=True)]
    finally:
        for handle in handles:
            os.close(handle)
    header, *large = maps
    with header:
        return pickle.loads(header, buffers=large)


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
