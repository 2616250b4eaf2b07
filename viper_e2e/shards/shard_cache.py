"""shards/shard_cache.py: a folder that caches remote shards, each complete or absent, found by content."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import stat
import threading
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ClassVar

import numpy as np

from viper_e2e.errors import ViperError
from viper_e2e.runtime import digest, lock, plain_json, settle_folder, write_text
from viper_e2e.shards.addresses import without_query
from viper_e2e.shards.index import ShardIndex
from viper_e2e.shards.sample_table import SampleTable

MARKER, SCHEMA = "viper_shards.json", "viper_e2e.kept_shards/1"
WHOLE, PART, LOCK = ".tar", ".part", ".lock"
_OURS = re.compile(r"[0-9a-f]{64}\.(tar|part|lock)|room\.lock")
_UNFINISHED_MARKER = re.compile(r"\.viper_shards\..*")


class BusyError(Exception):
    """Another process is at it; soon there may be something to be found."""


class CachedFile:
    """A shard in the folder, or on its way there: then it may be read as far as it has come."""

    def __init__(self, file: BinaryIO, size: int, have: int, path: Path, *, held: _Lock | None = None):
        self._file, self.size, self.have, self._path, self._held = file, size, have, path, held
        self._turn = threading.Lock()

    def write(self, piece: bytes) -> None:
        """The bytes that follow; ``OSError`` where the disk takes no more."""
        with self._turn:
            self._file.seek(self.have)
            self._file.write(piece)
            self._file.flush()
        self.have += len(piece)

    def read(self, offset: int, size: int) -> bytes:
        """Read up to ``size`` bytes, as many as the file has."""
        with self._turn:
            self._file.seek(offset)
            return self._file.read(size)

    def start_again(self) -> None:
        self.have = 0

    def settle(self) -> None:
        """It is whole: from now on others find it."""
        with self._turn:
            os.fsync(self._file.fileno())
            self._path.with_suffix(PART).replace(self._path)
        self._let_go()

    def give_up(self) -> None:
        """It will not be whole; nothing of it stays."""
        if self._held is not None:
            with contextlib.suppress(OSError):
                self._path.with_suffix(PART).unlink()
            self._let_go()

    def _let_go(self) -> None:
        if self._held is not None:
            self._held.release()
            self._held = None


class ShardCache:
    """The folder. Several processes may use it at the same time; each shard is fetched by one of them."""

    def __init__(self, folder: str, max_bytes: int | None = None):
        """Raises `ViperError` for a folder that holds something else, or cannot be written into."""
        self.folder, self.max_bytes = settle_folder(folder, "--cache", may_be_full=True), max_bytes
        names = [entry.name for entry in os.scandir(self.folder)]
        marker = self.folder / MARKER
        if not marker.exists():
            strange = [name for name in names if not (_OURS.fullmatch(name) or _UNFINISHED_MARKER.match(name))]
            if strange:
                raise ViperError(
                    f"--cache {folder}: holds {strange[0]}, and was not made by --cache; name a new folder"
                )
            write_text(marker, json.dumps({"schema": SCHEMA}) + "\n")
        elif _schema_of(marker) != SCHEMA:
            raise ViperError(
                f"--cache {folder}: was made by another version; name a new folder, or delete this one"
            )
        self._remove_left_behind()

    def hold(self, name: str, size: int, in_use: Collection[str] = ()) -> CachedFile | None:
        """The shard of this `cache_name` as it is cached, or a file to fill; ``None`` if there is no room.

        ``in_use``: names that are not let go of. Raises ``BusyError`` while another process fetches it, and
        ``OSError`` where the disk fails.
        """
        path = self.folder / f"{name}{WHOLE}"
        if (found := self._found(path, size)) is not None:
            return found
        held = _Lock.taken(path.with_suffix(LOCK))
        if held is None:
            raise BusyError
        try:
            if (found := self._found(path, size)) is None:
                file = self._begun(path.with_suffix(PART), size, in_use)
                if file is not None:
                    found, held = CachedFile(file, size, 0, path, held=held), None
            return found
        finally:
            if held is not None:
                held.release()

    def drop(self, name: str) -> None:
        """Its cached file is damaged."""
        (self.folder / f"{name}{WHOLE}").unlink(missing_ok=True)

    def _found(self, path: Path, size: int) -> CachedFile | None:
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return None
        if os.fstat(file.fileno()).st_size != size:
            file.close()
            path.unlink(missing_ok=True)
            return None
        os.utime(path)  # what was used last is let go of last
        return CachedFile(file, size, size, path)

    def _begun(self, path: Path, size: int, in_use: Collection[str]) -> BinaryIO | None:
        """An empty file of this size, which others count from now on; ``None`` if there is no room."""
        if self.max_bytes is None:
            return _of_size(path, size)
        turn = _Lock.taken(self.folder / f"room{LOCK}")
        if turn is None:
            raise BusyError
        try:
            # The turn lasts until the file is there: else two could be given the same room.
            return _of_size(path, size) if self._make_room(size, self.max_bytes, in_use) else None
        finally:
            turn.release()

    def _make_room(self, size: int, max_bytes: int, in_use: Collection[str]) -> bool:
        """Whether there is room, after those are gone that were not used for longest."""
        files = sorted(self._all_files(), key=lambda file: file.used)
        total = sum(file.size for file in files)
        idle = [f for f in files if f.path.suffix == WHOLE and f.path.stem not in in_use]
        if total - sum(file.size for file in idle) + size > max_bytes:
            return False
        for file in idle:
            if total + size <= max_bytes:
                break
            file.path.unlink(missing_ok=True)
            total -= file.size
        return True

    def _all_files(self) -> list[_File]:
        """None is missed: one that is settled, and so renamed, while the folder is read may be."""
        files = list(self._files())
        while True:
            again = list(self._files())
            if {file.path for file in again} == {file.path for file in files}:
                return again
            files = again

    def _files(self) -> Iterator[_File]:
        for entry in os.scandir(self.folder):
            if _OURS.fullmatch(entry.name) and entry.name.endswith((WHOLE, PART)):
                with contextlib.suppress(FileNotFoundError):
                    found = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(found.st_mode):
                        yield _File(Path(entry.path), found.st_size, found.st_mtime)

    def _remove_left_behind(self) -> None:
        """Remove files of processes that were killed while fetching."""
        for file in list(self._files()):
            if file.path.suffix == PART and (held := _Lock.taken(file.path.with_suffix(LOCK))) is not None:
                file.path.unlink(missing_ok=True)
                held.release()


def _of_size(path: Path, size: int) -> BinaryIO:
    file = path.open("w+b")
    file.truncate(size)
    return file


@dataclass(frozen=True)
class _File:
    path: Path
    size: int
    used: float


class _Lock:
    """A lock of this process on a file of that name, which is gone with it."""

    _here: ClassVar[set[Path]] = set()
    """Taken by this process, which the system would let take them again."""
    _turn = threading.Lock()

    def __init__(self, path: Path, file: BinaryIO):
        self._path, self._file = path, file

    @classmethod
    def taken(cls, path: Path) -> _Lock | None:
        """``None``: someone else has it."""
        with cls._turn:
            if path in cls._here:
                return None
            while True:
                file = path.open("a+b")
                try:
                    lock(file)
                    if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                        cls._here.add(path)
                        return cls(path, file)
                except FileNotFoundError:
                    pass  # its former owner has removed the file meanwhile, and the lock with it
                except OSError as error:
                    file.close()
                    if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                        return None
                    raise
                file.close()

    def release(self) -> None:
        with self._turn:
            with contextlib.suppress(OSError):  # Windows keeps files that are open
                self._path.unlink()
            self._file.close()
            self._here.discard(self._path)


def _schema_of(marker: Path) -> object:
    try:
        return (plain_json.record_in(marker.read_text(encoding="utf-8")) or {}).get("schema")
    except (OSError, UnicodeDecodeError):
        return None


def cache_name(shard: ShardIndex) -> str | None:
    """Identity of a shard's bytes: the place of each member, and its hash, wherever the index has
    them; else its address with what the server says of its state. ``None`` where it says nothing.

    The same for some of its samples (a fold, those with labels) as for all: it is cached whole.
    """
    if shard.cache_name is not None:
        return shard.cache_name
    columns = SampleTable.of(shard.samples, len(shard.labels or ())).columns
    found = hashlib.sha256(str(shard.size).encode())
    for extension in sorted(columns.members):
        member = columns.members[extension]
        if member.sha256 is None:
            break
        found.update(extension.encode())
        for numbers in (member.offsets, member.sizes):
            found.update(np.ascontiguousarray(numbers, dtype="<i8").tobytes())
        found.update(np.ascontiguousarray(member.sha256).tobytes())
    else:
        return found.hexdigest() if columns.members else None
    if shard.version is None:
        return None
    return digest([without_query(shard.path_or_url), shard.size, shard.version])
