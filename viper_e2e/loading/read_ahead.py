"""read_ahead.py: whole shards fetched before their clips are wanted, into bounded memory or a folder."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice

from viper_e2e.loading.read_ahead_buffer import Counts, Held, InMemory, Room, Walk
from viper_e2e.loading.spans import Span
from viper_e2e.runtime import AS_IT_IS, TellOnce, console
from viper_e2e.shards import (
    BusyError,
    RemoteFile,
    RemoteReading,
    ShardCache,
    ShardError,
    ShardIndex,
    WholeShard,
    cache_name,
    without_query,
)

WAIT_SECONDS = 20.0
"""So long a clip waits for its shard to come; then it is read by a range."""
CONNECTIONS = 2
"""Shards that are fetched at the same time."""
RETRY_SECONDS = 5.0
"""Until a shard that could not be had is asked for again."""
MAX_FAILURES = 3
"""Then its clips are left to ranges, until it is needed again."""
TAIL_SECONDS = 5.0
"""Time for the last bytes of a shard to be cached, at the end."""
BUSY_SECONDS = 0.2
"""Until it is looked whether another process has the shard by now."""
IDLE_FILES = 32
"""Cached shards whose files stay open although nobody needs them now."""


class ReadAhead:
    """Shards of this process, for all who walk through them and for their workers."""

    def __init__(self, reading: RemoteReading):
        self._reading = reading
        self._cache = ShardCache(reading.cache, reading.cache_bytes) if reading.cache is not None else None
        self._state = threading.Condition()
        self._held: OrderedDict[str, Held] = OrderedDict()
        """Shards by address, most recently used last."""
        self._walks: list[Walk] = []
        self._asked: set[str] = set()
        self._names: dict[str, str | None] = {}
        """`cache_name` of each shard, by address."""
        self._lack = ""
        """Note for people if a clip is read by a range because its shard does not fit."""
        self._is_busy = False
        """Whether another process fetches what is wanted here."""
        self._notes = TellOnce()
        self.is_open = True
        self.counts = Counts()
        for _ in range(CONNECTIONS):
            threading.Thread(target=self._fetch_all, name="viper-read-ahead", daemon=True).start()

    # --- for those who walk ---------------------------------------------------------------------

    def begin(self, spans: Iterator[Span], *, is_on_demand: bool = False) -> Walk:
        """From now on, shards are fetched in the order of these."""
        walk = Walk(spans, is_on_demand)
        with self._state:
            self._walks.append(walk)
            self._state.notify_all()
        return walk

    def passed(self, walk: Walk, position: int) -> None:
        """All clips up to this position have been had."""
        with self._state:
            walk.position = position
            gone = [address for address, last in walk.needed.items() if last <= position]
            for address in gone:
                del walk.needed[address]
            if gone:
                for blocked in self._walks:
                    blocked.is_blocked = False  # as long as nobody has looked
                self._state.notify_all()

    def end(self, walk: Walk) -> None:
        """Nothing more is wanted by it. What is there stays until room is needed."""
        with self._state:
            if walk in self._walks:
                self._walks.remove(walk)
            self._state.notify_all()

    def close(self) -> None:
        """Let go of everything, and say what came of it."""
        until = time.monotonic() + TAIL_SECONDS
        with self._state:
            # The last clip may be had before the shard's last bytes are, without which it would not be cached.
            while any(held.is_nearly_there for held in self._held.values()) and time.monotonic() < until:
                self._state.wait(TAIL_SECONDS)
            self.is_open = False
            for held in self._held.values():
                if not held.is_coming:
                    held.room.give_up()
            self._held.clear()
            self._state.notify_all()
        if told := self.counts.in_words(self._reading.cache):
            console.print(told, **AS_IT_IS)

    # --- for those who read ---------------------------------------------------------------------

    def read(self, address: str, offset: int, size: int, wait_seconds: float = WAIT_SECONDS) -> bytes | None:
        """Bytes of a shard, once they have come; ``None``: read them by a range."""
        until = time.monotonic() + wait_seconds
        with self._state:
            self._asked.add(address)
            while (held := self._held.get(address)) is None or held.room.have < offset + size:
                left = until - time.monotonic()
                if left <= 0 or not self._will_come(address, held):
                    self.counts.clips_by_range += 1
                    return None
                self._state.notify_all()  # of a shard that is fetched on demand, it is heard of here
                self._state.wait(left)
            self._held.move_to_end(address)
            self.counts.clips_whole += 1
        return held.room.read(offset, size)

    def doubt(self, address: str) -> None:
        """Report a damaged read: the shard is fetched again if it is needed again."""
        with self._state:
            held = self._held.get(address)
            if held is None or held.is_coming:
                return
            self._held.pop(address).room.give_up()
            if self._cache is not None and held.name:
                self._cache.drop(held.name)

    def _will_come(self, address: str, held: Held | None) -> bool:
        if not self.is_open:
            return False
        if held is not None:
            return held.is_coming and not held.failures
        waiting = [w for w in self._walks if any(s.shard.path_or_url == address for s in w.look())]
        if self._lack and waiting and all(walk.is_blocked for walk in waiting):
            self._notes.line(self._lack)
        return any(not walk.is_blocked for walk in waiting)

    # --- fetching -------------------------------------------------------------------------------

    def _fetch_all(self) -> None:
        while True:
            with self._state:
                while self.is_open and (held := self._next()) is None:
                    self._state.wait(self._patience())
                if not self.is_open:
                    return
                assert held is not None, "the loop has ended with one"
                held.is_coming = True
            self._fetch(held)

    def _patience(self) -> float | None:
        """Until something may have changed of which nobody tells us."""
        if self._is_busy:
            return BUSY_SECONDS
        return RETRY_SECONDS / 4 if any(held.failures for held in self._held.values()) else None

    def _next(self) -> Held | None:
        """The shard to be fetched next, for which there is room."""
        now = time.monotonic()
        for address, held in self._held.items():
            if held.failures and not held.is_coming and held.again_at <= now and self._is_needed(address):
                return held
        self._is_busy = False
        for walk in self._walks:
            walk.is_blocked = False
            for span in walk.look():
                address = span.shard.path_or_url
                if address not in self._held:
                    if walk.is_on_demand and address not in self._asked:
                        continue
                    try:
                        made = self._find_room(span.shard)
                    except BusyError:
                        self._is_busy = True
                        continue
                    if made is None:
                        walk.is_blocked = True
                        self._state.notify_all()
                        break
                    self._held[address] = made
                walk.waiting.remove(span)
                walk.needed[address] = max(span.last, walk.needed.get(address, -1))
                held = self._held[address]
                if not held.is_whole and not held.is_coming and not held.failures:
                    return held
                self._state.notify_all()
        return None

    def _is_needed(self, address: str) -> bool:
        return any(address in walk.needed for walk in self._walks)

    def _find_room(self, shard: ShardIndex) -> Held | None:
        whole = WholeShard(RemoteFile(shard.path_or_url), shard.size, shard.version)
        if self._cache is not None:
            name = self._name_of(shard)
            room = None if name is None else self._room_in_folder(self._cache, name, shard.size)
            if room is not None:
                self.counts.found += room.have == shard.size
                return Held(shard, room, whole, name=name or "")
        if self._reading.read != "ahead" or not self._make_room(shard.size):
            return None
        return Held(shard, InMemory(shard.size), whole)

    def _name_of(self, shard: ShardIndex) -> str | None:
        address = shard.path_or_url
        if address not in self._names:
            self._names[address] = cache_name(shard)
            if self._names[address] is None:
                self._notes.line(
                    f"--cache: {without_query(address)} has no hashes in an index, and its server sends "
                    "neither ETag nor date: not cached; write its index with viper index"
                )
        return self._names[address]

    def _room_in_folder(self, cache: ShardCache, name: str, size: int) -> Room | None:
        idle = [
            a for a, held in self._held.items() if not (held.is_coming or held.num_bytes or self._is_needed(a))
        ]
        for address in islice(idle, max(0, len(idle) - IDLE_FILES)):
            self._held.pop(address).room.give_up()
        in_use = {held.name for address, held in self._held.items() if self._is_needed(address)}
        try:
            room = cache.hold(name, size, in_use)
        except OSError as error:
            self._without_folder(error)
            return None
        if room is None:
            self._lack = (
                f"--cache-size: not all shards that are mixed at a time fit into {self._reading.cache}; "
                "clips of the others are read one by one"
            )
        return room

    def _make_room(self, size: int) -> bool:
        """Let go of what is needed no more, the least recently used first, until there is as much memory."""
        free = self._reading.ahead_bytes - sum(held.num_bytes for held in self._held.values())
        for address, held in list(self._held.items()):
            if free >= size:
                break
            if held.num_bytes and not held.is_coming and not self._is_needed(address):
                free += held.num_bytes
                del self._held[address]
        if free < size:
            self._lack = (
                "--read ahead: not all shards that are mixed at a time fit into --read-ahead-memory "
                f"({self._reading.ahead_bytes:,} bytes); clips of the others are read one by one: raise it, "
                "or lower --shuffle-window"
            )
        return free >= size

    def _fetch(self, held: Held) -> None:
        fault: Exception | None = None
        try:
            for piece in held.whole.pieces(lambda: self.is_open):
                with self._state:
                    held.failures = 0
                held.room.write(piece)
                with self._state:
                    self._state.notify_all()
            if held.is_whole:
                held.room.settle()
        except (ShardError, FileNotFoundError) as error:
            fault = error  # a clip of it is read by a range instead, whose error tells more
        except OSError as error:
            fault = error
            self._without_folder(error)
        with self._state:
            held.is_coming = False
            address = held.shard.path_or_url
            if fault is not None:
                held.failures += 1
                held.again_at = time.monotonic() + RETRY_SECONDS
                if held.whole.at == 0:
                    held.room.start_again()
                is_over = not isinstance(fault, ShardError) or held.failures >= MAX_FAILURES
                if is_over and self._held.get(address) is held:
                    del self._held[address]
            elif held.is_whole:
                self.counts.fetched += 1
                self.counts.fetched_bytes += held.shard.size
            self._state.notify_all()
        if not held.is_whole and (not self.is_open or address not in self._held):
            held.room.give_up()

    # --- telling --------------------------------------------------------------------------------

    def _without_folder(self, error: OSError) -> None:
        self._cache = None
        self._notes.line(f"--cache {self._reading.cache}: {error.strerror or error}; continues without it")
