"""loader.py: batches of decoded clips in the order of the epoch, made ahead by worker processes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from viper_e2e.clip import DecodedClip, Sample
from viper_e2e.errors import ClipError, ViperError
from viper_e2e.loading.clip_reader import DecodeSample
from viper_e2e.loading.clip_source import ClipSource
from viper_e2e.loading.order import BatchShape, Order, assign
from viper_e2e.loading.order_settings import OrderSettings, ProcessShare
from viper_e2e.loading.quarantine import Quarantine
from viper_e2e.loading.skips import SkipBudget, SkipRecord
from viper_e2e.loading.spans import spans_of_order
from viper_e2e.loading.stream import ClipSlot, ClipStream, Reading

if TYPE_CHECKING:
    from typing import Self  # which beartype refuses around a method by itself

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


class ClipLoader:
    """Walks an epoch's order for one process and yields `ClipBatch`es.

    The batches depend on the source, the order, the batch size and the share alone: workers and prefetch change
    when a clip is decoded, never which or in what order. Starting at a later position (a multiple of the clips
    of a step) gives exactly the tail.
    """

    def __init__(
        self,
        source: ClipSource,
        decode: Callable[[Sample], DecodedClip],
        reading: Reading,
        *,
        order: OrderSettings | None = None,
        share: ProcessShare | None = None,
        cached: Callable[[str], Any] | None = None,
        quarantine: Quarantine | None = None,
    ):
        """By default all clips are shuffled by seed 0. ``cached`` and ``quarantine``: of `ClipStream`."""
        self.source, self.order_settings = source, order or OrderSettings()
        self.share = share or ProcessShare()
        self.stream = ClipStream(source, decode, reading, cached=cached, quarantine=quarantine)
        """Gives the clips of all epochs; `stream.waiting_seconds` were waited for them."""
        self.shape = BatchShape(reading.batch_size, self.share.count, self.share.accumulation)

    def order(self, epoch: int) -> Order:
        """The order that all processes walk together."""
        return self.order_settings.of_epoch(epoch, self.source.shard_sizes)

    def close(self) -> None:
        """End the workers; the next epoch starts new ones."""
        self.stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def num_steps(self, start_position: int = 0) -> int:
        """Optimizer steps from here to the end of the epoch, equal on every process."""
        return self.shape.num_steps(len(self.source) - start_position)

    def epoch(self, epoch: int, start_position: int = 0) -> Generator[ClipBatch, None, None]:
        """The batches from a position to the end of the epoch."""
        if not 0 <= start_position <= len(self.source):
            raise ViperError(f"position {start_position} is outside of the epoch's {len(self.source)} clips")
        order = self.order(epoch)
        spans = spans_of_order(self.source, order, start_position)
        finished = self.stream.walk(self._slots(order, start_position), spans)
        while slots := list(islice(finished, self.shape.batch_size)):
            yield self._batch(epoch, slots)

    # --- rows -----------------------------------------------------------------------------------

    def _slots(self, order: Order, start: int) -> Iterator[ClipSlot]:
        """This process's rows, batch after batch, padded to whole batches."""
        shape = self.shape
        for number, forward in enumerate(shape.forwards(start, len(order)), start=1):
            keys = [self.source.entry(order[position]).key for position in forward]
            mine = assign(keys, shape.num_processes, shape.batch_size)[self.share.index]
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
