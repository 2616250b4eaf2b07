"""read_ahead_buffer.py: shards in memory or being fetched, and how long their readers need each."""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from viper_e2e.loading.spans import Span
from viper_e2e.runtime import count_of
from viper_e2e.shards import ShardIndex, WholeShard

TAIL_BYTES = 2**20
LOOK_FURTHER = 64
"""Shards after the next one that a clip waits for."""


@runtime_checkable
class Room(Protocol):
    """Storage for the bytes of a shard."""

    have: int

    def write(self, piece: bytes) -> None: ...
    def read(self, offset: int, size: int) -> bytes: ...
    def start_again(self) -> None: ...
    def settle(self) -> None: ...
    def give_up(self) -> None: ...


class InMemory:
    """The bytes of one shard, as far as they have come."""

    def __init__(self, size: int):
        # Not a bytearray: what is mapped goes back to the system when nobody holds it any more.
        self._bytes, self.have = mmap.mmap(-1, size), 0

    def write(self, piece: bytes) -> None:
        self._bytes[self.have : self.have + len(piece)] = piece
        self.have += len(piece)

    def read(self, offset: int, size: int) -> bytes:
        return self._bytes[offset : offset + size]

    def start_again(self) -> None:
        self.have = 0

    def settle(self) -> None:
        """Nothing is left to do."""

    def give_up(self) -> None:
        """Its memory goes with the last reference to it."""


@dataclass
class Held:
    """A shard in memory or in the folder, or on its way there."""

    shard: ShardIndex
    room: Room
    whole: WholeShard
    is_coming: bool = False
    failures: int = 0
    again_at: float = 0.0
    """When it is asked for again, if it failed."""
    name: str = ""
    """Name in the folder of cached shards."""

    @property
    def is_whole(self) -> bool:
        return self.room.have == self.shard.size

    @property
    def is_nearly_there(self) -> bool:
        """Whether all bytes are on their way into the folder but for an end that may contain no clip."""
        return self.is_coming and bool(self.name) and self.shard.size - self.room.have <= TAIL_BYTES

    @property
    def num_bytes(self) -> int:
        """Bytes in memory."""
        return self.shard.size if isinstance(self.room, InMemory) else 0


@dataclass
class Walk:
    """A reader on its way through clips: which shards it will need, and where it is."""

    coming: Iterator[Span]
    is_on_demand: bool
    """Shards are fetched once a clip of them is asked for: all of theirs may be in memory already."""
    waiting: deque[Span] = field(default_factory=deque)
    """The next of them."""
    needed: dict[str, int] = field(default_factory=dict)
    """Address → last position at which it may be needed, of those that are held."""
    position: int = -1
    is_blocked: bool = False
    """Whether the next shard finds no room before another is no longer needed."""

    def look(self) -> list[Span]:
        """The next few spans that are not over."""
        while len(self.waiting) < LOOK_FURTHER and (more := next(self.coming, None)) is not None:
            self.waiting.append(more)
        while self.waiting and self.waiting[0].last <= self.position:
            self.waiting.popleft()
        return list(self.waiting)


@dataclass
class Counts:
    """Counts of shards and clips by outcome."""

    fetched: int = 0
    fetched_bytes: int = 0
    found: int = 0
    """Shards that were in the folder."""
    clips_whole: int = 0
    """Pieces that came out of whole shards."""
    clips_by_range: int = 0

    def in_words(self, cache: str | None) -> str:
        """A line for people, empty where there was nothing to read. ``cache``: the folder, if there is one."""
        if not (self.fetched or self.found or self.clips_by_range):
            return ""
        parts = [f"{count_of(self.fetched, 'shard')} fetched whole ({self.fetched_bytes / 1e6:,.1f} MB)"]
        if cache is not None:
            parts.insert(0, f"{count_of(self.found, 'shard')} found in {cache}")
        if self.clips_by_range:
            parts.append(f"{count_of(self.clips_by_range, 'file')} read by a range each")
        return ", ".join(parts)
