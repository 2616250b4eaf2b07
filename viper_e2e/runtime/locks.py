"""locks.py: a lock on a file that ends with its process, by whatever means the system has."""

from __future__ import annotations

import errno
import os
from importlib import import_module
from types import ModuleType
from typing import IO, Any


def _if_here(name: str) -> ModuleType | None:
    try:
        return import_module(name)
    except ImportError:
        return None


fcntl, msvcrt = _if_here("fcntl"), _if_here("msvcrt")
"""Locks of POSIX and of Windows."""

_FAR = 1 << 30
"""Windows lets nobody read a locked byte, so one is locked that no file of ours reaches."""


def lock(file: IO[Any]) -> None:
    """Take the lock, or raise ``OSError``: EACCES or EAGAIN where another has it, ENOSYS where there are none.

    A POSIX record lock: the kernel drops it when the process dies, however it dies, and forked workers do not
    inherit it.
    """
    if fcntl is not None:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    elif msvcrt is not None:
        os.lseek(file.fileno(), _FAR, os.SEEK_SET)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
