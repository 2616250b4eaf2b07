"""shards/index.py: the index file beside a shard: where each member is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isnan, nan
from pathlib import PurePath
from typing import Any, TypeGuard

from viper_e2e.clip import Segment
from viper_e2e.labels import LabelSet
from viper_e2e.runtime import SOUND_EXTENSIONS, VIDEO_EXTENSIONS, plain_json
from viper_e2e.shards.sources import ShardError, ShardLimits, Source
from viper_e2e.shards.subtitles import WORDS_EXTENSIONS

SCHEMA = "viper_e2e.shard/1"
SCHEMA_OF_TASKS = "viper_e2e.shard/2"
"""Schema of shards with tasks, which readers of the first one would take for intensities."""
SCHEMA_OF_SEGMENTS = "viper_e2e.shard/3"
"""Schema of shards with clips that are a part of their file; earlier readers would take all of it."""
SCHEMA_OF_WORDS = "viper_e2e.shard/4"
"""Schema of shards with words, members that earlier readers do not know."""
SCHEMAS = (SCHEMA, SCHEMA_OF_TASKS, SCHEMA_OF_SEGMENTS, SCHEMA_OF_WORDS)
ACTION_UNITS_EXTENSION = "fau.npy"
RECORD_EXTENSION = "json"
KNOWN_EXTENSIONS = (
    *(*VIDEO_EXTENSIONS, *SOUND_EXTENSIONS, ACTION_UNITS_EXTENSION),
    *(*WORDS_EXTENSIONS, RECORD_EXTENSION),
)


@dataclass(frozen=True, slots=True)
class Member:
    """Place of one file of a sample in its tar."""

    offset: int
    size: int
    sha256: str | None = None
    """Hex digest of the bytes; ``None`` in a foreign shard."""


@dataclass(frozen=True, slots=True)
class SampleEntry:
    """One sample as the index knows it; enough to plan an epoch without opening the tar."""

    key: str
    file_id: str
    members: dict[str, Member]
    """Members by extension without its dot: ``mp4``, ``json``, ``wav``, ``fau.npy``."""
    intensities: tuple[float, ...] | None = None
    """Labels in the order of the label set; NaN where one is missing, as tasks allow."""
    subject: str | None = None
    meta: Mapping[str, str] | None = None
    """Further facts about it, such as ``{"Gender": "f"}``, without empty ones."""
    segment: Segment | None = None
    """The part of its file that is the clip; ``None``: all of it."""


@dataclass(frozen=True)
class ShardIndex:
    """Everything a shard holds."""

    path_or_url: str
    size: int
    """Bytes of the whole tar."""
    samples: Sequence[SampleEntry]
    labels: LabelSet | None
    split: str | None
    content_id: str | None = None
    """The identity of `ShardSet.shard_ids`, if a file states it; None: to be computed."""
    version: str | None = None
    """State of a shard without hashes when it was indexed (`ShardState`)."""
    cache_name: str | None = None
    """Name of the whole shard in a folder of cached shards, if some samples are left out."""


def index_path(shard: str) -> str:
    """``train-000017.tar`` → ``train-000017.index.json``; a URL keeps its query."""
    head, mark, query = shard.partition("?")
    return head.removesuffix(".tar") + ".index.json" + mark + query


def split_of(shard: str) -> str | None:
    """The split that a shard's name tells: ``…/train-000017.tar`` → ``train``."""
    found = re.fullmatch(r"(.+?)[-_.]\d+\.tar", PurePath(shard.partition("?")[0]).name)
    return found.group(1) if found else None


def range_of(values: Iterable[float]) -> tuple[float, float]:
    """(0, 1) where every value lies inside, else the smallest and the largest."""
    values = list(values)
    if all(0.0 <= value <= 1.0 for value in values):
        return 0.0, 1.0
    return min(values), max(values)


# --- our own index ------------------------------------------------------------------------------


def index_to_json(index: ShardIndex) -> bytes:
    """The index file, deterministic to the byte."""
    data = {
        "schema": _schema_of(index),
        "shard": PurePath(index.path_or_url).name,
        "size": index.size,
        "split": index.split,
        "labels": labels_to_json(index.labels),
        "samples": [
            {
                "key": entry.key,
                "file_id": entry.file_id,
                "subject": entry.subject,
                **({"meta": dict(entry.meta)} if entry.meta else {}),
                **({} if entry.segment is None else {"segment": entry.segment.to_json()}),
                "intensities": entry.intensities and list(map(known_or_none, entry.intensities)),
                "members": {
                    extension: {"offset": m.offset, "size": m.size, "sha256": m.sha256}
                    for extension, m in entry.members.items()
                },
            }
            for entry in index.samples
        ],
    }
    return json.dumps(data, ensure_ascii=False, indent=1).encode()


def _schema_of(index: ShardIndex) -> str:
    """The first that has a word for all that is in the shard."""
    if any(extension in entry.members for entry in index.samples for extension in WORDS_EXTENSIONS):
        return SCHEMA_OF_WORDS
    if any(entry.segment is not None for entry in index.samples):
        return SCHEMA_OF_SEGMENTS
    return SCHEMA_OF_TASKS if index.labels and index.labels.tasks else SCHEMA


def labels_to_json(labels: LabelSet | None) -> dict[str, Any] | None:
    """Without what is empty, which readers of the first schema do not know."""
    if labels is None:
        return None
    return {name: value for name, value in labels.to_json().items() if value not in ([], {})}


