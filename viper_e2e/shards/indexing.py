"""shards/indexing.py: the index of a shard that another program wrote: where each member is, and its hash."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from viper_e2e.shards.columns_file import LEAST_INDEX_BYTES, columns_of, columns_path
from viper_e2e.shards.index import Member, index_path, index_to_json, parse_index
from viper_e2e.shards.sources import ShardError, ShardLimits, Source, open_source
from viper_e2e.shards.unindexed import index_foreign

_PIECE_BYTES = 16 * 2**20


def has_index(shard: str) -> bool:
    """Whether a file of its name is beside the shard; not whether it is right."""
    return _is_there(index_path(shard))


def has_columns(shard: str) -> bool:
    """Whether a file of their name is beside the shard."""
    return _is_there(columns_path(shard))


def _is_there(path: str) -> bool:
    try:
        open_source(path).size()
    except FileNotFoundError:
        return False
    return True


def make_columns(shard: str, index: bytes | None = None) -> bytes | None:
    """The file of columns for a shard with a large index; ``None`` where its index is small enough as it is.

    ``index``: its content, if it does not lie beside the shard.
    """
    beside = open_source(index_path(shard))
    content = beside.read(0, beside.size()) if index is None else index
    if len(content) < LEAST_INDEX_BYTES:
        return None
    return columns_of(parse_index(content, beside.name, open_source(shard).name), len(content))


def make_index(shard: str, limits: ShardLimits | None = None) -> bytes:
    """The index file of a shard, every byte of which is read.

    Raises ``ShardError`` for a torn shard, and for one with samples that cannot be used: beside an index
    nobody would hear of them any more.
    """
    source = open_source(shard)
    try:
        found, aside = index_foreign(source, limits or ShardLimits())
    except FileNotFoundError as error:
        raise ShardError(f"{source.name}: no such shard") from error
    if aside.faults or aside.left_out:
        lines = [*aside.faults, *aside.left_out]
        more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
        raise ShardError(f"{lines[0]}{more}; repair the shard first: an index would hide this")
    samples = tuple(
        replace(entry, members={name: _hashed(source, member) for name, member in entry.members.items()})
        for entry in found.samples
    )
    return index_to_json(replace(found, path_or_url=source.name, samples=samples))


def _hashed(source: Source, member: Member) -> Member:
    digest, end = hashlib.sha256(), member.offset + member.size
    for offset in range(member.offset, end, _PIECE_BYTES):
        digest.update(source.read(offset, min(_PIECE_BYTES, end - offset)))
    return replace(member, sha256=digest.hexdigest())
