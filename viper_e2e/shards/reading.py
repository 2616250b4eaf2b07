"""shards/reading.py: a set of shards as one numbered list of samples, read by offset."""

from __future__ import annotations

import bisect
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import accumulate

import numpy as np
from jaxtyping import Bool, Float64

from viper_e2e.clip import Sample
from viper_e2e.labels import LabelSet, differing, on_another_scale, places_in, union_of
from viper_e2e.runtime import digest
from viper_e2e.shards.content_ids import clip_id
from viper_e2e.shards.corpora import parts_of
from viper_e2e.shards.corpus import Corpus, kept
from viper_e2e.shards.index import SampleEntry, ShardIndex
from viper_e2e.shards.label_order import reordered, under
from viper_e2e.shards.opening import open_shards
from viper_e2e.shards.remote_reading import Opener, RemoteReading
from viper_e2e.shards.sample_reading import Place, SampleReader
from viper_e2e.shards.sample_table import table_of
from viper_e2e.shards.sources import Direct, ShardError, ShardLimits

_log = logging.getLogger(__name__)


@dataclass(frozen=True, init=False, eq=False, repr=False)
class ShardSet:
    """The samples of many shards, numbered 0 … ``len - 1`` in the order of the shards.

    Holds indexes only: picklable, safe in worker processes and threads; every read opens its file,
    takes the wanted bytes by offset (local ``pread``, or one Range request), and closes it.

    ``patterns``: local paths, globs, brace patterns (``train-{000000..000017}.tar``), ``https://`` URLs
    whose server answers Range requests (plain http only to this machine), ``s3://``, ``gs://`` and ``hf://``
    addresses. Nothing else is ever opened.

    Raises ``ShardError`` naming every shard that is incomplete or damaged, or has a key of another. With
    ``strict=False`` these are listed in ``problems`` instead, and the intact samples of such shards stay
    readable (``viper check``).
    """

    limits: ShardLimits
    labels: LabelSet | None
    """Labels of all shards, in this order."""
    shards: tuple[ShardIndex, ...]
    named_corpora: tuple[Corpus, ...]
    """Corpora that were given names, in their order; empty: all shards are one corpus."""
    left_out: tuple[str, ...]
    """Samples of foreign shards that are not among these, each with the reason."""
    unusable: tuple[tuple[str, str], ...]
    """Key and reason of those that are samples by their files: to who scores, clips that failed."""
    duplicate_keys: dict[str, list[str]]
    """Keys that occur more than once, with the shards they occur in."""
    problems: tuple[str, ...]
    """For people: what is wrong with shards, left out of them or odd about them."""

    def __init__(
        self, patterns: str | Sequence[str], *, limits: ShardLimits | None = None, strict: bool = True
    ):
        limits = limits or ShardLimits()
        opened = open_shards(patterns, limits, strict=strict)
        vars(self).update(vars(opened), limits=limits, named_corpora=())

    @classmethod
    def mixed(
        cls, corpora: Mapping[str, ShardSet], option: str, weights: Mapping[str, float | None] | None = None
    ) -> ShardSet:
        """Clips of several corpora, one corpus after the other, with all their tasks.

        A clip lacks the labels of tasks that its corpus has not. Keys begin with the corpus (``acted:clip7``),
        so that equal keys of two corpora are two clips wherever clips are named: in caches and in records.
        ``option`` is where they were given, for the ``ShardError`` where corpora mean something else by a task
        of one name. ``weights``: as in `Corpus`.
        """
        try:
            labels = union_of({name: shards.known_labels for name, shards in corpora.items()})
        except ValueError as error:
            raise ShardError(f"{option}: {error}") from error
        named = tuple(
            Corpus(name, shards.shards, shards.labels, (weights or {}).get(name))
            for name, shards in corpora.items()
        )
        sets = list(corpora.values())
        return sets[0]._with(
            labels=labels,
            shards=tuple(shard for corpus in named for shard in corpus.among(labels)),
            named_corpora=named,
            left_out=tuple(line for one in sets for line in one.left_out),
            unusable=tuple(clip for one in sets for clip in one.unusable),
            duplicate_keys={},
            problems=tuple(line for one in sets for line in one.problems),
        )

    def _with(self, **changes: object) -> ShardSet:
        """The same but for these fields."""
        made = object.__new__(ShardSet)
        vars(made).update({field.name: getattr(self, field.name) for field in fields(self)} | changes)
        return made

    def with_problems(self, problems: Iterable[str]) -> ShardSet:
        """The same clips, of which there is something else to tell."""
        return self._with(problems=tuple(problems))

    @property
    def corpora(self) -> tuple[Corpus, ...]:
        """All corpora; one without a name where none was given."""
        return self.named_corpora or (Corpus("", self.shards, self.labels),)

    @cached_property
    def _starts(self) -> list[int]:
        """Number of each shard's first sample, and the number of all."""
        return list(accumulate(self.shard_sizes, initial=0))

    def __len__(self) -> int:
        return self._starts[-1]

    @property
    def known_labels(self) -> LabelSet:
        """`labels` of shards that have some; `ShardError` where none of them has."""
        if self.labels is None:
            places = ", ".join(shard.path_or_url.partition("?")[0] for shard in self.shards[:2])
            raise ShardError(f"{places}: without labels")
        return self.labels

    @property
    def remote_reading(self) -> RemoteReading:
        """Settings for reading remote shards."""
        return self.limits.remote_reading

    @property
    def shard_sizes(self) -> list[int]:
        """Number of samples in each shard."""
        return [len(shard.samples) for shard in self.shards]

    def labelled_as(self, labels: LabelSet, whose: str) -> ShardSet:
        """The same shards with every clip's labels in the order of ``labels``, matched by name.

        The one way for labels of a corpus to meet a model, another corpus or an earlier run. ``whose`` names
        them in the ``ShardError`` that other emotions raise. Of several tasks some may be missing here, which
        every clip then lacks. Shards in which nothing is labelled fit any.
        """
        if self.labels is None or not any(table_of(shard).is_labelled().any() for shard in self.shards):
            return self
        order = places_in(self.labels, labels)
        if order is None:
            places = ", ".join(shard.path_or_url.partition("?")[0] for shard in self.shards[:2])
            places += ", …" if len(self.shards) > 2 else ""
            raise ShardError(differing(places, self.labels, whose, labels))
        for own, known in on_another_scale(self.labels, labels):
            places = self.shards[0].path_or_url.partition("?")[0]
            _log.warning(
                "%s: %s is %g to %g, in %s %g to %g: errors and CCC across two scales mean little; use one "
                "scale",
                *(places, own.name, own.minimum, own.maximum, whose, known.minimum, known.maximum),
            )
        # Shards whose labels disagree are only here under `viper check`, which compares nothing.
        shards = tuple(reordered(shard, order, labels) for shard in self.shards)
        return self._with(labels=under(labels, self.labels), shards=shards)

    def mapped(self, labels: LabelSet, row: Callable[[tuple[float, ...]], tuple[float, ...]]) -> ShardSet:
        """The same clips with other labels, which ``row`` makes of those of each clip that has some."""

        def with_row(entry: SampleEntry) -> SampleEntry:
            return entry if entry.intensities is None else replace(entry, intensities=row(entry.intensities))

        return self._with(
            labels=labels,
            shards=tuple(
                replace(shard, labels=labels, samples=tuple(map(with_row, shard.samples)))
                for shard in self.shards
            ),
        )

    def only(self, keep: Sequence[bool] | Bool[np.ndarray, " N"]) -> ShardSet:
        """The samples to keep, in their order."""
        wanted = np.asarray(keep, dtype=bool)
        starts = accumulate(map(len, self.named_corpora), initial=0)
        named = tuple(
            corpus.only(wanted[start : start + len(corpus)])
            for corpus, start in zip(self.named_corpora, starts, strict=False)
        )
        is_cached = self.limits.remote_reading.cache is not None
        return self._with(shards=kept(self.shards, wanted, is_cached=is_cached), named_corpora=named)

    def is_labelled(self) -> Bool[np.ndarray, " N"]:
        """Whether each sample has a label."""
        return np.concatenate([np.empty(0, bool), *(table_of(shard).is_labelled() for shard in self.shards)])

    def label_rows(self) -> Float64[np.ndarray, "N E"]:
        """Labels of all samples; NaN where one is missing."""
        return np.concatenate([np.empty((0, len(self.known_labels))), *self.label_parts()])

    def label_parts(self) -> Iterator[Float64[np.ndarray, "_ E"]]:
        """The same, shard by shard."""
        width = len(self.known_labels)
        for shard in self.shards:
            if shard.labels is None:
                yield np.full((len(shard.samples), width), np.nan)
            else:
                yield table_of(shard).label_rows()

    def shard_of(self, i: int) -> ShardIndex:
        """The shard that holds sample ``i``."""
        return self.shards[self._place(i)[0]]

    def entry(self, i: int) -> SampleEntry:
        """Index entry of sample ``i``; the sample is not read."""
        shard, row = self._place(i)
        return self.shards[shard].samples[row]

    def entries(self) -> list[SampleEntry]:
        """Index entries of all samples."""
        return [entry for shard in self.shards for entry in shard.samples]

    def clip_id(self, i: int) -> str:
        """Identity of a clip by its bytes, whatever its name, place or labels."""
        return clip_id(self.shard_of(i), self.entry(i))

    def shard_ids(self) -> list[str]:
        """Identity of each shard by content: its clips in order, and their labels by name.

        Of a foreign shard, without hashes, what is at hand: sizes, and a few bytes from the middle of each
        film. Where shards lie and what they are called does not count, nor the order of the labels' columns.
        """
        return [one for corpus in self.corpora for one in corpus.shard_ids()]

    def content_id(self) -> str:
        """An id of all shards together, in their order; of named corpora also of the names, and of the weights
        relative to one another."""
        if not self.named_corpora:
            return digest(self.shard_ids())
        parts = parts_of([corpus.weight for corpus in self.named_corpora])
        return digest(
            [
                [corpus.name, part and float(part), corpus.content_id()]
                for corpus, part in zip(self.named_corpora, parts, strict=True)
            ]
        )

    def read(self, i: int) -> Sample:
        """Sample ``i``, bytes checked against the index's sha256 where it has them.

        Raises ``ClipError`` (stage ``"read"``) where this one clip cannot be had.
        """
        return self.reader().read(self.place_of(i))

    def name_of(self, i: int) -> str:
        """Identity of a sample: its key and its content."""
        return f"{self.entry(i).key} {self.clip_id(i)}"

    def has_changed(self, i: int) -> bool:
        """Shards that are replaced cost their clips when they are read, whose errors say so."""
        return False

    def reader(self, opener: Opener | None = None) -> SampleReader:
        """Reads what `place_of` names, without the indexes: for worker processes."""
        return SampleReader(self.limits, opener or Direct())

    def place_of(self, i: int) -> Place:
        """All that a `reader` has to know of sample ``i``."""
        shard = self.shard_of(i)
        return Place(shard.path_or_url, self.entry(i), shard.version)

    def _place(self, i: int) -> tuple[int, int]:
        if not 0 <= i < len(self):
            raise IndexError(f"sample {i} of {len(self)}")
        shard = bisect.bisect_right(self._starts, i) - 1
        return shard, i - self._starts[shard]
