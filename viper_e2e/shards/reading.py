"""shards/reading.py: a set of shards as one numbered list of samples, read by offset."""

from __future__ import annotations

import bisect
import copy
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import accumulate

import numpy as np
from jaxtyping import Bool, Float64

from viper_e2e.clip import Sample
from viper_e2e.labels import LabelSet, differing, on_another_scale, places_in
from viper_e2e.runtime import digest
from viper_e2e.shards.addresses import is_remote
from viper_e2e.shards.columns_file import LEAST_INDEX_BYTES, columns_path, read_columns
from viper_e2e.shards.content_ids import clip_id, shard_id
from viper_e2e.shards.index import SampleEntry, ShardIndex, index_path, read_index
from viper_e2e.shards.label_order import reordered, under, with_common_labels
from viper_e2e.shards.patterns import expand
from viper_e2e.shards.remote_reading import Opener, RemoteReading
from viper_e2e.shards.sample_reading import Place, SampleReader
from viper_e2e.shards.sample_table import table_of
from viper_e2e.shards.shard_cache import cache_name
from viper_e2e.shards.sources import Direct, LocalFile, RemoteFile, ShardError, ShardLimits, open_source
from viper_e2e.shards.unindexed import Aside, index_foreign

_log = logging.getLogger(__name__)


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

    def __init__(
        self, patterns: str | Sequence[str], *, limits: ShardLimits | None = None, strict: bool = True
    ):
        self.limits = limits or ShardLimits()
        paths = expand(patterns)
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda path: _index(path, self.limits), paths))
        faults = [fault for _, aside in found for fault in aside.faults]
        self.left_out: tuple[str, ...] = tuple(line for _, aside in found for line in aside.left_out)
        """Samples of foreign shards that are not among these, each with the reason."""
        self.unusable: tuple[tuple[str, str], ...] = tuple(u for _, aside in found for u in aside.unusable)
        """Key and reason of those that are samples by their files: to who scores, clips that failed."""
        self.shards: tuple[ShardIndex, ...] = tuple(index for index, _ in found if index is not None)
        self.shards, self.labels, label_faults = with_common_labels(self.shards)
        self.duplicate_keys = _duplicate_keys(self.shards)
        faults += label_faults
        faults += [
            f"key {key!r} is in {' and in '.join(shards)}" for key, shards in self.duplicate_keys.items()
        ]
        if faults and strict:
            more = f" (and {len(faults) - 5} more problems)" if len(faults) > 5 else ""
            raise ShardError("; ".join(faults[:5]) + more + "; `viper check` lists all")
        notes = [note for _, aside in found for note in aside.notes]
        self.problems: tuple[str, ...] = (*faults, *self.left_out, *notes)
        self._starts = list(accumulate((len(shard.samples) for shard in self.shards), initial=0))

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
        made = copy.copy(self)
        made.labels = under(labels, self.labels)
        # Shards whose labels disagree are only here under `viper check`, which compares nothing.
        made.shards = tuple(reordered(shard, order, labels) for shard in self.shards)
        return made

    def only(self, keep: Sequence[bool] | Bool[np.ndarray, " N"]) -> ShardSet:
        """The samples to keep, in their order."""
        made, wanted = copy.copy(self), np.asarray(keep, dtype=bool)
        made.shards = tuple(
            _only(
                shard,
                wanted[start : start + len(shard.samples)],
                is_cached=self.limits.remote_reading.cache is not None,
            )
            for shard, start in zip(self.shards, self._starts, strict=False)
        )
        made._starts = list(accumulate((len(shard.samples) for shard in made.shards), initial=0))
        return made

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

    def clip_id(self, i: int) -> str:
        """Identity of a clip by its bytes, whatever its name, place or labels."""
        return clip_id(self.shard_of(i), self.entry(i))

    def shard_ids(self) -> list[str]:
        """Identity of each shard by content: its clips in order, and their labels by name.

        Of a foreign shard, without hashes, what is at hand: sizes, and a few bytes from the middle of each
        film. Where shards lie and what they are called does not count, nor the order of the labels' columns.
        """
        return [shard.content_id or shard_id(shard) for shard in self.shards]

    def content_id(self) -> str:
        """An id of all shards together, in their order."""
        return digest(self.shard_ids())

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


def _index(path: str, limits: ShardLimits) -> tuple[ShardIndex | None, Aside]:
    """One shard's index, and its faults and notes."""
    try:
        source = open_source(path)
        beside = open_source(index_path(path))
        if (size := _size_of(beside)) is not None:
            index = None
            if size >= LEAST_INDEX_BYTES:
                index = read_columns(source, open_source(columns_path(path)), size, limits)
            return _located(index or read_index(source, beside, size, limits), path), Aside()
        foreign, aside = index_foreign(source, limits)
        return _located(foreign, path), aside
    except FileNotFoundError as error:
        reason = error.strerror or str(error) if isinstance(source, RemoteFile) else "no such shard"
        return None, Aside(faults=[f"{open_source(path).name}: {reason}"])
    except ShardError as error:
        return None, Aside(faults=[str(error)])


def _size_of(file: LocalFile | RemoteFile) -> int | None:
    """``None`` where it is not there."""
    try:
        return file.size()
    except FileNotFoundError:
        return None


def _located(index: ShardIndex, path: str) -> ShardIndex:
    """Messages name a URL without its query; reading needs all of it."""
    return replace(index, path_or_url=path, samples=table_of(index))


def _only(shard: ShardIndex, keep: Bool[np.ndarray, " N"], *, is_cached: bool) -> ShardIndex:
    if keep.all():
        return shard
    name = cache_name(shard) if is_cached and is_remote(shard.path_or_url) else None
    return replace(shard, samples=table_of(shard).only(keep), content_id=None, cache_name=name)


def _duplicate_keys(shards: Sequence[ShardIndex]) -> dict[str, list[str]]:
    """Keys that occur more than once, with the shards they occur in."""
    hashes = np.concatenate([np.empty(0, np.uint64), *(table_of(shard).key_hashes() for shard in shards)])
    in_order = np.sort(hashes)
    again = np.unique(in_order[1:][in_order[1:] == in_order[:-1]])
    if not len(again):
        return {}
    starts = list(accumulate((len(shard.samples) for shard in shards), initial=0))
    places: dict[str, list[str]] = {}
    for i in np.flatnonzero(np.isin(hashes, again)).tolist():
        shard = bisect.bisect_right(starts, i) - 1
        key = shards[shard].samples[i - starts[shard]].key
        places.setdefault(key, []).append(shards[shard].path_or_url)
    return {key: where for key, where in places.items() if len(where) > 1}
