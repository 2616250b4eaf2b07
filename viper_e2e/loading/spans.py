"""spans.py: when a pass over clips needs each shard, to read it ahead and let go of it after."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import NamedTuple

from viper_e2e.loading.clip_source import ClipSource
from viper_e2e.loading.order import Order
from viper_e2e.shards import RemoteReading, ShardIndex, is_remote


class Span(NamedTuple):
    """Range of an epoch's positions in which a shard is needed."""

    shard: ShardIndex
    first: int
    """The first position at which a clip of it may be."""
    last: int


def notes_on_reading(reading: RemoteReading, sources: Iterable[ClipSource | None]) -> list[str]:
    """Notes if shards should be read whole or cached, but none is remote."""
    given = [source for source in sources if source is not None and source.remote_reading.reads_whole]
    if not reading.reads_whole or any(is_remote(shard.path_or_url) for one in given for shard in _shards(one)):
        return []
    ways = {"--read ahead": reading.read == "ahead", "--cache": reading.cache is not None}
    named = ", ".join(way for way, is_given in ways.items() if is_given)
    return [f"{named}: no effect, as no shard is on a server or in a store"]


def spans_of_order(source: ClipSource, order: Order, start: int) -> Iterator[Span]:
    """The spans of an epoch from a position on; shards on disk are left out."""
    firsts = list(accumulate(source.shard_sizes, initial=0))
    for number, first, last in order.spans():
        if last >= start and is_remote((shard := source.shard_of(firsts[number])).path_or_url):
            yield Span(shard, max(first, start), last)


def spans_of_clips(source: ClipSource, indices: Iterable[int]) -> Iterator[Span]:
    """The spans of clips in the order of their numbers; clips of one shard stand together."""
    shard, first, last = None, 0, 0
    for i in indices:
        here = source.shard_of(i)
        if shard is not None and here is not shard:
            yield Span(shard, first, last)
            shard = None
        if shard is None and is_remote(here.path_or_url):
            shard, first = here, i
        last = i
    if shard is not None:
        yield Span(shard, first, last)


def _shards(source: ClipSource) -> Iterator[ShardIndex]:
    """Each shard that holds a clip."""
    for size, end in zip(source.shard_sizes, accumulate(source.shard_sizes), strict=True):
        if size:
            yield source.shard_of(end - 1)
