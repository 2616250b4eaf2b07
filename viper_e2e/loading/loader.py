"""loader.py: batches of decoded clips in the order of the epoch, made ahead by worker processes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from viper_e2e.clip import DecodedClip, Sample
from viper_e2e.errors import ClipError, ViperError
from viper_e2e.loading.clip_reader import DecodeSample
from viper_e2e.loading.clip_source import ClipSource
from viper_e2e.loading.mixture_order import MixtureOrder, MixturePattern, Share, clips_per_epoch
from viper_e2e.loading.order import BatchShape, EpochOrder, Order, assign
from viper_e2e.loading.quarantine import Quarantine
from viper_e2e.loading.skips import SkipBudget, SkipRecord
from viper_e2e.loading.spans import Span, spans_of_order
from viper_e2e.loading.stream import ClipSlot, ClipStream, Reading
from viper_e2e.loading.workers import MAX_RESTARTS, TIME_LIMIT_SECONDS

__all__ = ["ClipBatch", "ClipLoader", "DecodeSample", "Reading", "SkipBudget", "SkipRecord"]


@dataclass(frozen=True)
class ClipBatch:
    """One forward pass of one process: B rows, whatever could be read."""

    epoch: int
    positions: list[int | None]
    """Positions in the epoch; `None` is padding, which only the last step of an epoch has."""
    keys: list[str]
    clips: list[Any]
    """`DecodedClip`, or the object cached for it, or the `ClipError` that it became; `None` is padding."""
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
    repeats: list[int] = field(default_factory=list)
    """How often each row's clip may have been in this epoch before, as in a mixture; empty: never."""

    @property
    def visits(self) -> list[str]:
        """Each row's key, with a number after it if the clip comes again: random changes are drawn by it."""
        repeats = self.repeats or [0] * len(self.keys)
        return [f"{key}#{n}" if n else key for key, n in zip(self.keys, repeats, strict=True)]

    def failed_later(self, clips: Sequence[object]) -> dict[int, ClipError]:
        """By row, the errors of clips that were decoded well. ``clips``: the rows, further on their way."""
        return {
            row: clip
            for row, clip in enumerate(clips)
            if isinstance(clip, ClipError) and isinstance(self.clips[row], DecodedClip)
        }

    def without(self, rows: Iterable[int]) -> ClipBatch:
        """The same with rows that count for nothing."""
        weights = self.weights.clone()
        weights[list(rows)] = 0.0
        return replace(self, weights=weights)

    def skip_record(self, row: int, error: ClipError) -> SkipRecord:
        """Record in `skipped.jsonl` of a row that could not be used, here or in a later stage."""
        position = self.positions[row]
        assert position is not None
        return SkipRecord(self.keys[row], self.shards[row], error.stage, str(error), self.epoch, position)

    def skip_records(self) -> list[SkipRecord]:
        """Records of the rows that could not be read or decoded."""
        return [self.skip_record(i, clip) for i, clip in enumerate(self.clips) if isinstance(clip, ClipError)]


class ClipLoader(ClipStream):
    """Walks an epoch's order for one process and yields `ClipBatch`es.

    The batches depend on the shards, seed, epoch, batch size, accumulation and processes alone: workers and
    prefetch change when a clip is decoded, never which or in what order. Starting at a later position (a
    multiple of the clips of a step) gives exactly the tail.
    """

    def __init__(
        self,
        shards: ClipSource,
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
        cached: Callable[[str], Any] | None = None,
        quarantine: Quarantine | None = None,
        corpora: Sequence[Share] = (),
    ):
        """The other settings are those of `Reading` and `ClipStream`. ``corpora``: of a mixture."""
        reading = Reading(batch_size, num_workers, prefetch, clip_timeout_seconds, max_restarts)
        super().__init__(shards, decode, reading, cached=cached, quarantine=quarantine)
        assert 0 <= process_index < num_processes
        self.shape = BatchShape(batch_size, num_processes, accumulation)
        self.seed, self.shuffle, self.shuffle_window = seed, shuffle, shuffle_window
        self.process_index = process_index
        self.corpora, self._counts = corpora, clips_per_epoch(corpora)
        self._pattern = MixturePattern(self._counts) if corpora else None

    def order(self, epoch: int) -> Order:
        """The order that all processes walk together."""
        if self._pattern is not None:
            return MixtureOrder(
                self.corpora,
                self._pattern,
                self._counts,
                seed=self.seed,
                epoch=epoch,
                shuffle=self.shuffle,
                shuffle_window=self.shuffle_window,
            )
        return EpochOrder(
            self.source.shard_sizes,
            seed=self.seed,
            epoch=epoch,
            shuffle=self.shuffle,
            shuffle_window=self.shuffle_window,
        )

    def num_steps(self, start_position: int = 0) -> int:
        """Optimizer steps from here to the end of the epoch, equal on every process."""
        return self.shape.num_steps(len(self.source) - start_position)

    def epoch(self, epoch: int, start_position: int = 0) -> Generator[ClipBatch, None, None]:
        """The batches from a position to the end of the epoch."""
        if not 0 <= start_position <= len(self.source):
            raise ViperError(f"position {start_position} is outside of the epoch's {len(self.source)} clips")
        if self.pool is not None:
            self.pool.reset_restarts()
        finished = self._walked(self._slots(epoch, start_position), self._spans(epoch, start_position))
        while slots := list(islice(finished, self.shape.batch_size)):
            yield self._batch(epoch, slots)

    def _spans(self, epoch: int, start: int) -> Iterator[Span]:
        """Where the walk needs each shard that is read whole."""
        if not self._reads_whole():
            return iter(())
        return spans_of_order(self.source, self.order(epoch), start)

    # --- rows -----------------------------------------------------------------------------------

    def _slots(self, epoch: int, start: int) -> Iterator[ClipSlot]:
        """This process's rows, batch after batch, padded to whole batches."""
        order, shape = self.order(epoch), self.shape
        for number, forward in enumerate(shape.forwards(start, len(order)), start=1):
            keys = [self.source.entry(order[position]).key for position in forward]
            mine = assign(keys, shape.num_processes, shape.batch_size)[self.process_index]
            ends_step = number % shape.accumulation == 0
            for row in mine:
                position = forward[row]
                yield ClipSlot(
                    position, order[position], keys[row], forward.stop, ends_step, repeat=order.repeat(position)
                )
            for _ in range(shape.batch_size - len(mine)):
                yield ClipSlot(next_position=forward.stop, ends_step=ends_step)

    def _batch(self, epoch: int, slots: list[ClipSlot]) -> ClipBatch:
        """Move the clips of whole rows into a batch; nothing here holds on to them."""
        num_labels = 0 if self.source.labels is None else len(self.source.labels)
        intensities = torch.zeros(len(slots), num_labels)
        weights = torch.zeros(len(slots))
        file_ids, shards, clips = [""] * len(slots), [""] * len(slots), []
        for row, slot in enumerate(slots):
            clips.append(slot.clip)
            slot.clip = None
            if slot.position is None:
                continue
            entry = self.source.entry(slot.index)
            file_ids[row] = entry.file_id
            shards[row] = self.source.shard_of(slot.index).path_or_url.partition("?")[0]
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
            repeats=[slot.repeat for slot in slots],
        )
