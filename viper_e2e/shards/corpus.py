"""shards/corpus.py: one corpus of a set of shards, with labels and keys of its own, alone or among others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
from jaxtyping import Bool

from viper_e2e.labels import LabelSet, places_in
from viper_e2e.runtime import digest
from viper_e2e.shards.addresses import is_remote
from viper_e2e.shards.content_ids import shard_id
from viper_e2e.shards.corpora import SEPARATOR
from viper_e2e.shards.index import ShardIndex
from viper_e2e.shards.sample_table import table_of
from viper_e2e.shards.shard_cache import cache_name


@dataclass(frozen=True, eq=False)
class Corpus:
    """Shards that were packed together, with their own labels and keys."""

    name: str
    """Empty: the only one of its set."""
    shards: tuple[ShardIndex, ...]
    labels: LabelSet | None
    weight: float | None = None
    """Weight of its clips in an epoch; ``None`` for all corpora: each clip once."""

    def __len__(self) -> int:
        return sum(self.shard_sizes)

    @property
    def shard_sizes(self) -> list[int]:
        """Number of samples in each shard."""
        return [len(shard.samples) for shard in self.shards]

    def shard_ids(self) -> list[str]:
        """Ids of the shards, as of `ShardSet`."""
        return [shard.content_id or shard_id(shard) for shard in self.shards]

    def content_id(self) -> str:
        """An id of all shards together, in their order."""
        return digest(self.shard_ids())

    def only(self, keep: Bool[np.ndarray, " N"]) -> Corpus:
        """The samples to keep, in their order."""
        return replace(self, shards=kept(self.shards, keep))

    def among(self, labels: LabelSet) -> tuple[ShardIndex, ...]:
        """Its shards in a set of several: under all labels of the set, its name before each key and subject."""
        assert self.labels is not None
        places = places_in(self.labels, labels)
        assert places is not None, "the union has every task of each"
        tables = [table_of(shard).prefixed(f"{self.name}{SEPARATOR}") for shard in self.shards]
        return tuple(
            replace(shard, samples=table.with_labels(places), labels=labels)
            for shard, table in zip(self.shards, tables, strict=True)
        )


def name_of_corpus(key: str) -> str:
    """The corpus of a clip, by its key in a set of several."""
    return key.partition(SEPARATOR)[0]


def kept(
    shards: Sequence[ShardIndex], keep: Bool[np.ndarray, " N"], *, is_cached: bool = False
) -> tuple[ShardIndex, ...]:
    """The samples to keep, shard by shard. ``is_cached``: whether remote shards are, which are cached whole."""
    starts = accumulate((len(shard.samples) for shard in shards), initial=0)
    return tuple(
        _kept(shard, keep[start : start + len(shard.samples)], is_cached=is_cached)
        for shard, start in zip(shards, starts, strict=False)
    )


def _kept(shard: ShardIndex, keep: Bool[np.ndarray, " N"], *, is_cached: bool) -> ShardIndex:
    if keep.all():
        return shard
    name = cache_name(shard) if is_cached and is_remote(shard.path_or_url) else None
    return replace(shard, samples=table_of(shard).only(keep), content_id=None, cache_name=name)
