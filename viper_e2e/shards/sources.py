"""shards/sources.py: bytes of a file on disk, on a server or in a store by offset, with one kind of error."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from viper_e2e.shards.addresses import is_remote, refuse_scheme
from viper_e2e.shards.limits import ShardError, ShardLimits
from viper_e2e.shards.remote import RemoteFile
from viper_e2e.shards.shard_state import ShardState

__all__ = ["LocalFile", "RemoteFile", "ShardError", "ShardLimits", "Source", "open_source"]


class LocalFile:
    """A file on disk. Never held open: picklable, safe across fork and threads."""

    window_bytes = 4096
    """How much is read at once while walking headers."""

    def __init__(self, path: str, state: ShardState | None = None):
        self.name, self.state = path, state

    def size(self) -> int:
        """Bytes; raises ``FileNotFoundError``, or ``ShardError`` where it is not a plain file."""
        try:
            found = Path(self.name).stat()
        except FileNotFoundError:
            raise
        except (OSError, ValueError) as error:
            raise ShardError(f"{self.name}: cannot be read ({getattr(error, 'strerror', error)})") from error
        if not stat.S_ISREG(found.st_mode):
            raise ShardError(f"{self.name}: not a plain file; give shards, such as {self.name}/train-*.tar")
        self._check(found)
        return found.st_size

    def read(self, offset: int, size: int) -> bytes:
        """Exactly ``size`` bytes from ``offset``; ``ShardError`` where the file ends earlier."""
        pieces = []
        try:
            with Path(self.name).open("rb", buffering=0) as file:
                file.seek(offset)
                while size > 0 and (piece := file.read(size)):
                    pieces.append(piece)
                    offset, size = offset + len(piece), size - len(piece)
                self._check(os.fstat(file.fileno()))
        except OSError as error:
            raise ShardError(f"{self.name}: cannot be read ({error.strerror})") from error
        if size:
            raise ShardError(f"{self.name}: ends at byte {offset}, {size} bytes early; copy the shard again")
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _check(self, found: os.stat_result) -> None:
        if self.state is not None:
            self.state.check(self.name, f"{found.st_size} bytes, mtime {found.st_mtime_ns} ns")


Source = LocalFile | RemoteFile


class Direct:
    """Opens each shard directly; of a remote one, each read is a request."""

    def open(self, path_or_url: str, version: str | None = None) -> Source:
        return open_source(path_or_url, version)

    def doubt(self, path_or_url: str) -> None:
        """There is nothing between us and the shard that could be wrong."""


def open_source(where: str, version: str | None = None) -> Source:
    """A local path, or an address on a server or in a store; other schemes raise and are never opened.

    ``version``: of the state that reading holds it to, as indexing it has noted; ``None``: of any.
    """
    state = None if version is None else ShardState(version)
    if not is_remote(where):
        return LocalFile(where, state)
    refuse_scheme(where)
    return RemoteFile(where, state)
