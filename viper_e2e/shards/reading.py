"""shards/reading.py: a set of shards as one numbered list of samples, read by offset."""

from __future__ import annotations

import bisect
import copy
import glob
import hashlib
import math
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import accumulate

# Comes with webdataset, whose patterns these are.
from braceexpand import UnbalancedBracesError, braceexpand  # type: ignore[attr-defined]  # its stub lacks it

from viper_e2e.clip import Cue, Sample
from viper_e2e.errors import UNREACHABLE, ClipError
from viper_e2e.labels import LabelSet, are_alike, differing, in_order_of, order_of
from viper_e2e.runtime import (
    SOUND_EXTENSIONS,
    VIDEO_EXTENSIONS,
    digest,
    literal_prefix,
    matches,
    sampled_digest,
)
from viper_e2e.shards.action_units import action_units_from_npy
from viper_e2e.shards.index import (
    ACTION_UNITS_EXTENSION,
    RECORD_EXTENSION,
    Member,
    SampleEntry,
    ShardIndex,
    index_path,
    known_or_none,
    read_index,
)
from viper_e2e.shards.limits import UnreachableError
from viper_e2e.shards.sources import LocalFile, RemoteFile, ShardError, ShardLimits, open_source
from viper_e2e.shards.subtitles import MAX_WORDS_BYTES, WORDS_EXTENSIONS, read_subtitles
from viper_e2e.shards.unindexed import Aside, index_foreign

MAX_SHARDS = 1_000_000
MIDDLE_BYTES = 1024
"""Read of each film of a foreign shard to tell it from another; walking the tar has cost as much."""


