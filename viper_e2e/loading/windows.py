"""windows.py: long clips decoded in workers window by window, never further ahead than the next one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Any, Generic, Protocol, runtime_checkable

from viper_e2e.clip import Cue, DecodedClip, with_words
from viper_e2e.errors import ClipError
from viper_e2e.loading.clip_reader import without_traceback
from viper_e2e.loading.clip_source import ClipSource, P, PlaceReader
from viper_e2e.loading.stream import Reading, left_out
from viper_e2e.loading.worker_process import WorkerLost
from viper_e2e.loading.workers import WorkerPool

Found = tuple[float, DecodedClip] | ClipError | None
"""A window (start in seconds, its clip), why the clip has no more, or that it was the last."""


@runtime_checkable
class HasWindows(Protocol):
    """A `ClipDecoder`."""

    @property
    def windows(self) -> Callable[..., Iterator[tuple[float, DecodedClip]]]: ...


@dataclass
class WindowReader(Generic[P]):
    """`reader((clip, place, number))` → that window of the clip that lies there; imports no torch.

    A clip stays open for its next window: asking in order costs one pass. Asked out of order (as a
    worker that takes the place of a lost one), it begins the clip again.
    """

    reader: PlaceReader[P]
    decoder: HasWindows
    """A `ClipDecoder`."""
    window_seconds: float
    hop_seconds: float
    _windows: Iterator[tuple[float, DecodedClip]] = field(default_factory=lambda: iter(()), init=False)
    _words: tuple[Cue, ...] = field(default=(), init=False)
    """Words of the whole clip."""
    _next: tuple[int, int] | None = field(default=None, init=False)
    """The clip and window that `_windows` gives next."""

    def __call__(self, wanted: tuple[int, P, int]) -> Found:
        clip, place, number = wanted
        try:
            if (clip, number) != self._next:
                sample, lengths = self.reader.read(place), (self.window_seconds, self.hop_seconds)
                part = {} if sample.segment is None else {"segment": sample.segment}
                windows = self.decoder.windows(
                    sample.video, *lengths, sound=sample.sound, name=sample.key, **part
                )
                self._windows, self._words = islice(windows, number, None), sample.words
            self._next = clip, number + 1
            found = next(self._windows, None)
            return found and (found[0], with_words(found[1], self._words, found[0]))
        except ClipError as error:
            return without_traceback(error)


def decode_windows(
    source: ClipSource, decoder: HasWindows, window_seconds: float, hop_seconds: float, reading: Reading
) -> Iterator[tuple[int, Found]]:
    """Index of a clip and its next window, to the `None` or the `ClipError` that ends each clip.

    ``decoder`` is a `ClipDecoder`. Each worker decodes a clip of its own, so ``num_workers`` clips take turns,
    and 2 windows of each are in memory: the one handed out and the one made meanwhile. A clip that ends its
    worker, or keeps it longer than ``clip_timeout_seconds`` for one window, ends with a `ClipError` of stage
    ``"worker"``. ``num_workers=0`` decodes here, where nothing guards against a crash or a hang.
    """
    reader, size = WindowReader(source.reader(), decoder, window_seconds, hop_seconds), len(source)
    if reading.num_workers == 0:
        yield from _walk(source, range(size), lambda wanted, name: wanted, reader)
        return
    shares = [range(first, size, reading.num_workers) for first in range(min(reading.num_workers, size))]
    seconds, restarts = reading.clip_timeout_seconds, reading.max_restarts
    pools = [WorkerPool(reader, 1, time_limit_seconds=seconds, max_restarts=restarts) for _ in shares]
    try:
        walks = [_walk(source, s, p.submit, p.outcome) for s, p in zip(shares, pools, strict=True)]
        yield from _in_turn(walks)
    finally:
        for pool in pools:
            pool.close()


def _walk(
    source: ClipSource, share: range, begin: Callable[..., Any], finish: Callable[[Any], Any]
) -> Iterator[tuple[int, Found]]:
    """All windows of some clips, clip after clip; the next is begun before one is handed out."""
    for clip in share:
        key, place = source.entry(clip).key, source.place_of(clip)
        ticket = begin((clip, place, 0), key)
        for number in count(1):
            found = finish(ticket)
            if isinstance(found, WorkerLost):
                found = left_out(key, found.reason)
            is_window = isinstance(found, tuple)
            if is_window:
                ticket = begin((clip, place, number), key)
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
