"""clip_cache.py: clips kept in memory between epochs, within a budget; nothing is written."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol, runtime_checkable

from viper_e2e.errors import ViperError
from viper_e2e.loading.quarantine import ClipKey


@runtime_checkable
class Cacheable(Protocol):
    """An object that can be cached, as it knows the bytes of its arrays."""

    @property
    def nbytes(self) -> int: ...


@runtime_checkable
class ClipStore(Protocol):
    """A training's cache of clips: a `ClipCache` of its own, or its part of a shared one."""

    @property
    def budget_bytes(self) -> int: ...

    @property
    def num_cached(self) -> int: ...

    @property
    def nbytes(self) -> int:
        """Bytes of all cached clips."""
        ...

    def __contains__(self, key: ClipKey) -> bool: ...

    def get(self, key: ClipKey) -> Cacheable | None: ...

    def offer(self, key: ClipKey, clip: Cacheable) -> bool: ...

    def clear(self) -> None: ...


class ClipCache:
    """Objects by key, admitted while the budget lasts and not evicted for others that are as useful.

    Every epoch visits every clip once, in another order: evicting the oldest would throw out exactly what
    is needed next, so the first to come stay. The budget counts `nbytes` of the objects.
    """

    def __init__(self, budget_bytes: int):
        if budget_bytes < 0:
            raise ViperError(f"memory budget is {budget_bytes} bytes; it must not be negative")
        self.budget_bytes = budget_bytes
        self.nbytes = 0
        self._clips: dict[Hashable, Cacheable] = {}

    @property
    def num_cached(self) -> int:
        return len(self._clips)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._clips

    def get(self, key: Hashable) -> Cacheable | None:
        """The object kept for this clip, or `None`."""
        return self._clips.get(key)

    def clear(self) -> None:
        """Let go of everything: what was kept is no longer what the next epochs need."""
        self._clips.clear()
        self.nbytes = 0

    def offer(self, key: Hashable, clip: Cacheable) -> bool:
        """Keep the object if it fits what is left of the budget; whether the clip is kept now.

        A clip that is kept already stays as it is: its tokens don't change between epochs.
        """
        return key in self._clips or self.put(key, clip)

    def put(self, key: Hashable, clip: Cacheable) -> bool:
        """The same, in place of what is kept for the clip, which stays where the new one does not fit."""
        known = self._clips.get(key)
        more = clip.nbytes - (0 if known is None else known.nbytes)
        if not self.has_room(more):
            return False
        self._clips[key] = clip
        self.nbytes += more
        return True

    def keys(self) -> list[Hashable]:
        """The oldest first."""
        return [*self._clips]

    def has_room(self, nbytes: int) -> bool:
        """Whether so much more fits."""
        return self.nbytes + nbytes <= self.budget_bytes

    def drop(self, key: Hashable) -> None:
        """Let go of one object, to make room for what is of more use."""
        self.nbytes -= self._clips.pop(key).nbytes
