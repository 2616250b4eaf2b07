"""clip_source.py: sources of clips: a set of shards, files that a person named, some of either."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar, runtime_checkable

from viper_e2e.clip import Sample
from viper_e2e.labels import LabelSet
from viper_e2e.shards import Opener, RemoteReading, ShardIndex

P = TypeVar("P")
"""The place of a clip for a reader: its number, or a `Place` in a shard, as the source says."""
P_contra = TypeVar("P_contra", contravariant=True)


@runtime_checkable
class ClipEntry(Protocol):
    """Facts of a clip before it is read; fields as in `Sample`."""

    @property
    def key(self) -> str: ...
    @property
    def file_id(self) -> str: ...
    @property
    def intensities(self) -> tuple[float, ...] | None: ...
    @property
    def subject(self) -> str | None: ...
    @property
    def meta(self) -> Mapping[str, str] | None:
        """Further columns that were packed with it, by the titles of its columns."""
        ...


@runtime_checkable
class PlaceReader(Protocol[P_contra]):
    """Reads clips by their places, for workers: that of shards needs no index, and stays small."""

    def read(self, place: P_contra, /) -> Sample:
        """Raises `ClipError` where this one clip cannot be had."""
        ...


@runtime_checkable
class ClipSource(Protocol[P]):
    """Clips by number, 0 … ``len - 1``."""

    @property
    def labels(self) -> LabelSet | None: ...
    @property
    def shard_sizes(self) -> Sequence[int]:
        """Numbers of clips that lie in one shard one after another, in their order; all clips together."""
        ...

    @property
    def remote_reading(self) -> RemoteReading:
        """Settings for reading shards that are not on this machine."""
        ...

    @property
    def unusable(self) -> Sequence[tuple[str, str]]:
        """Key and reason of what are clips by their files, but are in no shape to be numbered."""
        ...

    def __len__(self) -> int: ...

    def entry(self, i: int) -> ClipEntry: ...

    def shard_of(self, i: int) -> ShardIndex:
        """The shard that holds clip ``i``; of a file an empty one, which stands for its folder."""
        ...

    def clip_id(self, i: int) -> str | None:
        """Id of a clip by its content; None where that is not known before it is read."""
        ...

    def name_of(self, i: int) -> str:
        """Id of a clip for the whole of a run, also where it is replaced by another."""
        ...

    def has_changed(self, i: int) -> bool:
        """Whether the clip is no longer what was named, and reading it would not tell."""
        ...

    def reader(self, opener: Opener | None = None) -> PlaceReader[P]:
        """``opener``: of shards, where they are not read from where they lie."""
        ...

    def place_of(self, i: int) -> P:
        """Place of clip ``i`` for the reader."""
        ...

    def read(self, i: int) -> Sample:
        """Raises `ClipError` where this one clip cannot be had."""
        ...
