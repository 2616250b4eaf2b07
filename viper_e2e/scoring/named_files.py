"""named_files.py: files and addresses of clips that a person names, as a source that is its own reader.

Loads nothing that only shards need: each worker imports this.
"""

from __future__ import annotations

import copy
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from viper_e2e.clip import Cue, Sample
from viper_e2e.config import LimitsConfig
from viper_e2e.errors import ClipError
from viper_e2e.loading import beside_clip, words_beside
from viper_e2e.runtime import digest, file_id, printable
from viper_e2e.shards import Opener, RemoteReading, SampleEntry, ShardIndex, fetch, without_query


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