class ShardSet:
    """The samples of many shards, numbered 0 … ``len - 1`` in the order of the shards.

    Holds indexes only: picklable, safe in worker processes and threads; every read opens its file,
    takes the wanted bytes by offset (local ``pread``, or one Range request), and closes it.

    ``patterns``: local paths, globs, brace patterns (``train-{000000..000017}.tar``), ``https://`` URLs
    whose server answers Range requests (plain http only to this machine), ``s3://``, ``gs://`` and ``hf://``
    addresses. Nothing else is ever opened.

    Raises ``ShardError`` naming every shard that is torn, damaged or doubled. With ``strict=False`` these
    are listed in ``problems`` instead, and whole samples of such shards stay readable (``viper check``).
    """

    def __init__(
        self, patterns: str | Sequence[str], *, limits: ShardLimits | None = None, strict: bool = True
    ):
        self.limits = limits or ShardLimits()
        paths = expand(patterns)
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda path: _index(path, self.limits), paths))
        faults = [fault for _, aside in found for fault in aside.faults]
        self.left_out: tuple[str, ...] = tuple(line for _, aside in found for line in aside.left_out)
        """Samples of foreign shards that are not among these, each with the reason."""
        self.unusable: tuple[tuple[str, str], ...] = tuple(u for _, aside in found for u in aside.unusable)
        """Key and reason of those that are samples by their files: to who scores, clips that failed."""
        self.shards: tuple[ShardIndex, ...] = tuple(index for index, _ in found if index is not None)
        self.shards, self.labels, label_faults = _with_common_labels(self.shards)
        self.duplicate_keys = _duplicate_keys(self.shards)
        faults += label_faults
        faults += [
            f"key {key!r} is in {' and in '.join(shards)}" for key, shards in self.duplicate_keys.items()
        ]
        if faults and strict:
            more = f" (and {len(faults) - 5} more problems)" if len(faults) > 5 else ""
            raise ShardError("; ".join(faults[:5]) + more + "; `viper check` lists all")
        notes = [note for _, aside in found for note in aside.notes]
        self.problems: tuple[str, ...] = (*faults, *self.left_out, *notes)
        self._starts = list(accumulate((len(shard.samples) for shard in self.shards), initial=0))

    def __len__(self) -> int:
        return self._starts[-1]

    @property
    def known_labels(self) -> LabelSet:
        """`labels` of shards that have some; `ShardError` where none of them has."""
        if self.labels is None:
            places = ", ".join(shard.path_or_url.partition("?")[0] for shard in self.shards[:2])
            raise ShardError(f"{places}: without labels")
        return self.labels

    @property
    def shard_sizes(self) -> list[int]:
        """Number of samples in each shard."""
        return [len(shard.samples) for shard in self.shards]

    def labelled_as(self, labels: LabelSet, whose: str) -> ShardSet:
        """The same shards with every clip's labels in the order of ``labels``, matched by name.

        The one way for labels of a corpus to meet a model, another corpus or an earlier run. ``whose`` names
        them in the ``ShardError`` that other emotions raise. Shards in which nothing is labelled fit any.
        """
        if self.labels is None or not any(e.intensities is not None for s in self.shards for e in s.samples):
            return self
        order = order_of(self.labels.names, labels.names)
        if order is None or not are_alike(self.labels, labels):
            places = ", ".join(shard.path_or_url.partition("?")[0] for shard in self.shards[:2])
            places += ", …" if len(self.shards) > 2 else ""
            raise ShardError(differing(places, self.labels, whose, labels))
        made = copy.copy(self)
        made.labels = replace(self.labels, columns=labels.columns, tasks=labels.tasks)
        # Shards whose labels disagree are only here under `viper check`, which compares nothing.
        made.shards = tuple(_reordered(shard, order, labels) for shard in self.shards)
        return made

    def only(self, keep: Sequence[bool]) -> ShardSet:
        """Without the samples that are not to be kept; the others stay in their order."""
        made, wanted = copy.copy(self), iter(keep)
        made.shards = tuple(
            replace(shard, samples=tuple(entry for entry in shard.samples if next(wanted)))
            for shard in self.shards
        )
        made._starts = list(accumulate((len(shard.samples) for shard in made.shards), initial=0))
        return made

    def shard_of(self, i: int) -> ShardIndex:
        """The shard that holds sample ``i``."""
        return self.shards[self._place(i)[0]]

    def entry(self, i: int) -> SampleEntry:
        """What the index knows of sample ``i``, without reading it."""
        shard, row = self._place(i)
        return self.shards[shard].samples[row]

    def clip_id(self, i: int) -> str:
        """What tells a clip from any other by content: its bytes count, not its name, place or labels."""
        shard, entry = self.shard_of(i), self.entry(i)
        members = {}
        for extension, member in entry.members.items():
            if extension != RECORD_EXTENSION:
                members[extension] = member.sha256 or _foreign_member_id(shard, member)
        return digest(members if entry.segment is None else {**members, "segment": entry.segment.to_json()})

    def shard_ids(self) -> list[str]:
        """What tells each shard by content: its clips in order, and their labels by name.

        Of a foreign shard, without hashes, what is at hand: sizes, and a few bytes from the middle of each
        film. Where shards lie and what they are called does not count, nor the order of the labels' columns.
        """
        return [digest([_sample_content(shard, entry) for entry in shard.samples]) for shard in self.shards]

    def content_id(self) -> str:
        """Of all shards together, in their order."""
        return digest(self.shard_ids())

    def read(self, i: int) -> Sample:
        """Sample ``i``, bytes checked against the index's sha256 where it has them.

        Raises ``ClipError`` (stage ``"read"``) where this one clip cannot be had.
        """
        shard, entry = self.shard_of(i), self.entry(i)
        video = next(extension for extension in entry.members if extension in VIDEO_EXTENSIONS)
        sound = next((extension for extension in entry.members if extension in SOUND_EXTENSIONS), None)
        units = None
        if ACTION_UNITS_EXTENSION in entry.members:
            data = self._member(shard, entry, ACTION_UNITS_EXTENSION, self.limits.max_action_units_bytes)
            try:
                units = action_units_from_npy(data)
            except ValueError as error:
                raise self._failure(shard, entry, f".{ACTION_UNITS_EXTENSION}: {error}") from error
        return Sample(
            key=entry.key,
            words=self._words(shard, entry),
            video=self._member(shard, entry, video, self.limits.max_clip_bytes),
            file_id=entry.file_id,
            sound=self._member(shard, entry, sound, self.limits.max_clip_bytes) if sound else None,
            action_units=units,
            intensities=entry.intensities,
            subject=entry.subject,
            shard=shard.path_or_url,
            segment=entry.segment,
        )

    def _words(self, shard: ShardIndex, entry: SampleEntry) -> tuple[Cue, ...]:
        extension = next((extension for extension in WORDS_EXTENSIONS if extension in entry.members), None)
        if extension is None:
            return ()
        try:
            found = read_subtitles(extension, self._member(shard, entry, extension, MAX_WORDS_BYTES))
        except ValueError as error:
            if isinstance(error, ClipError):
                raise
            raise self._failure(shard, entry, f".{extension}: {error}") from error
        if found.faults:
            raise self._failure(shard, entry, f".{extension}: {found.faults[0]}")
        return found.cues

    def _place(self, i: int) -> tuple[int, int]:
        if not 0 <= i < len(self):
            raise IndexError(f"sample {i} of {len(self)}")
        shard = bisect.bisect_right(self._starts, i) - 1
        return shard, i - self._starts[shard]

    def _member(self, shard: ShardIndex, entry: SampleEntry, extension: str, max_bytes: int) -> bytes:
        member = entry.members[extension]
        if member.size > max_bytes:
            raise self._failure(
                shard,
                entry,
                f".{extension} has {member.size} bytes, at most {max_bytes} are allowed (see --max-bytes)",
            )
        try:
            data = open_source(shard.path_or_url).read(member.offset, member.size)
        except (ShardError, FileNotFoundError) as error:
            stage = UNREACHABLE if isinstance(error, UnreachableError) else "read"
            reason = error.strerror if isinstance(error, FileNotFoundError) and error.strerror else error
            raise self._failure(shard, entry, f".{extension} cannot be read: {reason}", stage) from error
        if member.sha256 is not None and hashlib.sha256(data).hexdigest() != member.sha256:
            raise self._failure(
                shard,
                entry,
                f".{extension} does not match the sha256 of the index; copy or pack the shard again",
            )
        return data

    def _failure(self, shard: ShardIndex, entry: SampleEntry, reason: str, stage: str = "read") -> ClipError:
        return ClipError(f"{reason} (shard {open_source(shard.path_or_url).name})", stage=stage, clip=entry.key)


