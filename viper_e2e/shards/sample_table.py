"""shards/sample_table.py: the samples of a shard in columns, a tenth of what objects would take in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from math import nan
from typing import Any, overload

import numpy as np
from jaxtyping import Bool, Float64, Integer, UInt8, UInt64

from viper_e2e.shards.index import Member, SampleEntry, ShardIndex

OWN_FIELDS = frozenset({"key", "file_id", "members", "intensities", "subject", "meta"})
"""Fields of an entry that have a column of a kind of their own; others are kept as they are."""
SHA256_BYTES = 32
_HASH_FACTOR = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, eq=False)
class Texts:
    """Many short texts in one piece of memory."""

    content: UInt8[np.ndarray, " B"]
    """UTF-8, one text after the other."""
    bounds: Integer[np.ndarray, " M"]
    """Begin of each, and the end of the last."""

    @classmethod
    def of(cls, texts: Sequence[str]) -> Texts:
        encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
        bounds = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        small = np.uint32 if bounds[-1] < 2**32 else np.int64
        return cls(np.frombuffer(b"".join(encoded), dtype=np.uint8), bounds.astype(small))

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __getitem__(self, i: int) -> str:
        content = self.content[int(self.bounds[i]) : int(self.bounds[i + 1])]
        return content.tobytes().decode("utf-8", "surrogatepass")

    def hashes(self) -> UInt64[np.ndarray, " N"]:
        """A number for each text; equal texts have equal ones, and others nearly never."""
        bounds = self.bounds.astype(np.int64)
        lengths = np.diff(bounds)
        powers = np.cumprod(np.full(int(lengths.max(initial=0)) + 1, _HASH_FACTOR))  # modulo 2 ** 64
        inside = np.arange(len(self.content)) - np.repeat(bounds[:-1], lengths)
        sums = np.zeros(len(self.content) + 1, np.uint64)
        np.cumsum((self.content.astype(np.uint64) + np.uint64(1)) * powers[inside], out=sums[1:])
        return sums[bounds[1:]] - sums[bounds[:-1]]


@dataclass(frozen=True, eq=False)
class Coded:
    """A text of each sample, of which many have the same; or none."""

    values: Texts
    codes: Integer[np.ndarray, " N"]
    """Number of each row's value; -1: none."""

    @classmethod
    def of(cls, texts: Sequence[str | None]) -> Coded:
        places: dict[str, int] = {}
        codes = [-1 if text is None else places.setdefault(text, len(places)) for text in texts]
        return cls(Texts.of(list(places)), np.array(codes, dtype=np.int32))

    def __getitem__(self, i: int) -> str | None:
        code = int(self.codes[i])
        return None if code < 0 else self.values[code]


@dataclass(frozen=True, eq=False)
class MemberColumn:
    """Places of the files with one extension."""

    offsets: Integer[np.ndarray, " N"]
    sizes: Integer[np.ndarray, " N"]
    """-1 where a sample has no such file."""
    sha256: UInt8[np.ndarray, "N 32"] | None
    """None in a foreign shard."""

    def __getitem__(self, i: int) -> Member | None:
        size = int(self.sizes[i])
        if size < 0:
            return None
        return Member(
            int(self.offsets[i]), size, self.sha256[i].tobytes().hex() if self.sha256 is not None else None
        )


