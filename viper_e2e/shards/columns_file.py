"""shards/columns_file.py: the index of a large shard as arrays in a file: opened at once, whatever its size."""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from viper_e2e.runtime import SOUND_EXTENSIONS, VIDEO_EXTENSIONS, plain_json
from viper_e2e.shards.content_ids import shard_id
from viper_e2e.shards.index import (
    KNOWN_EXTENSIONS,
    RECORD_EXTENSION,
    ShardIndex,
    check_shard,
    index_path,
    labels_from_json,
    labels_to_json,
)
from viper_e2e.shards.limits import ShardError, ShardLimits
from viper_e2e.shards.sample_table import SHA256_BYTES, Coded, Columns, MemberColumn, SampleTable, Texts
from viper_e2e.shards.sources import LocalFile, Source

SCHEMA_OF_COLUMNS = "viper_e2e.columns/1"
MAGIC = SCHEMA_OF_COLUMNS.encode() + b"\n"
LEAST_INDEX_BYTES = 4 * 2**20
"""Least size of an index to make columns of; smaller ones are read directly."""
_ALIGNMENT = 64
_MAX_HEADER_BYTES = 4 * 2**20
_KINDS = ("|u1", "|b1", "<u4", "<i4", "<i8", "<f8")


def columns_path(shard: str) -> str:
    """``train-000017.tar`` → ``train-000017.index.bin``; a URL keeps its query."""
    head, mark, query = index_path(shard).partition("?")
    return head.removesuffix(".json") + ".bin" + mark + query


def columns_of(shard: ShardIndex, index_bytes: int) -> bytes | None:
    """The file of columns that belongs beside an index of so many bytes; ``None`` where it needs none."""
    if index_bytes < LEAST_INDEX_BYTES:
        return None
    return columns_to_bytes(shard, index_bytes, shard_id(shard))


