"""shards/writing.py: samples -> shards of one split, deterministic to the byte, each with its index."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from types import TracebackType

from viper_e2e.labels import LabelSet
from viper_e2e.shards.index import (
    KNOWN_EXTENSIONS,
    RECORD_EXTENSION,
    Member,
    SampleEntry,
    ShardIndex,
    index_path,
    index_to_json,
    key_and_extension,
)
from viper_e2e.shards.sources import LocalFile, ShardLimits
from viper_e2e.shards.tar import BLOCK, walk_tar


class ShardWriter:
    """Writes ``SPLIT-000000.tar``, ``SPLIT-000001.tar``, … and their indexes into a folder.

    Written through ``webdataset.TarWriter``, so that the files are WebDataset shards by construction;
    offsets are read back by walking the finished tar, so that an index never promises what a reader
    would not find. TarWriter takes bytes: one sample at a time is in memory. The folder should be a
    temporary one that is moved into place when all is written (``packing`` does).

    ``shard_size`` in bytes; a shard is closed before the sample that would go over it.
    """

    def __init__(self, folder: Path, split: str, labels: LabelSet | None, *, shard_size: int):
        self.folder, self.split, self.labels, self.shard_size = folder, split, labels, shard_size
        self.indexes: list[ShardIndex] = []
        self._entries: list[SampleEntry] = []
        self._writer = self._file = None
        self._bytes = 0

    def add(
        self,
        key: str,
        members: dict[str, bytes],
        *,
        file_id: str,
        intensities: tuple[float, ...] | None = None,
        subject: str | None = None,
    ) -> None:
        """Append one sample; ``members`` by extension (``mp4``, ``wav``, ``fau.npy``), without its json."""
        assert key_and_extension(f"{key}.mp4") == (key, "mp4"), f"unusable key {key!r}"
        assert all(extension in KNOWN_EXTENSIONS for extension in members), sorted(members)
        record: dict[str, object] = {"file_id": file_id}
        if intensities is not None:
            record["intensities"] = dict(zip(self.labels.names, intensities, strict=True))
        if subject is not None:
            record["subject"] = subject
        members = {**members, RECORD_EXTENSION: json.dumps(record, ensure_ascii=False).encode()}
        size = sum(BLOCK + -(-len(data) // BLOCK) * BLOCK for data in members.values())
        if self._writer is not None and self._bytes + size > self.shard_size:
            self._finish_shard()
        if self._writer is None:
            self._start_shard()
        self._writer.write({"__key__": key, **members})
        self._bytes += size
        hashes = {
            extension: Member(0, len(data), hashlib.sha256(data).hexdigest())
            for extension, data in sorted(members.items())
        }
        self._entries.append(SampleEntry(key, file_id, hashes, intensities, subject))

    def close(self) -> list[ShardIndex]:
        """Finish the last shard; returns the indexes of all."""
        if self._writer is not None:
            self._finish_shard()
        return self.indexes

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif self._writer is not None:
            # Given up: the folder is thrown away, so a full disk must not hide the first error.
            with contextlib.suppress(OSError):
                self._writer.close()
            with contextlib.suppress(OSError):
                self._file.close()

    def _start_shard(self) -> None:
        import webdataset  # imports torch; only writing needs it

        path = self.folder / f"{self.split}-{len(self.indexes):06d}.tar"
        self._file = path.open("xb")
        # No time, owner or encoder: same samples, same bytes.
        self._writer = webdataset.TarWriter(
            self._file, user="", group="", mtime=0, encoder=False, compress=False
        )

    def _finish_shard(self) -> None:
        self._writer.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        path = Path(self._file.name)
        index = self._index(path)
        Path(index_path(str(path))).write_bytes(index_to_json(index))
        self.indexes.append(index)
        self._writer = self._file = None
        self._entries, self._bytes = [], 0

    def _index(self, path: Path) -> ShardIndex:
        walk = walk_tar(LocalFile(str(path)), ShardLimits())
        assert walk.torn is None, walk.torn
        assert not walk.ignored, walk.ignored
        places = {member.name: member for member in walk.members}
        samples = []
        for entry in self._entries:
            members = {}
            for extension, member in entry.members.items():
                place = places[f"{entry.key}.{extension}"]
                assert place.size == member.size, place
                members[extension] = Member(place.offset, place.size, member.sha256)
            samples.append(SampleEntry(entry.key, entry.file_id, members, entry.intensities, entry.subject))
        return ShardIndex(str(path), path.stat().st_size, tuple(samples), self.labels, self.split)
