"""shard_sets.py: shards of clips that are never decoded: labels, subjects and metadata alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from viper_e2e.labels import LabelSet
from viper_e2e.shards import ShardSet, ShardWriter
from viper_e2e.tasks import Task

MOODS = LabelSet(("mood calm", "mood glad", "mood sad"), tasks=(Task("mood", "class", 3),))


def write_shards(
    folder: Path,
    rows: Sequence[tuple[str, tuple[float, ...] | None, str | None, Mapping[str, str] | None]],
    labels: LabelSet = MOODS,
) -> ShardSet:
    """``rows``: key, label, subject and metadata of each clip."""
    folder.mkdir(parents=True, exist_ok=True)
    with ShardWriter(folder, "all", labels, shard_size=100_000) as writer:
        for number, (key, label, subject, meta) in enumerate(rows):
            film = f"film {number}".encode() * 40
            writer.add(key, {"mp4": film}, file_id="", intensities=label, subject=subject, meta=meta)
    return ShardSet(str(folder / "all-*.tar"))


def mood(number: int) -> tuple[float, ...]:
    """One of three, as shares of 1."""
    return tuple(float(number == column) for column in range(3))
