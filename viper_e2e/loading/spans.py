"""spans.py: when a pass over clips needs each shard, to read it ahead and let go of it after."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol, runtime_checkable

from viper_e2e.clip import ClipSource
from viper_e2e.shards import RemoteReading, ShardIndex, ShardSet, is_remote


class Span(NamedTuple):
    """Range of an epoch's positions in which a shard is needed."""

    shard: ShardIndex
    first: int
    """The first position at which a clip of it may be."""
    last: int


@runtime_checkable
class HasRemoteShards(Protocol):
    """A source that knows how its remote shards are read."""

    @property
    def remote_reading(self) -> RemoteReading: ...


@runtime_checkable
class HasSpans(Protocol):
    """An order of an epoch."""

    def spans(self) -> Iterable[tuple[int, int, int]]: ...


def remote_reading_of(source: ClipSource) -> RemoteReading:
    """How files that a person named are read: each by itself."""
    return source.remote_reading if isinstance(source, HasRemoteShards) else RemoteReading()


def notes_on_reading(reading: RemoteReading, sources: Iterable[ClipSource | None]) -> list[str]:
    """Notes if shards should be read whole or cached, but none is remote."""
    shards = [shard for source in sources if isinstance(source, ShardSet) for shard in source.shards]
    if not reading.reads_whole or any(is_remote(shard.path_or_url) for shard in shards):
        return []
    ways = {"--read ahead": reading.read == "ahead", "--cache": reading.cache is not None}
    given = ", ".join(way for way, is_given in ways.items() if is_given)
    return [f"{given}: no effect, as no shard is on a server or in a store"]


def spans_of_order(source: ShardSet, order: HasSpans, start: int) -> Iterator[Span]:
    """The spans of an epoch from a position on; shards on disk are left out."""
    for number, first, last in order.spans():
        if last >= start and is_remote(source.shards[number].path_or_url):
            yield Span(source.shards[number], max(first, start), last)


def spans_of_clips(source: ClipSource, indices: Iterable[int]) -> Iterator[Span]:
    """The spans of clips in the order of their numbers; clips of one shard stand together."""
    shard, first, last = None, 0, 0
    for i in indices:
        place = source.shard_of(i)
        if shard is not None and place is not shard:
            yield Span(shard, first, last)
            shard = None
        if shard is None and isinstance(place, ShardIndex) and place.size and is_remote(place.path_or_url):
            shard, first = place, i
        last = i
    if shard is not None:
        yield Span(shard, first, last)
