"""shards/overlap.py: finds clips (by content) and subjects that are in several sets which should share none."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from viper_e2e.runtime import VIDEO_EXTENSIONS
from viper_e2e.shards.index import Member, SampleEntry, ShardIndex
from viper_e2e.shards.sample_table import table_of
from viper_e2e.shards.sources import ShardError, open_source


def shared_clips(sets: Mapping[str, Sequence[ShardIndex]]) -> list[dict[str, list[str]]]:
    """Films that are in more than one set, whatever they are called there: for each, set → its keys.

    Hashes come from the indexes. Of foreign shards, which have none, only films of equal size are read.
    """
    shared = _in_several({name: list(map(_film_sizes, shards)) for name, shards in sets.items()})
    found: dict[str, dict[str, list[str]]] = {}
    for name, shards in sets.items():
        for shard in shards:
            for row in np.flatnonzero(_is_in(_film_sizes(shard), shared)).tolist():
                entry = shard.samples[row]
                if (content := _sha256(shard, _film(entry))) is not None:
                    found.setdefault(f"{content} {entry.segment}", {}).setdefault(name, []).append(entry.key)
    return [where for where in found.values() if len(where) > 1]


def shared_subjects(sets: Mapping[str, Sequence[ShardIndex]]) -> dict[str, list[str]]:
    """Subjects of more than one set, with the sets."""
    hashes = {name: [table_of(shard).subject_hashes() for shard in shards] for name, shards in sets.items()}
    shared = _in_several(hashes)
    found: dict[str, dict[str, None]] = {}
    for name, shards in sets.items():
        left = shared  # each name is looked up once
        for shard, own in zip(shards, hashes[name], strict=True):
            for subject in table_of(shard).subjects(left):
                found.setdefault(subject, {})[name] = None
            left = np.setdiff1d(left, own)
    return {subject: sorted(where) for subject, where in sorted(found.items()) if len(where) > 1}


def subjects_of(shards: Sequence[ShardIndex]) -> list[str]:
    """All subjects, each once."""
    return list(dict.fromkeys(name for shard in shards for name in table_of(shard).all_subjects()))


def without_subject(sets: Mapping[str, Sequence[ShardIndex]]) -> str:
    """Note on clips without a subject in each set, since they hide people in several sets; else empty."""
    counts = {name: [table_of(shard).num_without_subject for shard in shards] for name, shards in sets.items()}
    return " and ".join(
        f"{sum(own):,} of {sum(len(table_of(shard)) for shard in sets[name]):,} clips of {name}"
        for name, own in counts.items()
        if any(own)
    )


def _in_several(sets: Mapping[str, Sequence[np.ndarray]]) -> np.ndarray:
    """Numbers that are in more than one set, in their order; the largest set is never sorted."""
    kind = np.result_type(*(part for parts in sets.values() for part in parts), np.uint8)
    if len(sets) < 2:
        return np.empty(0, kind)
    largest = max(sets, key=lambda name: sum(map(len, sets[name])))
    others = [np.unique(np.concatenate(parts)) for name, parts in sets.items() if name != largest and parts]
    if not others:
        return np.empty(0, kind)
    numbers, in_sets = np.unique(np.concatenate(others), return_counts=True)
    is_shared = in_sets > 1
    for part in sets[largest]:
        at = np.searchsorted(numbers, part[_is_in(part, numbers)])
        is_shared[at] = True
    return numbers[is_shared]


def _is_in(numbers: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Whether each number is among the sorted others."""
    if not len(among):
        return np.zeros(len(numbers), bool)
    at = np.searchsorted(among, numbers)
    return among[np.minimum(at, len(among) - 1)] == numbers


def _film_sizes(shard: ShardIndex) -> np.ndarray:
    return table_of(shard).sizes_of(VIDEO_EXTENSIONS)


def _film(entry: SampleEntry) -> Member:
    return next(member for extension, member in entry.members.items() if extension in VIDEO_EXTENSIONS)


def _sha256(shard: ShardIndex, film: Member) -> str | None:
    """``None`` if it cannot be read, which is reported elsewhere."""
    if film.sha256 is not None:
        return film.sha256
    try:
        return hashlib.sha256(
            open_source(shard.path_or_url, shard.version).read(film.offset, film.size)
        ).hexdigest()
    except (ShardError, FileNotFoundError):
        return None