def columns_to_bytes(index: ShardIndex, index_bytes: int, content_id: str) -> bytes | None:
    """The file; ``None`` where entries say something that has no column.

    ``index_bytes``: size of the index as JSON, which it belongs to. ``content_id``: of the shard, as `ShardSet`
    has it.
    """
    columns = SampleTable.of(index.samples, len(index.labels or ())).columns
    if columns.others:
        return None
    arrays, places, at = dict(_arrays_of(columns)), {}, 0
    for name, array in arrays.items():
        places[name] = {"kind": array.dtype.str, "shape": array.shape, "offset": at}
        at += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
    header = {
        "shard": Path(index.path_or_url).name,
        "size": index.size,
        "split": index.split,
        "labels": labels_to_json(index.labels),
        "index_bytes": index_bytes,
        "content_id": content_id,
        "num_samples": len(index.samples),
        "members": list(columns.members),
        "meta": list(columns.meta),
        "arrays": places,
    }
    text = json.dumps(header, ensure_ascii=False).encode()
    start = -(-(len(MAGIC) + 8 + len(text)) // _ALIGNMENT) * _ALIGNMENT
    pieces = [(MAGIC + len(text).to_bytes(8, "little") + text).ljust(start, b"\0")]
    for array in arrays.values():
        pieces.append(array.tobytes().ljust(-(-array.nbytes // _ALIGNMENT) * _ALIGNMENT, b"\0"))
    return b"".join(pieces)


def _arrays_of(columns: Columns) -> Iterator[tuple[str, np.ndarray]]:
    yield from _of_texts("keys", columns.keys)
    if columns.file_ids is not None:
        yield from _of_texts("file_ids", columns.file_ids)
    for extension, member in columns.members.items():
        yield f"members/{extension}/offsets", member.offsets
        yield f"members/{extension}/sizes", member.sizes
        if member.sha256 is not None and extension != RECORD_EXTENSION:  # of which nobody reads the hash
            yield f"members/{extension}/sha256", member.sha256
    yield "labels", columns.labels
    yield "is_labelled", columns.is_labelled
    # By their number: a name may be any text.
    coded = {"subjects": columns.subjects} | {f"meta/{i}": c for i, c in enumerate(columns.meta.values())}
    for name, column in coded.items():
        yield f"{name}/codes", column.codes
        yield from _of_texts(f"{name}/values", column.values)


def _of_texts(name: str, texts: Texts) -> Iterator[tuple[str, np.ndarray]]:
    yield f"{name}/content", texts.content
    yield f"{name}/bounds", texts.bounds


def read_columns(shard: Source, file: Source, index_bytes: int, limits: ShardLimits) -> ShardIndex | None:
    """The index of a shard, checked against the shard; ``None`` where there is no such file.

    ``index_bytes``: of the index beside it, of which it has to be made. Raises ``ShardError`` where it is
    damaged or of another index. On a local disk the arrays stay there until they are read.
    """
    try:
        size = file.size()
    except FileNotFoundError:
        return None
    if size > limits.max_columns_bytes:
        raise ShardError(f"{file.name}: {size} bytes; at most {limits.max_columns_bytes} are allowed: repack")
    try:
        header, content, start = _opened(file, size)
        if header["index_bytes"] != index_bytes:
            raise ShardError(
                f"{file.name}: was made from another index than {index_path(shard.name)}; run viper index again"
            )
        found = _index_of(header, _Arrays(content, header["arrays"], start), shard.name)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, ShardError):
            raise
        told = f"({type(error).__name__}: {error}); delete it and run viper index again"
        raise ShardError(f"{file.name}: damaged {told}") from error
    check_shard(shard, found.size)
    return found


def _opened(file: Source, size: int) -> tuple[dict[str, Any], bytes | mmap.mmap, int]:
    """Header, the whole file, and where its arrays begin."""
    fixed = len(MAGIC) + 8
    if size < fixed or (beginning := file.read(0, fixed))[: len(MAGIC)] != MAGIC:
        raise ValueError(f"no {SCHEMA_OF_COLUMNS}")
    length = int.from_bytes(beginning[len(MAGIC) :], "little")
    if length > min(_MAX_HEADER_BYTES, size - fixed):
        raise ValueError("its header is cut short")
    header = plain_json.parsed(file.read(fixed, length), file.name, strict=True, error=ShardError)
    if isinstance(file, LocalFile):
        with Path(file.name).open("rb") as opened:
            content: bytes | mmap.mmap = mmap.mmap(opened.fileno(), size, access=mmap.ACCESS_READ)
    else:
        content = file.read(0, size)
    return header, content, -(-(fixed + length) // _ALIGNMENT) * _ALIGNMENT


class _Arrays:
    """Arrays of a file by name, none of which reaches beyond it."""

    def __init__(self, content: bytes | mmap.mmap, places: Mapping[str, Any], start: int):
        self._content, self._places, self._start = content, places, start

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def get(self, name: str, kinds: str, *shape: int | None) -> np.ndarray:
        """``kinds``: allowed ones, such as ``i8``; of ``shape`` what is None may be anything."""
        place = self._places[name]
        kind, found, offset = np.dtype(place["kind"]), tuple(map(int, place["shape"])), int(place["offset"])
        if place["kind"] not in _KINDS or kind.str[1:] not in kinds.split() or len(found) != len(shape):
            raise ValueError(f"{name}: another kind of array")
        if any(size < 0 for size in found) or any(
            w not in (None, f) for w, f in zip(shape, found, strict=True)
        ):
            raise ValueError(f"{name}: {found}")
        count = int(np.prod(found, dtype=object)) if found else 1
        if offset < 0 or self._start + offset + count * kind.itemsize > len(self._content):
            raise ValueError(f"{name}: reaches beyond the file")
        return np.frombuffer(self._content, kind, count, self._start + offset).reshape(found)

    def texts(self, name: str, num_texts: int | None) -> Texts:
        content = self.get(f"{name}/content", "u1", None)
        bounds = self.get(f"{name}/bounds", "u4 i8", None if num_texts is None else num_texts + 1)
        if not len(bounds) or bounds[0] != 0 or bounds[-1] != len(content) or (bounds[1:] < bounds[:-1]).any():
            raise ValueError(f"{name}: bounds out of order")
        content.tobytes().decode("utf-8", "surrogatepass")
        inside = bounds[bounds < len(content)]
        if ((content[inside] & 0xC0) == 0x80).any():
            raise ValueError(f"{name}: cut within a letter")
        return Texts(content, bounds)

    def coded(self, name: str, num_samples: int) -> Coded:
        values = self.texts(f"{name}/values", None)
        codes = self.get(f"{name}/codes", "i4", num_samples)
        if len(codes) and not -1 <= codes.min() <= codes.max() < max(1, len(values)):
            raise ValueError(f"{name}: codes of nothing")
        return Coded(values, codes)


def _index_of(header: Mapping[str, Any], arrays: _Arrays, shard: str) -> ShardIndex:
    labels, number, size = labels_from_json(header["labels"]), int(header["num_samples"]), int(header["size"])
    members = {name: _members_of(name, arrays, number, size) for name in header["members"]}
    for extensions, least in ((VIDEO_EXTENSIONS, 1), (SOUND_EXTENSIONS, 0)):
        counts = np.zeros(number, np.int64)
        for extension in set(extensions) & set(members):
            counts += members[extension].sizes >= 0
        if number and not least <= counts.min() <= counts.max() <= 1:
            raise ValueError("a sample has not one video, or more than one sound")
    columns = Columns(
        arrays.texts("keys", number),
        arrays.texts("file_ids", number) if "file_ids/bounds" in arrays else None,
        members,
        arrays.get("labels", "f8", number, len(labels or ())),
        arrays.get("is_labelled", "b1", number),
        arrays.coded("subjects", number),
        {str(name): arrays.coded(f"meta/{i}", number) for i, name in enumerate(header["meta"])},
        {},
    )
    split = header["split"]
    if not isinstance(split, str | None) or not isinstance(header["content_id"], str):
        raise ValueError("split and content_id are text")
    return ShardIndex(shard, size, SampleTable(columns), labels, split, header["content_id"])


def _members_of(extension: str, arrays: _Arrays, number: int, tar_size: int) -> MemberColumn:
    name = f"members/{extension}"
    offsets, sizes = arrays.get(f"{name}/offsets", "i8", number), arrays.get(f"{name}/sizes", "i8", number)
    is_there = sizes >= 0
    ends = offsets[is_there] + sizes[is_there]
    if extension not in KNOWN_EXTENSIONS or (offsets[is_there] % 512).any() or (ends > tar_size).any():
        raise ValueError(f"impossible members {extension!r}")
    if (offsets[is_there] < 0).any() or (ends < 0).any():
        raise ValueError(f"impossible members {extension!r}")
    hashes = f"{name}/sha256"
    sha256 = arrays.get(hashes, "u1", number, SHA256_BYTES) if hashes in arrays else None
    return MemberColumn(offsets, sizes, sha256)
