"""shards/whole_shards.py: a whole shard by one request, in pieces as they come, resumed where it was cut."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from viper_e2e.shards import remote
from viper_e2e.shards.limits import ShardError, UnreachableError
from viper_e2e.shards.remote import SERVED, RemoteFile, patience_seconds, version_of

if TYPE_CHECKING:
    from viper_e2e.shards.http_client import Answer

PIECE_BYTES = 2**20
"""Bytes lost at most by a broken connection; a slow server is given up between two pieces."""


@dataclass
class WholeShard:
    """A shard on its way. What has come stays when it fails: `pieces` continues from there."""

    file: RemoteFile
    size: int
    """Size that its index states."""
    expected: str | None = None
    """State that the server must report; ``None``: the first that it reports."""
    version: str | None = None
    """State that it reported first."""
    at: int = 0
    """Bytes that have come."""

    def pieces(self, is_wanted: Callable[[], bool] = lambda: True) -> Iterator[bytes]:
        """The bytes from `at` on, in order; ends early once they are wanted no more.

        Raises ``UnreachableError`` where the network or the server fails again and again, ``FileNotFoundError``
        and ``ShardError`` as reading a range does, and where the shard was replaced meanwhile.
        """
        from viper_e2e.shards.http_client import Stumble  # 0.1 s of imports that local shards do without

        waits = iter(remote.RETRY_SECONDS)
        while self.at < self.size and is_wanted():
            began = self.at
            try:
                yield from self._attempt(is_wanted)
            except Stumble as stumble:
                if self.at > began:
                    waits = iter(remote.RETRY_SECONDS)  # progress was made: start the delays again
                wait = next(waits, None)
                if wait is None or max(wait, stumble.wait_seconds) > remote.PATIENCE_SECONDS:
                    raise UnreachableError(
                        f"{self.file.name}: {stumble}; check the address and the network"
                    ) from stumble
                time.sleep(max(wait, stumble.wait_seconds))

    def _attempt(self, is_wanted: Callable[[], bool]) -> Iterator[bytes]:
        with self.file.asked(self.at, self.size - self.at) as answer:
            if answer.status not in SERVED:
                self.file.refused(answer)
                raise ShardError(f"{self.file.name}: empty, its index says {self.size} bytes")
            before, total = self.file.place_in(answer, self.at, self.size - self.at)
            self._check(answer, total)
            if before:
                answer.exactly(before, patience_seconds(before))
            while self.at < self.size and is_wanted():
                size = min(PIECE_BYTES, self.size - self.at)
                piece = answer.exactly(size, patience_seconds(size))
                self.at += size
                yield piece

    def _check(self, answer: Answer, total: int) -> None:
        """Half of one state and half of another would be neither."""
        if total != self.size:
            raise ShardError(
                f"{self.file.name}: {total} bytes, its index says {self.size}; copy or pack it again"
            )
        version = version_of(answer)
        if (self.at and version != self.version) or self.expected not in (None, version):
            self.at = 0
            raise ShardError(f"{self.file.name}: was replaced while it was read")
        self.version = version
