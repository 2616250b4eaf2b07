"""shards/overlap.py: clips, by content, and subjects that are in several sets which should share none."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from viper_e2e.runtime import VIDEO_EXTENSIONS
from viper_e2e.shards.index import Member, SampleEntry, ShardIndex
from viper_e2e.shards.sources import ShardError, open_source

Places = Sequence[tuple[ShardIndex, SampleEntry]]


def shared_clips(sets: Mapping[str, Places]) -> list[dict[str, list[str]]]:
    """Films that are in more than one set, whatever they are called there: for each, set → its keys.

    Hashes come from the indexes. Of foreign shards, which have none, only films of equal size are read.
    """
    sizes: dict[int, set[str]] = {}
    for name, places in sets.items():
        for _, entry in places:
            sizes.setdefault(_film(entry).size, set()).add(name)
    found: dict[str, dict[str, list[str]]] = {}
    for name, places in sets.items():
        for shard, entry in places:
            film = _film(entry)
            content = _sha256(shard, film) if len(sizes[film.size]) > 1 else None
            if content is not None:
                part = f"{content} {entry.segment}"
                found.setdefault(part, {}).setdefault(name, []).append(entry.key)
    return [where for where in found.values() if len(where) > 1]


def shared_subjects(sets: Mapping[str, Places]) -> dict[str, list[str]]:
    """Subjects of more than one set, with the sets."""
    found: dict[str, dict[str, None]] = {}
    for name, places in sets.items():
        for _, entry in places:
            if entry.subject is not None:
                found.setdefault(entry.subject, {})[name] = None
    return {subject: sorted(where) for subject, where in sorted(found.items()) if len(where) > 1}


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
