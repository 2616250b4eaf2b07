"""mixture_order.py: the order of an epoch over several corpora, of which each has its share of every step."""

from __future__ import annotations

import heapq
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import itemgetter

import numpy as np
from jaxtyping import Integer

from viper_e2e.errors import ViperError
from viper_e2e.loading.order import EpochOrder, Order
from viper_e2e.shards import parts_of

MAX_CORPORA = 250
BLOCK = 4096
"""Positions between two at which it is known how many clips of each corpus came before."""


@dataclass(frozen=True)
class Share:
    """One corpus, as far as the order depends on it."""

    name: str
    shard_sizes: Sequence[int]
    first: int
    """Index of its first clip in the source."""
    weight: float | None = None
    """Relative weight of its clips in an epoch; ``None`` for all corpora: each clip once."""

    @property
    def num_clips(self) -> int:
        return sum(self.shard_sizes)


def clips_per_epoch(shares: Sequence[Share]) -> list[int]:
    """Clips of each corpus in an epoch, together as many as all corpora have, as in one pass.

    Raises `ViperError` for a weight that leaves a corpus without a clip.
    """
    total = sum(share.num_clips for share in shares)
    if all(share.weight is None for share in shares):
        return [share.num_clips for share in shares]
    # A fold may hold out all of a corpus: then the others share its part.
    parts = parts_of([(share.weight or 0.0) if share.num_clips else 0.0 for share in shares])
    exact = [total * part if part is not None else 0 for part in parts]
    counts = [int(value) for value in exact]
    # What rounding down leaves goes to the largest remainders, the first of equal ones.
    order = sorted(range(len(shares)), key=lambda i: counts[i] - exact[i])
    for i in order[: total - sum(counts)]:
        counts[i] += 1
    for share, count in zip(shares, counts, strict=True):
        if count == 0 and share.num_clips:
            raise ViperError(
                f"corpus {share.name}: weight {share.weight:g} gives it none of the {total:,} clips of an epoch"
            )
    return counts


class MixturePattern:
    """The corpus at each position of every epoch: spread evenly, so that any stretch of an epoch has
    each corpus's share to within about a clip."""

    def __init__(self, counts: Sequence[int]):
        if len(counts) > MAX_CORPORA:
            raise ViperError(f"{len(counts)} corpora; at most {MAX_CORPORA} are mixed")
        # Clip k of n stands at (k + ½) / n of the epoch; of equal places the corpus named first comes first.
        places = np.concatenate([np.empty(0), *((np.arange(count) + 0.5) / count for count in counts)])
        corpora = np.repeat(np.arange(len(counts), dtype=np.uint8), counts)
        self._corpora = corpora[np.argsort(places, kind="stable")]
        starts = range(0, len(self._corpora), BLOCK)
        inside = [np.bincount(self._corpora[s : s + BLOCK], minlength=len(counts)) for s in starts]
        self._before = np.cumsum([np.zeros(len(counts), np.int64), *inside], axis=0)

    def __len__(self) -> int:
        return len(self._corpora)

    def __getitem__(self, position: int) -> tuple[int, int]:
        """Number of a corpus, and how many of its clips come before in the epoch."""
        corpus, block = int(self._corpora[position]), position // BLOCK
        here: Integer[np.ndarray, " P"] = self._corpora[block * BLOCK : position]
        return corpus, int(self._before[block, corpus]) + int(np.count_nonzero(here == corpus))

    def positions(self, corpus: int) -> Integer[np.ndarray, " P"]:
        """Positions of all clips of a corpus."""
        return np.flatnonzero(self._corpora == corpus)


class MixtureOrder(Order):
    """The order of one epoch over several corpora.

    Each corpus is walked pass after pass, each pass in another order, from where the last epoch left it: a
    corpus of which an epoch takes a third is seen whole in three. All of it is computed from the arguments
    alone, and the order within a corpus does not depend on the others.
    """

    def __init__(
        self,
        shares: Sequence[Share],
        pattern: MixturePattern,
        counts: Sequence[int],
        *,
        seed: int,
        epoch: int,
        shuffle: bool = True,
        shuffle_window: int = 2048,
    ):
        self._shares, self._pattern, self._counts, self._epoch = shares, pattern, counts, epoch
        self._seed, self._shuffle, self._window = seed, shuffle, shuffle_window
        self._passes: list[tuple[int, EpochOrder]] = [(-1, EpochOrder([])) for _ in shares]

    def __len__(self) -> int:
        return len(self._pattern)

    def __getitem__(self, position: int) -> int:
        corpus, number, inside = self._place(position)
        share = self._shares[corpus]
        if self._passes[corpus][0] != number:
            self._passes[corpus] = number, self._order_of(share, number)
        return share.first + self._passes[corpus][1][inside]

    def repeat(self, position: int) -> int:
        """0 in the pass that the epoch begins with, 1 in the next: two visits of a clip in one epoch differ."""
        corpus, number, _ = self._place(position)
        return number - self._epoch * self._counts[corpus] // self._shares[corpus].num_clips

    def spans(self) -> Iterator[tuple[int, int, int]]:
        """Spans like those of `EpochOrder`, one for each time that a corpus's shards are walked."""
        firsts = accumulate((len(share.shard_sizes) for share in self._shares), initial=0)
        of_corpora = [
            self._spans_of(corpus, first) for corpus, first in enumerate(firsts) if corpus < len(self._shares)
        ]
        return heapq.merge(*of_corpora, key=itemgetter(1))

    def _spans_of(self, corpus: int, first_shard: int) -> Iterator[tuple[int, int, int]]:
        share, positions = self._shares[corpus], self._pattern.positions(corpus)
        begin, size = self._epoch * self._counts[corpus], share.num_clips
        for number in range(begin // size, -(-(begin + len(positions)) // size)):
            for shard, first, last in self._order_of(share, number).spans():
                ranks = (
                    max(0, number * size + first - begin),
                    min(len(positions) - 1, number * size + last - begin),
                )
                if ranks[0] <= ranks[1]:
                    yield first_shard + shard, int(positions[ranks[0]]), int(positions[ranks[1]])

    def _order_of(self, share: Share, number: int) -> EpochOrder:
        return EpochOrder(
            share.shard_sizes,
            seed=self._seed,
            epoch=number,
            shuffle=self._shuffle,
            shuffle_window=self._window,
            stream=(zlib.crc32(share.name.encode()),),
        )

    def _place(self, position: int) -> tuple[int, int, int]:
        """Corpus, its pass, and the position in this."""
        if not 0 <= position < len(self):
            raise IndexError(f"position {position} of {len(self)}")
        corpus, rank = self._pattern[position]
        return corpus, *divmod(self._epoch * self._counts[corpus] + rank, self._shares[corpus].num_clips)
