"""order_settings.py: settings of the order of epochs, and the part of each step that a process takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from viper_e2e.loading.mixture_order import MixtureOrder, MixturePattern, Share, clips_per_epoch
from viper_e2e.loading.order import EpochOrder, Order


@dataclass(frozen=True)
class OrderSettings:
    """All that orders of epochs depend on besides the source. `ViperError` for shares that cannot be mixed."""

    seed: int = 0
    shuffle: bool = True
    shuffle_window: int = 2048
    """Clips that are shuffled together, as in `EpochOrder`."""
    shares: Sequence[Share] = ()
    """Shares of a mixture's corpora; empty: each clip is once in an epoch."""

    def __post_init__(self) -> None:
        clips_per_epoch(self.shares)

    def of_epoch(self, epoch: int, shard_sizes: Sequence[int]) -> Order:
        """The order of one epoch, which all processes walk together."""
        seed, shuffle, window = self.seed, self.shuffle, self.shuffle_window
        if not self.shares:
            return EpochOrder(shard_sizes, seed=seed, epoch=epoch, shuffle=shuffle, shuffle_window=window)
        counts, pattern = self._mixture
        return MixtureOrder(
            self.shares, pattern, counts, seed=seed, epoch=epoch, shuffle=shuffle, shuffle_window=window
        )

    @cached_property
    def _mixture(self) -> tuple[list[int], MixturePattern]:
        counts = clips_per_epoch(self.shares)
        return counts, MixturePattern(counts)


@dataclass(frozen=True)
class ProcessShare:
    """One process's part of every step."""

    index: int = 0
    count: int = 1
    """Number of processes."""
    accumulation: int = 1
    """Forward passes of each process per step."""

    def __post_init__(self) -> None:
        assert 0 <= self.index < self.count