def expand(patterns: str | Sequence[str]) -> list[str]:
    """Patterns → paths and URLs, each once, globs sorted; ``ShardError`` where one matches nothing."""
    found: list[str] = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        remote = not isinstance(open_source(pattern), LocalFile)
        # `os.path.exists`: to it a pattern too long for a file's name is simply no file.
        if not remote and os.path.exists(pattern):  # noqa: PTH110
            found.append(pattern)
            continue
        prefix, rest = ("", pattern) if remote else literal_prefix(pattern)
        for one in (prefix + part for part in _expand_braces(rest)):
            places = [one]
            if remote and "*" in one.partition("?")[0]:
                raise ShardError(f"{one}: servers and stores are not searched; write {{000000..000017}} for *")
            if not remote and glob.has_magic(one):
                places = [path for path in matches(one) if not path.endswith(".index.json")]
            elif not remote and not os.path.exists(one):  # noqa: PTH110
                places = []
            if not places:
                raise ShardError(
                    f"{one}: no such shard; give paths, globs, brace patterns or addresses of .tar files"
                )
            found += places
    if not found:
        raise ShardError("no shards given; give paths, globs, brace patterns or addresses of .tar files")
    return list(dict.fromkeys(found))


def _expand_braces(pattern: str) -> list[str]:
    spans = re.findall(r"\{(-?\d{1,18})\.\.(-?\d{1,18})", pattern)
    if math.prod(abs(int(last) - int(first)) + 1 for first, last in spans) > MAX_SHARDS:
        raise ShardError(f"{pattern}: more than {MAX_SHARDS} shards")
    try:
        return list(braceexpand(pattern))
    except UnbalancedBracesError as error:
        raise ShardError(f"{pattern}: unbalanced braces") from error


