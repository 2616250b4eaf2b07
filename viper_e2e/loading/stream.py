"""stream.py: clips of a source read and decoded ahead by workers, in any order; what a failed clip costs."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from viper_e2e.clip import Sample
from viper_e2e.errors import UNREACHABLE, ClipError, Stage, ViperError
from viper_e2e.loading.ahead_service import AheadService
from viper_e2e.loading.clip_reader import ClipReader
from viper_e2e.loading.clip_source import ClipSource
from viper_e2e.loading.quarantine import Quarantine
from viper_e2e.loading.read_ahead import WAIT_SECONDS, ReadAhead
from viper_e2e.loading.spans import Span, spans_of_clips
from viper_e2e.loading.worker_process import WorkerLost
from viper_e2e.loading.workers import MAX_RESTARTS, TIME_LIMIT_SECONDS, WorkerPool

if TYPE_CHECKING:
    from typing import Self  # which beartype refuses around a method by itself

OUTAGE_SECONDS = 300.0


@dataclass(frozen=True)
class Reading:
    """Settings for reading and decoding ahead, and for clips that crash or hang their process."""

    batch_size: int = 8
    """Clips per forward pass."""
    num_workers: int = 1
    """Processes that decode; 0: decoded here, when a clip is asked for, and nothing guards against a crash."""
    prefetch: int | None = None
    """Clips per worker that are decoded ahead; `None`: enough for a whole batch."""
    clip_timeout_seconds: float = TIME_LIMIT_SECONDS
    """A clip that keeps its worker longer is left out."""
    max_restarts: int = MAX_RESTARTS
    """Workers that clips may cost."""


@dataclass
class ClipSlot:
    """One clip on its way, or the place of one."""

    position: int | None = None
    """Position in the order; `None` is padding."""
    index: int = -1
    """Number of the clip in its source."""
    key: str = ""
    next_position: int = 0
    """See `ClipBatch`, also for `ends_step`."""
    ends_step: bool = True
    is_known_by_key: bool = True
    """Whether its key is that of no other clip: what is in quarantine is."""
    repeat: int = 0
    """See `ClipBatch`."""
    ticket: int | None = None
    """Ticket of the worker pool, while the clip is decoded."""
    clip: object = None
    """The result of ``decode``, or the object cached for it, or its `ClipError`."""


class ClipStream:
    """Gives slots back with their clips; at most workers × prefetch decoded clips wait in memory.

    ``decode`` and ``source`` are picklable. ``cached(key)`` is asked just before a clip would be handed to a
    worker; what it returns (not `None`) takes the clip's place, and the clip is neither read nor decoded.

    A clip that ends its worker, or keeps it longer than ``clip_timeout_seconds``, comes as a `ClipError`
    of stage ``"worker"`` and is never tried again: `quarantine` names it. More than ``max_restarts`` lost
    workers in one epoch: `ViperError`. Programming errors in a worker are raised with its traceback.
    """

    def __init__(
        self,
        source: ClipSource,
        decode: Callable[[Sample], Any],
        reading: Reading,
        *,
        cached: Callable[[str], Any] | None = None,
        quarantine: Quarantine | None = None,
    ):
        """``quarantine``: clips that end a worker are added to it."""
        if reading.num_workers < 0 or (reading.prefetch is not None and reading.prefetch < 1):
            raise ViperError(
                f"num_workers {reading.num_workers}, prefetch {reading.prefetch}: at least 0 and 1 are needed"
            )
        if reading.clip_timeout_seconds <= 0:
            raise ViperError(f"clip_timeout_seconds is {reading.clip_timeout_seconds}; it must be above 0")
        self.source, self.reading, self.cached = source, reading, cached
        self.num_workers = reading.num_workers
        self.prefetch = reading.prefetch or -(-reading.batch_size // max(1, self.num_workers)) + 1
        self.quarantine = Quarantine() if quarantine is None else quarantine
        """Goes into checkpoints, so that a resumed run leaves out the same clips."""
        self.outage_seconds = OUTAGE_SECONDS
        """How long a server that does not answer is asked again before its clips are given up."""
        self._outage_since: float | None = None
        self.waiting_seconds = 0.0
        """How long the consumer has waited for clips so far."""
        self._decode = decode
        self._reader = ClipReader(source.reader(), decode)
        self._ahead: AheadService | None = None
        """Where whole shards are read ahead, if that is asked for and some are remote."""
        self.pool: WorkerPool | None = None
        """The workers, once there are any; `pool.stats()` tells what they are at."""

    def clips(self, indices: Sequence[int]) -> Iterator[ClipSlot]:
        """These clips of the source, in this order; several may have one key, as in unsound shards."""
        slots = (ClipSlot(i, i, self.source.entry(i).key, is_known_by_key=False) for i in indices)
        return self.walk(slots, spans_of_clips(self.source, indices))

    def walk(self, slots: Iterator[ClipSlot], spans: Iterator[Span]) -> Iterator[ClipSlot]:
        """The same rows with their clips: one epoch. ``spans``: of shards, if they are read whole."""
        if self.pool is not None:
            self.pool.reset_restarts()
        ahead = self._ahead_of(spans) if self.source.remote_reading.reads_whole else None
        return self._finished(slots) if ahead is None else self._finished_ahead(slots, *ahead)

    def close(self) -> None:
        """End the workers; the next request starts new ones."""
        if self.pool is not None:
            self.pool.close()
            self.pool = None
        if self._ahead is not None:
            self._ahead.leave()
            self._ahead = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _finished(self, slots: Iterator[ClipSlot]) -> Iterator[ClipSlot]:
        """The same rows with their clips; as many rows as may wait in memory are begun ahead."""
        ahead = deque(map(self._begin, islice(slots, max(1, self.num_workers * self.prefetch))))
        try:
            while ahead:
                self._finish(ahead[0])
                slot = ahead.popleft()
                ahead.extend(map(self._begin, islice(slots, 1)))
                yield slot
        finally:
            if self.pool is not None:
                self.pool.discard(slot.ticket for slot in ahead if slot.ticket is not None)

    def _finished_ahead(
        self, slots: Iterator[ClipSlot], service: ReadAhead, spans: Iterator[Span]
    ) -> Iterator[ClipSlot]:
        """`_finished`, with whole remote shards read ahead in the order of these spans."""
        # Clips that are kept in memory need no shards: then it is seen which are wanted.
        walk = service.begin(spans, is_on_demand=self.cached is not None)
        try:
            for slot in self._finished(slots):
                if slot.position is not None:
                    service.passed(walk, slot.position)
                yield slot
        finally:
            service.end(walk)

    def _ahead_of(self, spans: Iterator[Span]) -> tuple[ReadAhead, Iterator[Span]] | None:
        """Who reads ahead, and what; ``None`` if nothing is remote."""
        first = next(spans, None)
        if first is None:
            return None
        if self._ahead is None:
            self._ahead = AheadService.shared(self.source.remote_reading)
            # A worker that waits is not one that hangs.
            opener = self._ahead.opener(min(WAIT_SECONDS, self.reading.clip_timeout_seconds / 4))
            self._reader = ClipReader(self.source.reader(opener), self._decode)
            if self.pool is not None:
                self.pool.close()
                self.pool = None
        return self._ahead.ahead, chain([first], spans)

    def _begin(self, slot: ClipSlot) -> ClipSlot:
        if slot.position is None:
            return slot
        reason = self.quarantine.reason_of(slot.key) if slot.is_known_by_key else None
        if reason is not None:
            slot.clip = left_out(slot.key, reason, "quarantine")
        elif self.cached is not None:
            slot.clip = self.cached(slot.key)
        if slot.clip is None and self.num_workers:
            slot.ticket = self._submit(slot)
        return slot

    def _finish(self, slot: ClipSlot) -> None:
        if slot.position is None or slot.clip is not None:
            return
        since = time.monotonic()
        clip = self._outcome(slot)
        while isinstance(clip, ClipError) and clip.stage == UNREACHABLE and self._is_worth_waiting(clip):
            if slot.ticket is not None:
                slot.ticket = self._submit(slot)
            clip = self._outcome(slot)
        if not (isinstance(clip, ClipError) and clip.stage == UNREACHABLE):
            self._outage_since = None
        self.waiting_seconds += time.monotonic() - since
        if isinstance(clip, WorkerLost):
            self.quarantine.add(slot.key, clip.reason)
            clip = left_out(slot.key, clip.reason)
        slot.clip, slot.ticket = clip, None

    def _submit(self, slot: ClipSlot) -> int:
        return self._workers().submit(self.source.place_of(slot.index), slot.key)

    def _outcome(self, slot: ClipSlot) -> Any:
        if slot.ticket is None:
            return self._reader(self.source.place_of(slot.index))
        return self._workers().outcome(slot.ticket)

    def _is_worth_waiting(self, error: ClipError) -> bool:
        """Whether the shards' server may be back soon: a minute's outage must not cost an epoch its clips."""
        now = time.monotonic()
        if self._outage_since is None:
            self._outage_since = now
            print(f"{error}; waiting up to {self.outage_seconds:g} s for it", file=sys.stderr, flush=True)
        return now - self._outage_since < self.outage_seconds

    def _workers(self) -> WorkerPool:
        if self.pool is None:
            self.pool = WorkerPool(
                self._reader,
                self.num_workers,
                time_limit_seconds=self.reading.clip_timeout_seconds,
                max_restarts=self.reading.max_restarts,
            )
        return self.pool


def left_out(name: str, reason: str, stage: Stage = "worker") -> ClipError:
    return ClipError(f"left out: {reason}", stage=stage, clip=name)
