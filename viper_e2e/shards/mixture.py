"""shards/mixture.py: shards of several corpora as one set: all their tasks, and distinct keys of clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
from jaxtyping import Bool

from viper_e2e.labels import LabelSet, places_in, union_of
from viper_e2e.runtime import digest
from viper_e2e.shards.corpora import SEPARATOR, parts_of
from viper_e2e.shards.index import ShardIndex
from viper_e2e.shards.limits import ShardError
from viper_e2e.shards.reading import ShardSet
from viper_e2e.shards.sample_table import table_of


@dataclass(frozen=True)
class Corpus:
    """One of several, with its own labels and keys."""

    name: str
    shards: ShardSet
    weight: float | None = None
    """Weight of its clips in an epoch; ``None`` for all corpora: each clip once."""


class Mixture(ShardSet):
    """Clips of several corpora, one corpus after the other: a `ShardSet` of all their tasks.

    A clip lacks the labels of tasks that its corpus has not. Keys begin with the corpus (``acted:clip7``), so
    that equal keys of two corpora are two clips wherever clips are named: in caches, records and quarantine.

    Raises ``ShardError`` where corpora mean something else by a task of one name.
    """

    def __init__(self, corpora: Sequence[Corpus], option: str):
        """``option`` is where they were given, for messages."""
        self.corpora = tuple(corpora)
        self.limits = corpora[0].shards.limits
        try:
            labels = union_of({corpus.name: corpus.shards.known_labels for corpus in corpora})
        except ValueError as error:
            raise ShardError(f"{option}: {error}") from error
        self.labels = labels
        self.shards = tuple(s for corpus in corpora for s in _in_mixture(corpus, labels))
        self.duplicate_keys = {}
        for name in ("left_out", "unusable", "problems"):
            setattr(self, name, tuple(one for corpus in corpora for one in getattr(corpus.shards, name)))
        self._starts = list(accumulate((len(shard.samples) for shard in self.shards), initial=0))
        self.first_clips = list(accumulate((len(corpus.shards) for corpus in corpora), initial=0))
        """Index of each corpus's first clip, and the number of all."""

    def only(self, keep: Sequence[bool] | Bool[np.ndarray, " N"]) -> ShardSet:
        """The samples to keep, corpus by corpus."""
        wanted = np.asarray(keep, dtype=bool)
        parts = [
            replace(corpus, shards=corpus.shards.only(wanted[first : first + len(corpus.shards)]))
            for corpus, first in zip(self.corpora, self.first_clips, strict=False)
        ]
        # Labels may stand in the order of an earlier run.
        return Mixture(parts, "shards").labelled_as(self.known_labels, "the mixture")

    def shard_ids(self) -> list[str]:
        """Identities within each corpus, whatever it is mixed with."""
        return [one for corpus in self.corpora for one in corpus.shards.shard_ids()]

    def content_id(self) -> str:
        """An id of the corpora, their names and their weights relative to one another."""
        parts = parts_of([corpus.weight for corpus in self.corpora])
        return digest(
            [
                [corpus.name, part and float(part), corpus.shards.content_id()]
                for corpus, part in zip(self.corpora, parts, strict=True)
            ]
        )


def name_of_corpus(key: str) -> str:
    """The corpus of a mixture's clip, by its key there."""
    return key.partition(SEPARATOR)[0]


def _in_mixture(corpus: Corpus, labels: LabelSet) -> list[ShardIndex]:
    prefix, own = f"{corpus.name}{SEPARATOR}", corpus.shards.known_labels
    places = places_in(own, labels)
    assert places is not None, "the union has every task of each"
    tables = [table_of(shard).prefixed(prefix) for shard in corpus.shards.shards]
    return [
        replace(shard, samples=table.with_labels(places), labels=labels)
        for shard, table in zip(corpus.shards.shards, tables, strict=True)
    ]
