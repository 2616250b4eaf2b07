"""loader.py: batches of decoded clips in the order of the epoch, made ahead by worker processes."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from viper_e2e.clip import DecodedClip, Sample
from viper_e2e.errors import UNREACHABLE, ClipError, ViperError
from viper_e2e.loading.clip_reader import ClipReader, DecodeSample
from viper_e2e.loading.order import BatchShape, EpochOrder, assign
from viper_e2e.loading.skips import SkipBudget, SkipRecord
from viper_e2e.loading.workers import MAX_RESTARTS, TIME_LIMIT_SECONDS, WorkerLost, WorkerPool

__all__ = ["ClipBatch", "ClipLoader", "DecodeSample", "SkipBudget", "SkipRecord"]


OUTAGE_SECONDS = 300.0


@dataclass(frozen=True)
class ClipBatch:
    """One forward pass of one process: B rows, whatever could be read."""

    epoch: int
    positions: list[int | None]
    """In the order of the epoch; `None` is padding, which only the last step of an epoch has."""
    keys: list[str]
    clips: list[Any]
    """`DecodedClip`, or the object held for the clip, or the `ClipError` that it became; `None` is padding."""
    intensities: Float[Tensor, "B E"]
    """Zeros where the clip is unlabelled, or padding."""
    weights: Float[Tensor, " B"]
    """1 where a clip is there and labelled, else 0."""
    file_ids: list[str]
    shards: list[str]
    """Paths and URLs without their query, which may hold a secret."""
    next_position: int
    """Positions before this one have been handed out, counting all processes."""
    ends_step: bool
    """The last forward pass before the optimizer's step."""

    def skip_record(self, row: int, error: ClipError) -> SkipRecord:
        """What `skipped.jsonl` says of a row that could not be used, here or in a later stage."""
        position = self.positions[row]
        assert position is not None
        return SkipRecord(self.keys[row], self.shards[row], error.stage, str(error), self.epoch, position)

    def skip_records(self) -> list[SkipRecord]:
        """Of the rows that could not be read or decoded."""
        return [self.skip_record(i, clip) for i, clip in enumerate(self.clips) if isinstance(clip, ClipError)]


@dataclass
class _Slot:
    """One row of a batch to be."""

    next_position: int
    ends_step: bool
    position: int | None = None
    index: int = -1
    """Of the sample in the shard set."""
    key: str = ""
    ticket: int | None = None
    """Of the worker pool, while it is being decoded."""
    clip: Any = None


