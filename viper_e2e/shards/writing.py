"""shards/writing.py: samples -> shards of one split, deterministic to the byte, each with its index."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from viper_e2e.clip import Segment
from viper_e2e.labels import LabelSet
from viper_e2e.shards.columns_file import columns_of, columns_path
from viper_e2e.shards.index import (
    KNOWN_EXTENSIONS,
    RECORD_EXTENSION,
    Member,
    SampleEntry,
    ShardIndex,
    index_path,
    index_to_json,
    key_and_extension,
    known_or_none,
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
        self._open: _OpenShard | None = None

    def add(
        self,
        key: str,
        members: dict[str, bytes],
        *,
        file_id: str,
        intensities: tuple[float, ...] | None = None,
        subject: str | None = None,
        meta: Mapping[str, str] | None = None,
        text: str | None = None,
        segment: Segment | None = None,
        source: Mapping[str, object] | None = None,
    ) -> None:
        """Append one sample; ``members`` by extension (``mp4``, ``wav``, ``fau.npy``), without its json.

        ``meta``: what else is known of it, by name. ``text``: words said in it, kept in its json alone.
        ``segment``: the part of its file that the clip is. ``source``: where that was taken from, for people.
        """
        assert key_and_extension(f"{key}.mp4") == (key, "mp4"), f"unusable key {key!r}"
        assert all(extension in KNOWN_EXTENSIONS for extension in members), sorted(members)
        record: dict[str, object] = {"file_id": file_id}
        if intensities is not None:
            record |= self._labelled(intensities)
        beside = {
            "meta": dict(meta or {}) or None,
            "subject": subject,
            "text": text,
            "segment": None if segment is None else segment.to_json(),
            "source": dict(source or {}) or None,
        }
        record |= {name: value for name, value in beside.items() if value is not None}
        members = {**members, RECORD_EXTENSION: json.dumps(record, ensure_ascii=False).encode()}
        size = sum(BLOCK + -(-len(data) // BLOCK) * BLOCK for data in members.values())
        if self._open is not None and self._open.num_bytes + size > self.shard_size:
            self.close()
        if self._open is None:
            self._open = _OpenShard(self.folder / f"{self.split}-{len(self.indexes):06d}.tar")
        hashes = {
            extension: Member(0, len(data), hashlib.sha256(data).hexdigest())
            for extension, data in sorted(members.items())
        }
        self._open.add(SampleEntry(key, file_id, hashes, intensities, subject, meta, segment), members, size)

    def _labelled(self, intensities: Sequence[float]) -> dict[str, object]:
        assert self.labels is not None, "intensities without names"
        known = map(known_or_none, intensities)
        # Without its index nothing would tell classes from intensities.
        name = "labels" if self.labels.tasks else "intensities"
        return {name: dict(zip(self.labels.names, known, strict=True))}

    def close(self) -> list[ShardIndex]:
        """Finish the last shard; returns the indexes of all."""
        if self._open is not None:
            self._open.finish()
            index = self._index(self._open)
            content = index_to_json(index)
            Path(index_path(index.path_or_url)).write_bytes(content)
            if (columns := columns_of(index, len(content))) is not None:
                Path(columns_path(index.path_or_url)).write_bytes(columns)
            self.indexes.append(index)
            self._open = None
        return self.indexes

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif self._open is not None:
            self._open.give_up()

    def _index(self, shard: _OpenShard) -> ShardIndex:
        path = shard.path
        walk = walk_tar(LocalFile(str(path)), ShardLimits())
        assert walk.torn is None, walk.torn
        assert not walk.ignored, walk.ignored
        places = {member.name: member for member in walk.members}
        samples = []
        for entry in shard.entries:
            members = {}
            for extension, member in entry.members.items():
                place = places[f"{entry.key}.{extension}"]
                assert place.size == member.size, place
                members[extension] = Member(place.offset, place.size, member.sha256)
            samples.append(replace(entry, members=members))
        return ShardIndex(str(path), path.stat().st_size, tuple(samples), self.labels, self.split)


class _OpenShard:
    """The shard that is being written."""

    def __init__(self, path: Path):
        import webdataset  # imports torch; only writing needs it

        self.path = path
        self.entries: list[SampleEntry] = []
        self.num_bytes = 0
        self._file = path.open("xb")
        # No time, owner or encoder: same samples, same bytes.
        self._tar = webdataset.TarWriter(self._file, user="", group="", mtime=0, encoder=False, compress=False)

    def add(self, entry: SampleEntry, members: dict[str, bytes], size: int) -> None:
        """``size``: of the members in the tar."""
        self._tar.write({"__key__": entry.key, **members})
        self.entries.append(entry)
        self.num_bytes += size

    def finish(self) -> None:
        self._tar.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def give_up(self) -> None:
        """The folder is thrown away, so a full disk must not hide the first error."""
        with contextlib.suppress(OSError):
            self._tar.close()
        with contextlib.suppress(OSError):
            self._file.close()
