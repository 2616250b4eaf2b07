"""order.py: which clip stands at which position of an epoch, and which process trains on it.

Position n of an epoch's order is all there is: batches, processes, workers and resume count positions.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from viper_e2e.errors import ViperError

CURSOR_SCHEMA = 1


class EpochOrder:
    """The order of one epoch, computed from its arguments alone: no state, no shuffle buffer.

    Shards are permuted, then samples are permuted inside consecutive windows of `shuffle_window`, so that
    neighbours in the order lie close together on disk while shards mix. `order[position]` is the index of a
    sample, counted through the shards as they are given.

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
    ):
        if shuffle_window < 1:
            raise ViperError(f"shuffle_window is {shuffle_window}; it counts clips and is at least 1")
        if seed < 0 or epoch < 0:
            raise ViperError(f"seed {seed} and epoch {epoch} must not be negative")
        sizes = np.asarray(shard_sizes, dtype=np.int64)
        total = int(sizes.sum())
        if not shuffle:
            self.indices = np.arange(total)
            return
        draws = np.random.PCG64(np.random.SeedSequence([seed, epoch])).random_raw(len(sizes) + total)
        shards, samples = draws[: len(sizes)], draws[len(sizes) :]
        first = np.cumsum(sizes) - sizes
        by_shard = [np.arange(first[s], first[s] + sizes[s]) for s in np.argsort(shards, kind="stable")]
        window = np.arange(total) // shuffle_window
        inside_windows = np.lexsort((samples, window))
        self.indices = np.concatenate([np.empty(0, np.int64), *by_shard])[inside_windows]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> int:
        return int(self.indices[position])


@dataclass(frozen=True)
class Cursor:
    """Where a run stands: the next position to be trained on."""

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
    """How consecutive positions become steps: processes × accumulation × batch."""

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
        """Of all processes together."""
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
