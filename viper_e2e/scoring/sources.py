"""sources.py: inputs that a person names for scoring: clips, folders, patterns, addresses and shards."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Generic, TypeVar
from urllib.parse import urlsplit

from viper_e2e.clip import Sample
from viper_e2e.config import LimitsConfig
from viper_e2e.errors import ViperError, did_you_mean
from viper_e2e.loading import ClipEntry, ClipSource, PlaceReader, find_files
from viper_e2e.runtime import likely_path, matches
from viper_e2e.scoring.named_files import ClipFiles
from viper_e2e.shards import Opener, ShardIndex, ShardLimits, ShardSet, refuse_scheme

MAX_LINES = 5

P = TypeVar("P")
"""See `ClipSource`."""


class Subset(Generic[P]):
    """Some clips of a source, in the order given."""

    unusable = ()

    def __init__(self, source: ClipSource[P], indices: Iterable[int]):
        self.source, self.indices = source, list(indices)
        self.labels, self.remote_reading = source.labels, source.remote_reading

    @cached_property
    def shard_sizes(self) -> list[int]:
        places = groupby(self.source.shard_of(i).path_or_url for i in self.indices)
        return [sum(1 for _ in clips) for _, clips in places]

    def __len__(self) -> int:
        return len(self.indices)

    def entry(self, i: int) -> ClipEntry:
        return self.source.entry(self.indices[i])

    def shard_of(self, i: int) -> ShardIndex:
        return self.source.shard_of(self.indices[i])

    def clip_id(self, i: int) -> str | None:
        return self.source.clip_id(self.indices[i])

    def read(self, i: int) -> Sample:
        return self.source.read(self.indices[i])

    def name_of(self, i: int) -> str:
        return self.source.name_of(self.indices[i])

    def has_changed(self, i: int) -> bool:
        return self.source.has_changed(self.indices[i])

    def reader(self, opener: Opener | None = None) -> PlaceReader[P]:
        return self.source.reader() if opener is None else self.source.reader(opener)

    def place_of(self, i: int) -> P:
        return self.source.place_of(self.indices[i])


@dataclass
class Inputs:
    """Clips found under what a person named."""

    files: ClipFiles | None = None
    shards: ShardSet | None = None
    notes: list[str] = field(default_factory=list)
    """Notes on files passed over as they are no clips."""
    closed: list[str] = field(default_factory=list)
    """Folders that could not be searched."""

    @property
    def sources(self) -> list[ClipSource]:
        """Those that there are, in the order in which they are scored."""
        named: tuple[ClipSource | None, ...] = (self.files, self.shards)
        return [source for source in named if source is not None]

    @property
    def is_whole(self) -> bool:
        """Whether everything that was named is in the sources."""
        return not self.closed and not (self.shards is not None and self.shards.left_out)

    def tell(self) -> None:
        """Say what is not among the clips; what is left out of shards their problems tell."""
        from viper_e2e.runtime import AS_IT_IS, console  # workers load this module too, and need none

        for line in [*self.notes, *self.closed]:
            console.print(line, **AS_IT_IS)


def find_inputs(inputs: Sequence[str], limits: ShardLimits | None = None) -> Inputs:
    """Clips, folders of clips (searched throughout), addresses and shard patterns → what the loader can walk.

    A name is first taken literally, then as a glob pattern. Raises :class:`ViperError` for a folder without
    clips, and if nothing that is named is there.
    """
    found, missing = Inputs(), []
    files: list[Path | str] = []
    patterns: list[str] = []
    for given in inputs:
        if "://" in given or given.startswith("pipe:"):
            refuse_scheme(given)
            is_shard = urlsplit(given).path.endswith(".tar")
            (patterns if is_shard else files).append(given)
            continue
        is_pattern = not os.path.exists(given) and glob.has_magic(given)  # noqa: PTH110
        places = matches(given) if is_pattern and not given.endswith(".tar") else [given]
        for place in places or [given]:
            if place.endswith(".tar"):
                patterns.append(place)
            elif os.path.isdir(place):  # noqa: PTH112
                files += _clips_of_folder(place, found)
            else:
                files.append(Path(place))
                if not os.path.lexists(place):
                    missing.append(f"{place}: no such file or folder{did_you_mean(likely_path(place))}")
    if missing and len(missing) == len(files) and not patterns:
        raise ViperError("; ".join(missing[:MAX_LINES]))
    found.notes += missing
    if files:
        max_bytes = limits.max_clip_bytes if limits else LimitsConfig.max_bytes_in_memory
        found.files = ClipFiles(files, max_bytes=max_bytes)
    if patterns:
        found.shards = ShardSet(patterns, limits=limits)
    return found


def refuse_empty(shards: ShardSet, pattern: str) -> None:
    """Raise :class:`ViperError` if there is no sample to score."""
    if not len(shards):
        reasons = "; ".join(shards.problems[:3]) or "they are empty"
        raise ViperError(f"{pattern}: no usable sample: {reasons}")


def _clips_of_folder(folder: str, found: Inputs) -> list[Path]:
    inside = find_files(Path(folder))
    left_out = inside.left_out(folder)
    if not inside.files:
        reasons = "; ".join([*inside.closed, *left_out, *inside.sound_alone(folder)])
        raise ViperError(f"{folder}: no clip in this folder" + (f" ({reasons})" if reasons else ""))
    found.notes += left_out
    found.closed += inside.closed
    return inside.files
