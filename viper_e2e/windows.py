"""windows.py: long clips decoded in workers window by window, never further ahead than the next one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from typing import Any

from .clip import DecodedClip
from .clip_reader import bare
from .errors import ClipError
from .names import printable
from .shards import fetch, without_query
from .workers import MAX_RESTARTS, TIME_LIMIT_SECONDS, Casualty, WorkerPool

Found = tuple[float, DecodedClip] | ClipError | None
"""A window (start in seconds, its clip), why the clip has no more, or that it was the last."""


@dataclass
class WindowReader:
    """`reader((clip, number))` → that window of that clip; imports no torch.

    A clip stays open for its next window: whoever asks in order pays for one pass. Asked out of order (as a
    worker that takes the place of a lost one), it begins the clip again.
    """

    paths: tuple[Path | str, ...]
    """A `str` may be an ``https://`` address."""
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
                source = str(path)
                if _is_address(path):
                    source = fetch(path, self.decoder.config.limits.max_bytes_in_memory)
                windows = self.decoder.windows(source, *lengths, name=shown(path))
                self._windows = islice(windows, number, None)
            self._next = clip, number + 1
            return next(self._windows, None)
        except ClipError as error:
            return bare(error)


def shown(path: Path | str) -> str:
    """How a clip's path or address is shown."""
    return without_query(path) if _is_address(path) else printable(str(path))


def _is_address(path: Path | str) -> bool:
    return isinstance(path, str) and "://" in path


def decode_windows(
    paths: Sequence[Path | str],
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
    paths: Sequence[Path | str], share: range, begin: Callable[..., Any], finish: Callable[[Any], Any]
) -> Iterator[tuple[int, Found]]:
    """All windows of some clips, clip after clip; the next is begun before one is handed out."""
    for clip in share:
        ticket = begin((clip, 0), shown(paths[clip]))
        for number in count(1):
            found = finish(ticket)
            if isinstance(found, Casualty):
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
