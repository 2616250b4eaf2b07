"""shards/label_order.py: labels of several shards, each in an order of its own, brought into one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from viper_e2e.labels import LabelSet, are_alike, differing, order_of
from viper_e2e.shards.index import ShardIndex
from viper_e2e.shards.sample_table import table_of


def with_common_labels(
    shards: tuple[ShardIndex, ...],
) -> tuple[tuple[ShardIndex, ...], LabelSet | None, list[str]]:
    """All shards with their labels in the first one's order, what they have in common, and who disagrees.

    Ranges are joined: a foreign shard knows only its own values.
    """
    labelled = [(shard.path_or_url, shard.labels) for shard in shards if shard.labels is not None]
    if not labelled:
        return shards, None, []
    (whose, first), same, faults = labelled[0], [], []
    for shard in shards:
        order = None if shard.labels is None else order_of(shard.labels.names, first.names)
        if shard.labels is not None and order is not None and are_alike(shard.labels, first):
            shard = reordered(shard, order, first)
        elif shard.labels is not None:
            faults.append(differing(shard.path_or_url, shard.labels, whose, first))
        same.append(shard)
    minimum = min(labels.minimum for _, labels in labelled)
    maximum = max(labels.maximum for _, labels in labelled)
    whole = LabelSet(first.columns, minimum, maximum, tasks=first.tasks, combined=first.combined)
    for _, labels in labelled:
        if (labels.tasks, labels.combined) != (first.tasks, first.combined) and are_alike(labels, first):
            whole = whole.measured_as(labels)
    return tuple(same), whole, faults


def reordered(shard: ShardIndex, order: Sequence[int], labels: LabelSet) -> ShardIndex:
    """A shard whose labels stand in another order, under the titles of these."""
    if shard.labels is None or shard.labels.columns == labels.columns:
        return shard
    return replace(
        shard,
        samples=table_of(shard).with_labels(order),
        labels=under(labels, shard.labels),
        content_id=None if -1 in order else shard.content_id,  # the order of columns does not count
    )


def under(labels: LabelSet, own: LabelSet) -> LabelSet:
    """Labels under the titles of others, with their range and what they are measured by."""
    return replace(own, columns=labels.columns, tasks=labels.tasks, combined=()).measured_as(own)