def labels_from_json(found: object) -> LabelSet | None:
    """The inverse; `ValueError` for anything else."""
    return None if found is None else LabelSet.from_json(found)


def read_index(shard: Source, index: Source, size: int, limits: ShardLimits) -> ShardIndex:
    """The index beside a shard, of so many bytes, checked against the shard.

    Raises ``ShardError`` where the index is damaged or belongs to another tar.
    """
    if size > limits.max_index_bytes:
        raise ShardError(f"{index.name}: {size} bytes; an index has at most {limits.max_index_bytes}: repack")
    found = parse_index(index.read(0, size), index.name, shard.name)
    check_shard(shard, found.size)
    return found


def parse_index(content: bytes, name: str, shard: str) -> ShardIndex:
    """The index of a shard out of the file of this name; ``ShardError`` where it is damaged."""
    data = plain_json.parsed(content, name, strict=True, error=ShardError, advice="repack")
    try:
        if data["schema"] not in SCHEMAS:
            raise ShardError(f"{name}: schema {data['schema']!r}, this version reads {SCHEMA!r}: repack")
        return _index_from_json(data, shard)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, ShardError):
            raise
        raise ShardError(f"{name}: damaged index ({type(error).__name__}: {error}); repack") from error


def check_shard(shard: Source, size: int) -> None:
    """`ShardError` where a tar is not as large as its index says, or does not end as tars do."""
    actual = shard.size()
    if actual != size:
        raise ShardError(
            f"{shard.name}: {actual} bytes, its index says {size}: incomplete, or of another run; "
            "copy or pack it again"
        )
    if size < 1024 or any(shard.read(size - 1024, 1024)):
        raise ShardError(
            f"{shard.name}: no end-of-archive marker at its end: incomplete; copy or pack it again"
        )


def _index_from_json(data: dict[str, Any], shard: str) -> ShardIndex:
    labels = labels_from_json(data["labels"])
    size = _whole(data["size"])
    samples = tuple(_entry_from_json(sample, labels, size) for sample in data["samples"])
    split = None if data["split"] is None else _text(data["split"])
    return ShardIndex(shard, size, samples, labels, split)


def _entry_from_json(sample: dict[str, Any], labels: LabelSet | None, tar_size: int) -> SampleEntry:
    key = _text(sample["key"])
    members = {}
    for extension, m in sample["members"].items():
        member = Member(_whole(m["offset"]), _whole(m["size"]), _text(m["sha256"]))
        if extension not in KNOWN_EXTENSIONS or member.offset % 512 or member.offset + member.size > tar_size:
            raise ValueError(f"sample {key!r} has an impossible member {extension!r}")
        if not re.fullmatch("[0-9a-f]{64}", m["sha256"]):
            raise ValueError(f"sample {key!r}: {m['sha256']!r} is no sha256")
        members[extension] = member
    if reason := unusable(members):
        raise ValueError(f"sample {key!r} {reason}")
    intensities = sample["intensities"]
    if intensities is not None:
        if labels is None or len(intensities) != len(labels):
            raise ValueError(f"sample {key!r} has {len(intensities)} intensities, not one per label")
        may_lack = bool(labels.tasks)
        intensities = tuple(nan if v is None and may_lack else number(v) for v in intensities)
    subject = None if sample["subject"] is None else _text(sample["subject"])
    meta = {_text(name): _text(value) for name, value in sample.get("meta", {}).items()}
    segment = segment_from_json(sample["segment"]) if "segment" in sample else None
    return SampleEntry(key, _text(sample["file_id"]), members, intensities, subject, meta or None, segment)


def segment_from_json(data: Mapping[str, Any]) -> Segment:
    """The inverse of `Segment.to_json`; ``ValueError`` (or ``KeyError``, ``TypeError``) for anything else."""
    end = inf if data["end"] is None else number(data["end"])
    side = data.get("side", "full")
    if side not in ("left", "right", "full"):
        raise ValueError(f"a segment of side {side!r}")
    return Segment(number(data["start"]), end, side)


def key_and_extension(name: str) -> tuple[str, str] | None:
    """WebDataset's rule: the key ends at the first dot of the last path part; ``None``: no sample's file."""
    found = re.fullmatch(r"((?:.*/)?[^./][^./]*)\.([^/]*)", name)
    if found is None or re.match(r"__[^/]*__($|/)", name):
        return None
    return found.group(1), found.group(2).lower()


def unusable(members: dict[str, Member]) -> str | None:
    """Why these are not the members of one sample."""
    videos = [extension for extension in members if extension in VIDEO_EXTENSIONS]
    if len(videos) != 1:
        return (
            f"has {len(videos) or 'no'} videos; it needs one file that ends in .mp4, .mov, .mkv, .webm, .avi, …"
        )
    sounds = [extension for extension in SOUND_EXTENSIONS if extension in members]
    if len(sounds) > 1:
        return f"has both {' and '.join(sounds)}"
    return None


def known_or_none(value: float) -> float | None:
    """A label's value as JSON has it: none where it is missing."""
    return None if isnan(value) else value


# --- values from outside ------------------------------------------------------------------------


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether this can be a label's value."""
    return not isinstance(value, bool) and isinstance(value, int | float) and abs(value) <= 1e30


def number(value: object) -> float:
    """A label's value; ``ValueError`` for anything that is no finite number."""
    if not is_number(value):
        raise ValueError(f"{value!r} is not a finite number")
    return float(value)


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise ValueError(f"{value!r} is not a size")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not text")
    return value
