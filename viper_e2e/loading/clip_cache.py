"""clip_cache.py: clips kept in memory between epochs, within a budget; nothing is written."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from viper_e2e.errors import ViperError


@runtime_checkable
class Cacheable(Protocol):
    """What can be kept: anything that knows the bytes of its arrays."""

    @property
    def nbytes(self) -> int: ...


class ClipCache:
    """Objects by clip key, admitted while the budget lasts and never evicted.

    Every epoch visits every clip once, in another order: evicting the oldest would throw out exactly what
    is needed next, so the first to come stay. The budget counts `nbytes` of the objects.
    """

    def __init__(self, budget_bytes: int):
        if budget_bytes < 0:
            raise ViperError(f"memory budget is {budget_bytes} bytes; it must not be negative")
        self.budget_bytes = budget_bytes
        self.nbytes = 0
        self._clips: dict[str, Cacheable] = {}

    @property
    def num_cached(self) -> int:
        return len(self._clips)

    def __contains__(self, key: str) -> bool:
        return key in self._clips

    def get(self, key: str) -> Cacheable | None:
        """The object kept for this clip, or `None`."""
        return self._clips.get(key)

    def clear(self) -> None:
        """Let go of everything: what was kept is no longer what the next epochs need."""
        self._clips.clear()
        self.nbytes = 0

    def offer(self, key: str, clip: Cacheable) -> bool:
        """Keep the object if it fits what is left of the budget; whether the clip is kept now.

        A clip that is kept already stays as it is: its tokens don't change between epochs.
        """
        if key in self._clips:
            return True
        if self.nbytes + clip.nbytes > self.budget_bytes:
            return False
        self._clips[key] = clip
        self.nbytes += clip.nbytes
        return True
