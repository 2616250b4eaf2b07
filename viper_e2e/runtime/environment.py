"""environment.py: explains refusals of the operating system in one line: a full disk, a missing permission."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_REASONS = {
    errno.ENOSPC: "no space is left on this disk{free}; make room, or name a folder elsewhere",
    errno.EDQUOT: "your share of this disk is used up; make room, or name a folder elsewhere",
    errno.EFBIG: "the file grows beyond what is allowed here (ulimit -f)",
    errno.EACCES: "no permission; ask its owner, or name another one",
    errno.EPERM: "not permitted; ask its owner, or name another one",
    errno.EROFS: "this disk can only be read; name a folder elsewhere",
    errno.EMFILE: "too many open files; raise ulimit -n, or lower --num-workers",
    errno.ENFILE: "this machine has too many open files",
    errno.ENOENT: "no such file or folder; is the path right?",
    errno.EISDIR: "is a folder; name a file",
    errno.ENOTDIR: "there is a file where a folder is needed",
    errno.ENAMETOOLONG: "the name is longer than this disk allows",
    errno.EIO: "the disk failed (input/output error)",
    errno.ESTALE: "the network disk has lost it; try again",
}

_OF_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def explain(error: OSError, path: str | os.PathLike | None = None) -> str:
    """One line: which file (`path` where the error does not say), what is wrong with it, what to do."""
    reason = _REASONS.get(error.errno or 0, error.strerror or str(error).splitlines()[0])
    # Of a copy, the file that was to be written is the second.
    file = error.filename2 if error.errno in _OF_WRITING and error.filename2 else error.filename
    named = file if isinstance(file, str | bytes) else path or ""
    where = os.fsdecode(named)
    reason = reason.format(free=_free(where)) if "{free}" in reason else reason
    return f"{where}: {reason}" if where else reason


def _free(where: str) -> str:
    """Free space where the file was to be, if known: other disks may have room."""
    for folder in Path(where).absolute().parents if where else ():
        try:
            return f" ({shutil.disk_usage(folder).free / 2**20:,.0f} MB)"
        except OSError:
            continue
    return ""


@contextmanager
def naming(path: str | os.PathLike) -> Iterator[None]:
    """Around writing a file: an error that does not say which file, as of a full disk, says it from here on."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = os.fspath(path)
        raise
