"""windows.py: long clips decoded in workers window by window, never further ahead than the next one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from typing import Any

from viper_e2e.clip import DecodedClip
from viper_e2e.errors import ClipError
from viper_e2e.loading.clip_reader import without_traceback
from viper_e2e.loading.workers import MAX_RESTARTS, TIME_LIMIT_SECONDS, WorkerLost, WorkerPool
from viper_e2e.runtime.names import printable
from viper_e2e.shards import fetch, without_query

Found = tuple[float, DecodedClip] | ClipError | None
"""A window (start in seconds, its clip), why the clip has no more, or that it was the last."""


@dataclass(frozen=True)
class ShardClip:
    """A clip that lies in a shard."""

    shards: Any
    """A `ShardSet`."""
    index: int

    @property
    def key(self) -> str:
        """What the clip is called."""
        return self.shards.entry(self.index).key


ClipPlace = Path | str | ShardClip
"""A `str` may be an ``https://`` address."""


@dataclass
class WindowReader:
    """`reader((clip, number))` → that window of that clip; imports no torch.

    A clip stays open for its next window: whoever asks in order pays for one pass. Asked out of order (as a
    worker that takes the place of a lost one), it begins the clip again.
    """

    paths: tuple[ClipPlace, ...]
    decoder: Any
    """A `ClipDecoder`."""
    window_seconds: float
    hop_seconds: float
    _windows: Iterator[tuple[float, DecodedClip]] = field(default_factory=lambda: iter(()), init=False)
    _next: tuple[int, int] | None = field(default=None, init=False)
    """What `_windows` gives next."""

    def __call__(self, wanted: tuple[int, int]) -> Found:
        clip, number = wanted
        try:
            if wanted != self._next:
                path, lengths = self.paths[clip], (self.window_seconds, self.hop_seconds)
                source, sound = self._read(path)
                windows = self.decoder.windows(source, *lengths, sound=sound, name=shown(path))
                self._windows = islice(windows, number, None)
            self._next = clip, number + 1
            return next(self._windows, None)
        except ClipError as error:
            return without_traceback(error)

    def _read(self, path: ClipPlace) -> tuple[bytes | str, bytes | None]:
        """What the decoder opens, and the sound beside it; a path is read piece by piece, the others whole."""
        if isinstance(path, ShardClip):
            sample = path.shards.read(path.index)
            return sample.video, sample.sound
        if _is_address(path):
            return fetch(path, self.decoder.config.limits.max_bytes_in_memory), None
        return str(path), None


def shown(path: ClipPlace) -> str:
    """How a clip's path, address or key is shown."""
    if isinstance(path, ShardClip):
        return path.key
    return without_query(path) if _is_address(path) else printable(str(path))


def _is_address(path: ClipPlace) -> bool:
    return isinstance(path, str) and "://" in path


def decode_windows(
    paths: Sequence[ClipPlace],
    decoder: Any,
    window_seconds: float,
    hop_seconds: float,
    *,
    num_workers: int = 1,
    clip_timeout_seconds: float = TIME_LIMIT_SECONDS,
    max_restarts: int = MAX_RESTARTS,
) -> Iterator[tuple[int, Found]]:
    """Index of a clip and its next window, to the `None` or the `ClipError` that ends each clip.

    ``decoder`` is a `ClipDecoder`. Each worker decodes a clip of its own, so ``num_workers`` clips take turns,
    and 2 windows of each are in memory: the one handed out and the one made meanwhile. A clip that ends its
    worker, or keeps it longer than ``clip_timeout_seconds`` for one window, ends with a `ClipError` of stage
    ``"worker"``. ``num_workers=0`` decodes here, where nothing guards against a crash or a hang.
    """
    reader = WindowReader(tuple(paths), decoder, window_seconds, hop_seconds)
    if num_workers == 0:
        yield from _walk(paths, range(len(paths)), lambda wanted, name: wanted, reader)
        return
    shares = [range(first, len(paths), num_workers) for first in range(min(num_workers, len(paths)))]
    pools = [
        WorkerPool(reader, 1, time_limit_seconds=clip_timeout_seconds, max_restarts=max_restarts)
        for _ in shares
    ]
    try:
        walks = [_walk(paths, s, p.submit, p.outcome) for s, p in zip(shares, pools, strict=True)]
        yield from _in_turn(walks)
    finally:
        for pool in pools:
            pool.close()


def _walk(
    paths: Sequence[ClipPlace], share: range, begin: Callable[..., Any], finish: Callable[[Any], Any]
) -> Iterator[tuple[int, Found]]:
    """All windows of some clips, clip after clip; the next is begun before one is handed out."""
    for clip in share:
        ticket = begin((clip, 0), shown(paths[clip]))
        for number in count(1):
            found = finish(ticket)
            if isinstance(found, WorkerLost):
                found = ClipError(f"left out: {found.reason}", stage="worker", clip=shown(paths[clip]))
            is_window = isinstance(found, tuple)
            if is_window:
                ticket = begin((clip, number), shown(paths[clip]))
            yield clip, found
            if not is_window:
                break


def _in_turn(walks: Sequence[Iterator[Any]]) -> Iterator[Any]:
    turns = deque(walks)
    while turns:
        walk = turns.popleft()
        for item in islice(walk, 1):
            yield item
            turns.append(walk)
