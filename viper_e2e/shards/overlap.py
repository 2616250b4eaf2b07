"""shards/overlap.py: clips, by content, and subjects that are in several sets which should share none."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from viper_e2e.runtime import VIDEO_EXTENSIONS
from viper_e2e.shards.index import Member, SampleEntry, ShardIndex
from viper_e2e.shards.reading import table_of
from viper_e2e.shards.sources import ShardError, open_source


def shared_clips(sets: Mapping[str, Sequence[ShardIndex]]) -> list[dict[str, list[str]]]:
    """Films that are in more than one set, whatever they are called there: for each, set → its keys.

    Hashes come from the indexes. Of foreign shards, which have none, only films of equal size are read.
    """
    own = [np.unique(np.concatenate([np.empty(0, np.int64), *map(_film_sizes, s)])) for s in sets.values()]
    sizes, in_sets = np.unique(np.concatenate([np.empty(0, np.int64), *own]), return_counts=True)
    shared = sizes[in_sets > 1]
    found: dict[str, dict[str, list[str]]] = {}
    for name, shards in sets.items():
        for shard in shards:
            for row in np.flatnonzero(np.isin(_film_sizes(shard), shared)).tolist():
                entry = shard.samples[row]
                if (content := _sha256(shard, _film(entry))) is not None:
                    found.setdefault(f"{content} {entry.segment}", {}).setdefault(name, []).append(entry.key)
    return [where for where in found.values() if len(where) > 1]


def shared_subjects(sets: Mapping[str, Sequence[ShardIndex]]) -> dict[str, list[str]]:
    """Subjects of more than one set, with the sets."""
    found: dict[str, dict[str, None]] = {}
    for name, shards in sets.items():
        for shard in shards:
            for subject in table_of(shard).subjects():
                found.setdefault(subject, {})[name] = None
    return {subject: sorted(where) for subject, where in sorted(found.items()) if len(where) > 1}


def _film_sizes(shard: ShardIndex) -> np.ndarray:
    return table_of(shard).sizes_of(VIDEO_EXTENSIONS)


def _film(entry: SampleEntry) -> Member:
    return next(member for extension, member in entry.members.items() if extension in VIDEO_EXTENSIONS)


def _sha256(shard: ShardIndex, film: Member) -> str | None:
    """``None`` where it cannot be read, which is told elsewhere."""
    if film.sha256 is not None:
        return film.sha256
    try:
        return hashlib.sha256(open_source(shard.path_or_url).read(film.offset, film.size)).hexdigest()
    except (ShardError, FileNotFoundError):
        return None
