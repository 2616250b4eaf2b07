"""clip_cache.py: clips kept in memory between epochs, within a budget; nothing is written."""

from __future__ import annotations

import re
from typing import Protocol, runtime_checkable

from viper_e2e.errors import ViperError

_UNITS = {"": 1, "b": 1}
for _power, _letter in enumerate("kmgt", start=1):
    _UNITS |= {_letter: 1000**_power, f"{_letter}b": 1000**_power, f"{_letter}ib": 1024**_power}


def parse_size(text: str | int) -> int:
    """`"2GB"` → 2,000,000,000 bytes; also kB, MB, TB (powers of 1000), KiB … TiB (of 1024), or bare bytes."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", str(text).strip().lower())
    if match is None or match[2] not in _UNITS:
        raise ViperError(f"size {text!r} is not understood; write for instance 2GB, 512MB or 1.5GiB")
    return int(float(match[1]) * _UNITS[match[2]])


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