@dataclass(frozen=True, eq=False)
class Columns:
    """All that a shard's index says of its samples."""

    keys: Texts
    file_ids: Texts | None
    """None: the same as the keys."""
    members: Mapping[str, MemberColumn]
    """Members by extension."""
    labels: Float64[np.ndarray, "N E"]
    """NaN where one is missing."""
    is_labelled: Bool[np.ndarray, " N"]
    subjects: Coded
    meta: Mapping[str, Coded]
    others: Mapping[str, Sequence[Any]]
    """Further fields of entries, where one of them has something to say in it."""

    @classmethod
    def of(cls, entries: Sequence[SampleEntry], num_labels: int) -> Columns:
        missing = (nan,) * num_labels
        labels = [missing if entry.intensities is None else entry.intensities for entry in entries]
        file_ids = [entry.file_id for entry in entries]
        keys = [entry.key for entry in entries]
        meta = dict.fromkeys(name for entry in entries for name in entry.meta or ())
        others = {
            f.name: [getattr(e, f.name) for e in entries]
            for f in fields(SampleEntry)
            if f.name not in OWN_FIELDS
        }
        extensions = dict.fromkeys(extension for entry in entries for extension in entry.members)
        return cls(
            Texts.of(keys),
            None if keys == file_ids else Texts.of(file_ids),
            {
                extension: _member_column([e.members.get(extension) for e in entries])
                for extension in extensions
            },
            np.array(labels, dtype=np.float64).reshape(len(entries), num_labels),
            np.array([entry.intensities is not None for entry in entries], dtype=bool),
            Coded.of([entry.subject for entry in entries]),
            {name: Coded.of([(entry.meta or {}).get(name) for entry in entries]) for name in meta},
            {name: values for name, values in others.items() if any(value is not None for value in values)},
        )


def _member_column(members: Sequence[Member | None]) -> MemberColumn:
    offsets = np.array([-1 if member is None else member.offset for member in members], dtype=np.int64)
    sizes = np.array([-1 if member is None else member.size for member in members], dtype=np.int64)
    hashes = [None if member is None else member.sha256 for member in members]
    if not any(hashes):
        return MemberColumn(offsets, sizes, None)
    digests = b"".join(bytes.fromhex(sha256) if sha256 else bytes(SHA256_BYTES) for sha256 in hashes)
    return MemberColumn(offsets, sizes, np.frombuffer(digests, np.uint8).reshape(-1, SHA256_BYTES))