def _index(path: str, limits: ShardLimits) -> tuple[ShardIndex | None, Aside]:
    """One shard's index, and what is to be said besides."""
    try:
        source = open_source(path)
        index = read_index(source, open_source(index_path(path)), limits)
        if index is not None:
            return _located(index, path), Aside()
        foreign, aside = index_foreign(source, limits)
        return _located(foreign, path), aside
    except FileNotFoundError as error:
        reason = error.strerror or str(error) if isinstance(source, RemoteFile) else "no such shard"
        return None, Aside(faults=[f"{open_source(path).name}: {reason}"])
    except ShardError as error:
        return None, Aside(faults=[str(error)])


def _located(index: ShardIndex, path: str) -> ShardIndex:
    """Messages name a URL without its query; reading needs all of it."""
    return ShardIndex(path, index.size, index.samples, index.labels, index.split)


def _with_common_labels(
    shards: tuple[ShardIndex, ...],
) -> tuple[tuple[ShardIndex, ...], LabelSet | None, list[str]]:
    """All shards with their labels in the first one's order, what they have in common, and who disagrees.

    Ranges are joined: a foreign shard knows only its own values.
    """
    labelled = [(shard.path_or_url, shard.labels) for shard in shards if shard.labels is not None]
    if not labelled:
        return shards, None, []
    (whose, first), same, faults = labelled[0], [], []
    for shard in shards:
        order = None if shard.labels is None else order_of(shard.labels.names, first.names)
        if shard.labels is not None and order is not None and are_alike(shard.labels, first):
            shard = _reordered(shard, order, first)
        elif shard.labels is not None:
            faults.append(differing(shard.path_or_url, shard.labels, whose, first))
        same.append(shard)
    minimum = min(labels.minimum for _, labels in labelled)
    maximum = max(labels.maximum for _, labels in labelled)
    return tuple(same), LabelSet(first.columns, minimum, maximum, tasks=first.tasks), faults


def _sample_content(shard: ShardIndex, entry: SampleEntry) -> list:
    labels = None
    if shard.labels is not None and entry.intensities is not None:
        labels = dict(zip(shard.labels.names, map(known_or_none, entry.intensities), strict=True))
    members = {
        extension: member.sha256 or [member.size, _middle(shard, member)]
        for extension, member in entry.members.items()
        if extension != RECORD_EXTENSION
    }
    segment = [] if entry.segment is None else [entry.segment.to_json()]
    return [entry.key, members, labels, *segment]


def _middle(shard: ShardIndex, member: Member) -> str | None:
    """A few bytes of a foreign member; nothing over the network, where each would be a request of its own."""
    source = open_source(shard.path_or_url)
    if not isinstance(source, LocalFile):
        return None
    size = min(member.size, MIDDLE_BYTES)
    return source.read(member.offset + (member.size - size) // 2, size).hex()


def _foreign_member_id(shard: ShardIndex, member: Member) -> str | list:
    source = open_source(shard.path_or_url)
    if not isinstance(source, LocalFile):
        return [source.name, shard.size, member.offset, member.size]
    return sampled_digest(lambda offset, size: source.read(member.offset + offset, size), member.size)


def _reordered(shard: ShardIndex, order: Sequence[int], labels: LabelSet) -> ShardIndex:
    """A shard whose labels stand in another order, under the titles of these."""
    if shard.labels is None or shard.labels.columns == labels.columns:
        return shard
    samples = [
        entry
        if entry.intensities is None
        else replace(entry, intensities=in_order_of(entry.intensities, order))
        for entry in shard.samples
    ]
    return replace(
        shard, samples=tuple(samples), labels=replace(shard.labels, columns=labels.columns, tasks=labels.tasks)
    )


def _duplicate_keys(shards: Sequence[ShardIndex]) -> dict[str, list[str]]:
    """Keys that occur more than once, with the shards they occur in."""
    places: dict[str, list[str]] = {}
    for shard in shards:
        for entry in shard.samples:
            places.setdefault(entry.key, []).append(shard.path_or_url)
    return {key: where for key, where in places.items() if len(where) > 1}
