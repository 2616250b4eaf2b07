"""shards/opening.py: the indexes of all shards that patterns name, in one order of labels, and their faults."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np

from viper_e2e.labels import LabelSet
from viper_e2e.shards.columns_file import LEAST_INDEX_BYTES, columns_path, read_columns
from viper_e2e.shards.index import ShardIndex, index_path, read_index
from viper_e2e.shards.label_order import with_common_labels
from viper_e2e.shards.patterns import expand
from viper_e2e.shards.sample_table import table_of
from viper_e2e.shards.sources import LocalFile, RemoteFile, ShardError, ShardLimits, open_source
from viper_e2e.shards.unindexed import Aside, index_foreign


@dataclass(frozen=True, eq=False)
class OpenShards:
    """Shards as they were found; fields as in `ShardSet`."""

    shards: tuple[ShardIndex, ...]
    labels: LabelSet | None
    left_out: tuple[str, ...]
    unusable: tuple[tuple[str, str], ...]
    duplicate_keys: dict[str, list[str]]
    problems: tuple[str, ...]


def open_shards(patterns: str | Sequence[str], limits: ShardLimits, *, strict: bool) -> OpenShards:
    """The shards of a `ShardSet`. ``strict``: `ShardError` that names every one at fault."""
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda path: _index(path, limits), expand(patterns)))
    shards, labels, label_faults = with_common_labels(tuple(index for index, _ in found if index is not None))
    duplicate_keys = _duplicate_keys(shards)
    faults = [fault for _, aside in found for fault in aside.faults] + label_faults
    faults += [f"key {key!r} is in {' and in '.join(places)}" for key, places in duplicate_keys.items()]
    if faults and strict:
        more = f" (and {len(faults) - 5} more problems)" if len(faults) > 5 else ""
        raise ShardError("; ".join(faults[:5]) + more + "; `viper check` lists all")
    left_out = tuple(line for _, aside in found for line in aside.left_out)
    notes = (note for _, aside in found for note in aside.notes)
    return OpenShards(
        shards,
        labels,
        left_out,
        tuple(one for _, aside in found for one in aside.unusable),
        duplicate_keys,
        (*faults, *left_out, *notes),
    )


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
