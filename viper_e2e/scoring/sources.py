"""sources.py: inputs that a person names for scoring: clips, folders, patterns, addresses and shards."""

from __future__ import annotations

import copy
import glob
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Generic, TypeVar
from urllib.parse import urlsplit

from viper_e2e.clip import Cue, Sample
from viper_e2e.config import LimitsConfig
from viper_e2e.errors import ClipError, ViperError, did_you_mean
from viper_e2e.loading import ClipEntry, ClipSource, PlaceReader, beside_clip, find_files, words_beside
from viper_e2e.runtime import digest, file_id, likely_path, matches, printable
from viper_e2e.shards import (
    Opener,
    RemoteReading,
    SampleEntry,
    ShardIndex,
    ShardLimits,
    ShardSet,
    fetch,
    refuse_scheme,
    without_query,
)

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


@dataclass(frozen=True)
class FileWords:
    """Sources of the words of files."""

    text: str | None = None
    """Words of the only clip, in place of a file beside it."""
    language: str = ""
    """Language of the file beside a clip to read if there are several."""


class ClipFiles:
    """Files and addresses named by a person."""

    labels = None
    unusable = ()
    remote_reading = RemoteReading()
    """An address is no shard: it is fetched whole, when its turn comes."""

    def __init__(
        self,
        paths: Sequence[Path | str],
        *,
        max_bytes: int = LimitsConfig.max_bytes_in_memory,
        words: FileWords | None = None,
    ):
        """``paths``: a `str` is an ``https://`` address, fetched whole if it has no more than ``max_bytes``.
        ``words``: None: they are not read."""
        self.paths, self.max_bytes, self.words = list(paths), max_bytes, words
        self.stamps = [_stamp(path) for path in self.paths]
        """Size and time of each file when it was named, or None: it may be written to while others are read."""
        self._content_ids: dict[int, str | None] = {}

    def with_words(self, words: FileWords) -> ClipFiles:
        """The same files, as they were when they were named, and what is said in them."""
        made = copy.copy(self)
        made.words, made._content_ids = words, {}
        return made

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def shard_sizes(self) -> list[int]:
        return [len(self.paths)]

    def entry(self, i: int) -> SampleEntry:
        return SampleEntry(self._name(i), "", {})

    def shard_of(self, i: int) -> ShardIndex:
        folder = os.path.dirname(self._name(i))  # noqa: PTH120
        return ShardIndex(printable(folder), 0, (), None, None)

    def read(self, i: int) -> Sample:
        """The path itself, of which the decoder reads what it needs; or what is at the address."""
        path, name = self.paths[i], self._name(i)
        if isinstance(path, str):
            return Sample(key=name, video=fetch(path, self.max_bytes), words=self._words(path))
        try:
            mode = path.stat().st_mode
        except FileNotFoundError as error:
            raise ClipError("no such file; is the path right?", stage="read", clip=name) from error
        except OSError as error:
            raise ClipError(f"cannot be read ({error.strerror})", stage="read", clip=name) from error
        if not stat.S_ISREG(mode):
            raise ClipError("is not a file; is the path right?", stage="read", clip=name)
        return Sample(key=name, video=path, words=self._words(path))

    def _words(self, path: Path | str) -> tuple[Cue, ...]:
        if self.words is None:
            return ()
        if self.words.text is not None:
            return (Cue(self.words.text),)
        return () if isinstance(path, str) else words_beside(path, self.words.language)

    def clip_id(self, i: int) -> str | None:
        """The id of a file's content when it was first asked for."""
        if i not in self._content_ids:
            path = self.paths[i]
            self._content_ids[i] = None if isinstance(path, str) else self._with_words(file_id(path), path)
        return self._content_ids[i]

    def _with_words(self, content: str | None, path: Path) -> str | None:
        """A clip's id by content, its words included."""
        try:
            beside = beside_clip(path, self.words.language) if self.words is not None else None
        except ClipError:
            beside = None  # told when the clip is read
        text = self.words.text if self.words is not None else None
        said = text if text is not None else beside and file_id(beside)
        return content if said is None else digest([content, said])

    def name_of(self, i: int) -> str:
        """Identity of a file; of an address, only the address is known before it is fetched."""
        return f"{self.paths[i]} {self.clip_id(i)}".encode("utf-8", "backslashreplace").decode()

    def reader(self, opener: Opener | None = None) -> ClipFiles:
        """These files: their number is no burden, and none of them lies in a shard."""
        return self

    def place_of(self, i: int) -> int:
        return i

    def has_changed(self, i: int) -> bool:
        """Whether the file is no longer what was named."""
        return _stamp(self.paths[i]) != self.stamps[i]

    def _name(self, i: int) -> str:
        path = self.paths[i]
        return without_query(path) if isinstance(path, str) else printable(str(path))


def _stamp(path: Path | str) -> tuple[int, int] | None:
    try:
        found = None if isinstance(path, str) else path.stat()
    except OSError:
        return None  # what is wrong with it is found when it is read
    return found and (found.st_size, found.st_mtime_ns)


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
