"""shards/content_ids.py: ids of clips and shards by content: bytes and labels, not place or name."""

from __future__ import annotations

from viper_e2e.runtime import digest, sampled_digest
from viper_e2e.shards.index import RECORD_EXTENSION, Member, SampleEntry, ShardIndex, known_or_none
from viper_e2e.shards.sources import LocalFile, open_source

MIDDLE_BYTES = 1024
"""Read of each film of a foreign shard to tell it from another; walking the tar has cost as much."""


def clip_id(shard: ShardIndex, entry: SampleEntry) -> str:
    """Identity of a clip by its bytes, whatever its name, place or labels."""
    members = {}
    for extension, member in entry.members.items():
        if extension != RECORD_EXTENSION:
            members[extension] = member.sha256 or _foreign_member_id(shard, member)
    return digest(members if entry.segment is None else {**members, "segment": entry.segment.to_json()})


def shard_id(shard: ShardIndex) -> str:
    """Identity of a shard by content, computed from its index."""
    return digest([_sample_content(shard, entry) for entry in shard.samples])


def _sample_content(shard: ShardIndex, entry: SampleEntry) -> list:
    labels = None
    if shard.labels is not None and entry.intensities is not None:
        labels = dict(zip(shard.labels.names, map(known_or_none, entry.intensities), strict=True))
    members = {
        extension: member.sha256 or [member.size, _middle(shard, member)]
        for extension, member in entry.members.items()
        if extension != RECORD_EXTENSION
    }
    segment = [] if entry.segment is None else [entry.segment.to_json()]
    return [entry.key, members, labels, *segment]


def _middle(shard: ShardIndex, member: Member) -> str | None:
    """A few bytes of a foreign member; nothing over the network, where each would be a request of its own."""
    source = open_source(shard.path_or_url)
    if not isinstance(source, LocalFile):
        return None
    size = min(member.size, MIDDLE_BYTES)
    return source.read(member.offset + (member.size - size) // 2, size).hex()


def _foreign_member_id(shard: ShardIndex, member: Member) -> str | list:
    source = open_source(shard.path_or_url)
    if not isinstance(source, LocalFile):
        return [source.name, shard.size, member.offset, member.size, shard.version]
    return sampled_digest(lambda offset, size: source.read(member.offset + offset, size), member.size)