class ClipLoader:
    """Walks an epoch's order for one process and yields `ClipBatch`es.

    The batches depend on the shards, seed, epoch, batch size, accumulation and processes alone: workers and
    prefetch change when a clip is decoded, never which or in what order. Starting at a later position (a
    multiple of the clips of a step) gives exactly the tail.

    ``decode`` and ``shards`` are picklable. ``held(key)`` is asked just before a clip would be handed to a
    worker; what it returns (not `None`) takes the clip's row, and the clip is neither read nor decoded.

    ``prefetch``: clips per worker that are decoded ahead; `None`: enough for a whole batch. At most
    workers × prefetch decoded clips wait in memory. ``num_workers=0`` decodes here, when a batch is asked
    for; then nothing can guard against a crash or a hang.

    A clip that ends its worker, or keeps it longer than ``clip_timeout_seconds``, comes as a `ClipError`
    of stage ``"worker"`` and is never tried again: `quarantined` names it. More than ``max_restarts`` lost
    workers in one epoch: `ViperError`. Programming errors in a worker are raised with its traceback.
    """

    def __init__(
        self,
        shards: Any,
        decode: Callable[[Sample], DecodedClip],
        *,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        shuffle_window: int = 2048,
        num_workers: int = 2,
        prefetch: int | None = None,
        process_index: int = 0,
        num_processes: int = 1,
        accumulation: int = 1,
        clip_timeout_seconds: float = TIME_LIMIT_SECONDS,
        max_restarts: int = MAX_RESTARTS,
        held: Callable[[str], Any] | None = None,
        quarantined: dict[str, str] | None = None,
    ):
        if num_workers < 0 or (prefetch is not None and prefetch < 1):
            raise ViperError(f"num_workers {num_workers}, prefetch {prefetch}: at least 0 and 1 are needed")
        if clip_timeout_seconds <= 0:
            raise ViperError(f"clip_timeout_seconds is {clip_timeout_seconds}; it must be above 0")
        assert 0 <= process_index < num_processes
        self.shards = shards
        self.shape = BatchShape(batch_size, num_processes, accumulation)
        self.seed, self.shuffle, self.shuffle_window = seed, shuffle, shuffle_window
        self.num_workers, self.prefetch = num_workers, prefetch or -(-batch_size // max(1, num_workers)) + 1
        self.process_index = process_index
        self.clip_timeout_seconds, self.max_restarts = clip_timeout_seconds, max_restarts
        self.held = held
        self.quarantined = dict(quarantined or {})
        """Key → reason; goes into checkpoints, so that a resumed run leaves out the same clips."""
        self.outage_seconds = OUTAGE_SECONDS
        """How long a server that does not answer is asked again before its clips are given up."""
        self._outage_since: float | None = None
        self.waiting_seconds = 0.0
        """How long the consumer has waited for clips so far."""
        self._reader = ClipReader(shards, decode)
        self._pool: WorkerPool | None = None

    def order(self, epoch: int) -> EpochOrder:
        """The order that all processes walk together."""
        return EpochOrder(
            self.shards.shard_sizes,
            seed=self.seed,
            epoch=epoch,
            shuffle=self.shuffle,
            shuffle_window=self.shuffle_window,
        )

    def num_steps(self, start_position: int = 0) -> int:
        """Optimizer steps from here to the end of the epoch, equal on every process."""
        return self.shape.num_steps(len(self.shards) - start_position)

    def num_batches(self, start_position: int = 0) -> int:
        """Forward passes per process from here to the end of the epoch."""
        return self.num_steps(start_position) * self.shape.accumulation

    def epoch(self, epoch: int, start_position: int = 0) -> Iterator[ClipBatch]:
        """The batches from a position to the end of the epoch."""
        if not 0 <= start_position <= len(self.shards):
            raise ViperError(f"position {start_position} is outside of the epoch's {len(self.shards)} clips")
        if self._pool is not None:
            self._pool.reset_restarts()
        finished = self._finished(self._slots(epoch, start_position))
        while slots := list(islice(finished, self.shape.batch_size)):
            yield self._batch(epoch, slots)

    def close(self) -> None:
        """End the workers; the next epoch starts new ones."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def __enter__(self) -> ClipLoader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- rows -----------------------------------------------------------------------------------

    def _slots(self, epoch: int, start: int) -> Iterator[_Slot]:
        """This process's rows, batch after batch, padded to whole batches."""
        order, shape = self.order(epoch), self.shape
        for number, forward in enumerate(shape.forwards(start, len(order)), start=1):
            keys = [self.shards.entry(order[position]).key for position in forward]
            mine = assign(keys, shape.num_processes, shape.batch_size)[self.process_index]
            ends_step = number % shape.accumulation == 0
            for row in mine:
                position = forward[row]
                yield _Slot(forward.stop, ends_step, position, order[position], keys[row])
            for _ in range(shape.batch_size - len(mine)):
                yield _Slot(forward.stop, ends_step)

    def _finished(self, slots: Iterator[_Slot]) -> Iterator[_Slot]:
        """The same rows with their clips; as many rows as may wait in memory are begun ahead."""
        ahead = deque(map(self._begin, islice(slots, max(1, self.num_workers * self.prefetch))))
        try:
            while ahead:
                self._finish(ahead[0])
                slot = ahead.popleft()
                ahead.extend(map(self._begin, islice(slots, 1)))
                yield slot
        finally:
            if self._pool is not None:
                self._pool.discard(slot.ticket for slot in ahead if slot.ticket is not None)

    def _begin(self, slot: _Slot) -> _Slot:
        if slot.position is None:
            return slot
        if slot.key in self.quarantined:
            slot.clip = _left_out(slot.key, self.quarantined[slot.key], "quarantine")
        elif self.held is not None:
            slot.clip = self.held(slot.key)
        if slot.clip is None and self.num_workers:
            slot.ticket = self._workers().submit(slot.index, slot.key)
        return slot

    def _finish(self, slot: _Slot) -> None:
        if slot.position is None or slot.clip is not None:
            return
        since = time.monotonic()
        clip = self._outcome(slot)
        while isinstance(clip, ClipError) and clip.stage == UNREACHABLE and self._is_worth_waiting(clip):
            if slot.ticket is not None:
                slot.ticket = self._workers().submit(slot.index, slot.key)
            clip = self._outcome(slot)
        if not (isinstance(clip, ClipError) and clip.stage == UNREACHABLE):
            self._outage_since = None
        self.waiting_seconds += time.monotonic() - since
        if isinstance(clip, WorkerLost):
            self.quarantined[slot.key] = clip.reason
            clip = _left_out(slot.key, clip.reason)
        slot.clip, slot.ticket = clip, None

    def _outcome(self, slot: _Slot) -> Any:
        return self._reader(slot.index) if slot.ticket is None else self._workers().outcome(slot.ticket)

    def _is_worth_waiting(self, error: ClipError) -> bool:
        """Whether the shards' server may be back soon: a minute's outage must not cost an epoch its clips."""
        now = time.monotonic()
        if self._outage_since is None:
            self._outage_since = now
            print(f"{error}; waiting up to {self.outage_seconds:g} s for it", file=sys.stderr, flush=True)
        return now - self._outage_since < self.outage_seconds

    def _workers(self) -> WorkerPool:
        if self._pool is None:
            self._pool = WorkerPool(
                self._reader,
                self.num_workers,
                time_limit_seconds=self.clip_timeout_seconds,
                max_restarts=self.max_restarts,
            )
        return self._pool

    def _batch(self, epoch: int, slots: list[_Slot]) -> ClipBatch:
        """Move the clips of whole rows into a batch; nothing here holds on to them."""
        num_labels = 0 if self.shards.labels is None else len(self.shards.labels)
        intensities = torch.zeros(len(slots), num_labels)
        weights = torch.zeros(len(slots))
        file_ids, shards, clips = [""] * len(slots), [""] * len(slots), []
        for row, slot in enumerate(slots):
            clips.append(slot.clip)
            slot.clip = None
            if slot.position is None:
                continue
            entry = self.shards.entry(slot.index)
            file_ids[row] = entry.file_id
            shards[row] = self.shards.shard_of(slot.index).path_or_url.partition("?")[0]
            if entry.intensities is not None:
                intensities[row] = torch.tensor(entry.intensities)
                weights[row] = float(not isinstance(clips[row], ClipError))
        return ClipBatch(
            epoch=epoch,
            positions=[slot.position for slot in slots],
            keys=[slot.key for slot in slots],
            clips=clips,
            intensities=intensities,
            weights=weights,
            file_ids=file_ids,
            shards=shards,
            next_position=slots[0].next_position,
            ends_step=slots[0].ends_step,
        )


def _left_out(name: str, reason: str, stage: str = "worker") -> ClipError:
    return ClipError(f"left out: {reason}", stage=stage, clip=name)
