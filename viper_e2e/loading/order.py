"""order.py: the order of an epoch: the clip at each position, and the process that trains on it.

Position n of an epoch's order is all there is: batches, processes, workers and resume count positions.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from viper_e2e.errors import ViperError

CURSOR_SCHEMA = 1
UNSHUFFLED_BLOCK = 2**16
"""Clips that are looked up at once where nothing is shuffled."""


@runtime_checkable
class Order(Protocol):
    """Order of one epoch: the clip at each position."""

    def __len__(self) -> int: ...

    def __getitem__(self, position: int, /) -> int:
        """Index of the clip in its source."""
        ...

    def repeat(self, position: int) -> int:
        """Number of earlier occurrences of this position's clip in this epoch."""
        ...

    def spans(self) -> Iterator[tuple[int, int, int]]:
        """A shard's number, and the first and last position that a clip of it may have; by the first."""
        ...


class EpochOrder(Order):
    """The order of one epoch, computed from its arguments alone: no state, no shuffle buffer.

    Shards are permuted, then samples are permuted inside consecutive windows of `shuffle_window`, so that
    neighbours in the order lie close together on disk while shards mix. `order[position]` is the index of a
    sample, counted through the shards as they are given.

    A window is computed when a position in it is asked for: ten million clips take no more time or memory
    than ten thousand.

    The permutations sort raw 64-bit draws of PCG64: NumPy promises those for every version, which it does
    not for `Generator.permutation` (NEP 19); a run can be resumed under another NumPy.
    """

    def __init__(
        self,
        shard_sizes: Sequence[int],
        *,
        seed: int = 0,
        epoch: int = 0,
        shuffle: bool = True,
        shuffle_window: int = 2048,
        stream: tuple[int, ...] = (),
    ):
        """``stream``: numbers that make another order of the same seed and epoch."""
        if shuffle_window < 1:
            raise ViperError(f"shuffle_window is {shuffle_window}; it counts clips and is at least 1")
        if seed < 0 or epoch < 0:
            raise ViperError(f"seed {seed} and epoch {epoch} must not be negative")
        self._sizes = np.asarray(shard_sizes, dtype=np.int64)
        self._total = int(self._sizes.sum())
        self._window = shuffle_window if shuffle else max(1, min(self._total, UNSHUFFLED_BLOCK))
        self._shuffle = shuffle
        self._entropy = [seed, epoch, *stream]
        self._first = np.cumsum(self._sizes) - self._sizes
        shards = np.arange(len(self._sizes))
        if shuffle:
            shards = np.argsort(self._draws(0, len(self._sizes)), kind="stable")
        self._shards, self._ends = shards, np.cumsum(self._sizes[shards])
        self._block: tuple[int, np.ndarray] = -1, np.empty(0, np.int64)
        """The last one that was asked for, by its number."""

    def __len__(self) -> int:
        return self._total

    def __getitem__(self, position: int) -> int:
        if not 0 <= position < self._total:
            raise IndexError(f"position {position} of {self._total}")
        number, inside = divmod(position, self._window)
        if self._block[0] != number:
            self._block = number, self._block_of(number)
        return int(self._block[1][inside])

    def repeat(self, position: int) -> int:
        """Number of earlier occurrences: none, as each clip is once in an epoch."""
        return 0

    def spans(self) -> Iterator[tuple[int, int, int]]:
        """Spans of shards in order: a shard's number, the first and the last position of its clips."""
        block = self._window if self._shuffle else 1
        for number, end in zip(self._shards.tolist(), self._ends.tolist(), strict=True):
            begin = end - int(self._sizes[number])
            if begin < end:
                yield number, begin // block * block, min(-(-end // block) * block, self._total) - 1

    def _block_of(self, number: int) -> np.ndarray:
        start = number * self._window
        places = np.arange(start, min(start + self._window, self._total))
        if self._shuffle:
            draws = self._draws(len(self._sizes) + start, len(places))
            places = start + np.argsort(draws, kind="stable")
        at = np.searchsorted(self._ends, places, side="right")
        shards = self._shards[at]
        return self._first[shards] + places - (self._ends[at] - self._sizes[shards])

    def _draws(self, start: int, count: int) -> np.ndarray:
        """Raw draws from a place in the sequence on, which PCG64 gets to without those before it."""
        generator = np.random.PCG64(np.random.SeedSequence(self._entropy))
        generator.advance(start)
        return generator.random_raw(count)


@dataclass(frozen=True)
class Cursor:
    """Progress of a run: the next position to train on."""

    seed: int
    epoch: int = 0
    position: int = 0
    schema: int = CURSOR_SCHEMA

    def to_json(self) -> dict[str, int]:
        """A JSON object with exactly the four fields."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: object) -> Cursor:
        """Read what `to_json` wrote; anything else is a `ViperError` that says what was found."""
        fields = ("schema", "seed", "epoch", "position")
        if not isinstance(record, dict) or set(record) != set(fields):
            raise ViperError(f"cursor: found {record!r}, expected an object with {', '.join(fields)}")
        for name in fields:
            if type(record[name]) is not int or record[name] < 0:
                raise ViperError(f"cursor: {name} is {record[name]!r}, expected a whole number of at least 0")
        if record["schema"] != CURSOR_SCHEMA:
            raise ViperError(
                f"cursor: schema {record['schema']}, this version reads {CURSOR_SCHEMA}; "
                "resume with the version that wrote it"
            )
        return cls(**record)


@dataclass(frozen=True)
class BatchShape:
    """Shape of a step in consecutive positions: processes × accumulation × batch."""

    batch_size: int
    """Clips per process and forward pass."""
    num_processes: int = 1
    accumulation: int = 1
    """Forward passes per optimizer step."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < 1:
                raise ViperError(f"{name} is {value}; it must be at least 1")

    @property
    def clips_per_forward(self) -> int:
        """Clips in one forward pass of all processes together."""
        return self.batch_size * self.num_processes

    @property
    def clips_per_step(self) -> int:
        return self.clips_per_forward * self.accumulation

    def num_steps(self, num_positions: int) -> int:
        """Optimizer steps that `num_positions` make; the last one may be padded."""
        return -(-num_positions // self.clips_per_step)

    def forwards(self, start: int, stop: int) -> Iterator[range]:
        """Cut positions `start … stop` into forward passes of all processes together.

        Their number is a multiple of `accumulation`, so that every process makes the same steps; the last
        ranges are shorter than `clips_per_forward` or empty, and are padded.
        """
        for index in range(self.num_steps(stop - start) * self.accumulation):
            first = start + index * self.clips_per_forward
            yield range(min(first, stop), min(first + self.clips_per_forward, stop))


def home_process(key: str, num_processes: int) -> int:
    """The process that a clip prefers in every epoch, so that what it holds in memory is used again."""
    return zlib.crc32(key.encode()) % num_processes


def assign(keys: Sequence[str], num_processes: int, batch_size: int) -> list[list[int]]:
    """Deal the clips of one forward pass to processes; at most `batch_size` each.

    Each clip goes to its home process while that has room, the rest to whichever process has least.
    Returns per process the indices into `keys`, ascending. What is missing to `batch_size` is padding.
    """
    assert len(keys) <= num_processes * batch_size
    dealt: list[list[int]] = [[] for _ in range(num_processes)]
    homeless = []
    for index, key in enumerate(keys):
        home = dealt[home_process(key, num_processes)]
        if len(home) < batch_size:
            home.append(index)
        else:
            homeless.append(index)
    for index in homeless:
        min(dealt, key=len).append(index)
    return [sorted(indices) for indices in dealt]