class SampleTable(Sequence[SampleEntry]):
    """Entries of one shard, made when they are asked for; a view of its columns, which are never copied."""

    def __init__(
        self,
        columns: Columns,
        *,
        rows: Integer[np.ndarray, " M"] | None = None,
        places: Integer[np.ndarray, " E"] | None = None,
        prefix: str = "",
    ):
        """``rows`` of the columns, None: all. ``places``: which of the labels is where, -1: one that is
        missing everywhere. ``prefix``: before each key and subject."""
        self.columns, self._rows, self._places, self._prefix = columns, rows, places, prefix

    @classmethod
    def of(cls, entries: Sequence[SampleEntry], num_labels: int) -> SampleTable:
        return entries if isinstance(entries, SampleTable) else cls(Columns.of(entries, num_labels))

    def __len__(self) -> int:
        return len(self.columns.keys) if self._rows is None else len(self._rows)

    @overload
    def __getitem__(self, i: int) -> SampleEntry: ...
    @overload
    def __getitem__(self, i: slice) -> tuple[SampleEntry, ...]: ...
    def __getitem__(self, i: int | slice) -> SampleEntry | tuple[SampleEntry, ...]:
        if isinstance(i, slice):
            return tuple(self[row] for row in range(*i.indices(len(self))))
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        return self._entry(self._row(i % len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    __hash__ = None  # type: ignore[assignment]  # as of every sequence that compares by content and may be large

    def _row(self, i: int) -> int:
        return i if self._rows is None else int(self._rows[i])

    def _entry(self, row: int) -> SampleEntry:
        columns = self.columns
        key, subject = columns.keys[row], columns.subjects[row]
        found = {extension: column[row] for extension, column in columns.members.items()}
        meta = {name: text for name, coded in columns.meta.items() if (text := coded[row]) is not None}
        return SampleEntry(
            self._prefix + key,
            key if columns.file_ids is None else columns.file_ids[row],
            {extension: member for extension, member in found.items() if member is not None},
            tuple(self._labels_of(columns.labels[row]).tolist()) if columns.is_labelled[row] else None,
            None if subject is None else self._prefix + subject,
            meta or None,
            **{name: values[row] for name, values in columns.others.items()},
        )

    def _labels_of(self, labels: Float64[np.ndarray, "*N E"]) -> Float64[np.ndarray, "*N F"]:
        if self._places is None:
            return labels
        # A column more, of what is missing, which is the one that -1 finds.
        wider = np.concatenate([labels, np.full((*labels.shape[:-1], 1), np.nan)], axis=-1)
        return wider[..., self._places]

    # --- many at once ---------------------------------------------------------------------------------

    def is_labelled(self) -> Bool[np.ndarray, " N"]:
        return self.columns.is_labelled if self._rows is None else self.columns.is_labelled[self._rows]

    def label_rows(self) -> Float64[np.ndarray, "N E"]:
        """NaN where one is missing."""
        labels = self.columns.labels
        return self._labels_of(labels if self._rows is None else labels[self._rows])

    def key_hashes(self) -> UInt64[np.ndarray, " N"]:
        """Hashes as in `Texts`, of the keys without their prefix."""
        hashes = self.columns.keys.hashes()
        return hashes if self._rows is None else hashes[self._rows]

    def sizes_of(self, extensions: Sequence[str]) -> Integer[np.ndarray, " N"]:
        """Bytes of each sample's one file with such an extension; -1 where it has none."""
        found = np.full(len(self.columns.keys), -1, dtype=np.int64)
        for extension, column in self.columns.members.items():
            if extension in extensions:
                np.maximum(found, column.sizes, out=found)
        return found if self._rows is None else found[self._rows]

    def subjects(self, hashes: UInt64[np.ndarray, " H"]) -> list[str]:
        """Those whose hash is among these, each once."""
        codes = self._subject_codes()
        own = self.columns.subjects.values.hashes()[codes]
        values = self.columns.subjects.values
        return [self._prefix + values[code] for code in codes[np.isin(own, hashes)].tolist()]

    def all_subjects(self) -> list[str]:
        """Each once."""
        values = self.columns.subjects.values
        return [self._prefix + values[code] for code in self._subject_codes().tolist()]

    def subject_hashes(self) -> UInt64[np.ndarray, " S"]:
        """The hash of each subject once, without the prefix before them; as in `Texts`."""
        return self.columns.subjects.values.hashes()[self._subject_codes()]

    @property
    def num_without_subject(self) -> int:
        """Samples that name nobody."""
        codes = self.columns.subjects.codes
        return int(np.count_nonzero((codes if self._rows is None else codes[self._rows]) < 0))

    def _subject_codes(self) -> Integer[np.ndarray, " S"]:
        codes = self.columns.subjects.codes
        used = np.bincount((codes if self._rows is None else codes[self._rows]) + 1)
        return np.flatnonzero(used[1:])

    # --- other views ----------------------------------------------------------------------------------

    def only(self, keep: Bool[np.ndarray, " N"]) -> SampleTable:
        """Those to keep."""
        rows = np.flatnonzero(keep) if self._rows is None else self._rows[keep]
        return SampleTable(self.columns, rows=rows, places=self._places, prefix=self._prefix)

    def with_labels(self, order: Sequence[int]) -> SampleTable:
        """Labels in another order; -1 for one that none of these samples has."""
        places = np.array(order, dtype=np.int64)
        if not self.columns.labels.shape[1]:
            places = np.full_like(places, -1)  # nothing here is labelled
        elif self._places is not None:
            places = np.append(self._places, -1)[places]
        return SampleTable(self.columns, rows=self._rows, places=places, prefix=self._prefix)

    def prefixed(self, prefix: str) -> SampleTable:
        """Every key and every subject after ``prefix``."""
        return SampleTable(self.columns, rows=self._rows, places=self._places, prefix=prefix + self._prefix)


def table_of(shard: ShardIndex) -> SampleTable:
    """Its samples in columns, as all shards of a set have them."""
    return SampleTable.of(shard.samples, len(shard.labels or ()))
