"""checking.py: `viper check`: reads and decodes every sample of a set of shards, without a model."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from math import isnan
from typing import Any, NamedTuple

from rich.console import Group
from rich.table import Table
from rich.text import Text

from viper_e2e.clip import DecodedClip, Sample
from viper_e2e.config import DecodingConfig
from viper_e2e.decoding import ClipDecoder, ClipInfo, probe
from viper_e2e.errors import ClipError, ExitCode
from viper_e2e.loading import MAX_RESTARTS, TIME_LIMIT_SECONDS, Reading, decoded
from viper_e2e.model import Prediction
from viper_e2e.scoring.score import Hooks, score
from viper_e2e.shards import SampleEntry, ShardIndex, ShardSet, shared_clips, shared_subjects

FaceFinder = Callable[..., Any]
"""A `viper_e2e.faces.FaceCropper`, or what is called like one; not named here, as it imports torch."""

MAX_VALUES = 12
"""Of one name, whose samples are counted value by value in the table."""
MAX_LINES = 20
"""Lines of one kind printed in the table; the JSON report holds all."""


@dataclass(frozen=True)
class ClipCheck:
    """What reading one sample showed."""

    key: str
    shard: str
    container: str | None = None
    video_codec: str | None = None
    audio_codec: str | None = None
    """Of the clip's own sound."""
    width: int = 0
    height: int = 0
    seconds: float = 0.0
    has_sound: bool = False
    """Its own, or a file kept apart."""
    has_action_units: bool = False
    face_share: float | None = None
    """Share of the decoded frames with a face, 0 … 1; ``None`` where faces were not looked for."""
    notes: tuple[str, ...] = ()
    """What a person should know of how it is read (`DecodedClip.notes`)."""
    error: str | None = None
    """Stage and reason where the sample cannot be used."""


@dataclass(frozen=True)
class LabelRange:
    """The values of one emotion over all labelled samples."""

    emotion: str
    minimum: float
    mean: float
    maximum: float


@dataclass(frozen=True)
class CheckReport:
    """Everything `viper check` found. ``exit_code`` is 0 where nothing is wrong, else 2."""

    clips: tuple[ClipCheck, ...]
    num_shards: int
    splits: dict[str, int]
    """Samples by split."""
    num_unlabelled: int
    label_ranges: tuple[LabelRange, ...]
    duplicate_keys: dict[str, list[str]]
    """Keys that occur more than once, with their shards."""
    straddling_subjects: dict[str, list[str]]
    """Subjects that occur in more than one split, with those splits."""
    shared_clips: tuple[dict[str, list[str]], ...]
    """Clips, by content, that are in more than one split: split → their keys in it."""
    problems: tuple[str, ...]
    """What is wrong with whole shards, and what was left aside in them."""
    classes: dict[str, dict[str, int]] = field(default_factory=dict)
    """Of each task that is a class: its words, and of how many samples each is the likeliest."""
    metadata: dict[str, dict[str, int]] = field(default_factory=dict)
    """Of what is kept with samples, by name: samples by value."""
    num_subjects: int = 0
    num_segments: int = 0
    """Samples that are a part of their file."""

    @property
    def undecodable(self) -> tuple[ClipCheck, ...]:
        return tuple(clip for clip in self.clips if clip.error)

    @property
    def without_sound(self) -> tuple[ClipCheck, ...]:
        return tuple(clip for clip in self.clips if not clip.error and not clip.has_sound)

    @property
    def seconds(self) -> float:
        return sum(clip.seconds for clip in self.clips)

    @property
    def face_share(self) -> float | None:
        """Mean over the clips in which faces were looked for."""
        shares = [clip.face_share for clip in self.clips if clip.face_share is not None]
        return sum(shares) / len(shares) if shares else None

    @property
    def exit_code(self) -> int:
        shared = self.straddling_subjects or self.shared_clips
        is_wrong = self.problems or self.undecodable or self.duplicate_keys or shared
        return ExitCode.SOME_FAILED if is_wrong else ExitCode.OK

    def to_json(self) -> dict[str, Any]:
        """The report as plain data, with a summary first."""
        return {"summary": self._summary(), **asdict(self)}

    def _summary(self) -> dict[str, Any]:
        usable = [clip for clip in self.clips if not clip.error]
        return {
            "clips": len(self.clips),
            "shards": self.num_shards,
            "seconds": round(self.seconds, 3),
            "containers": _counts(clip.container for clip in usable),
            "video_codecs": _counts(clip.video_codec for clip in usable),
            "audio_codecs": _counts(clip.audio_codec for clip in usable),
            "undecodable": len(self.undecodable),
            "without_sound": len(self.without_sound),
            "with_action_units": sum(clip.has_action_units for clip in usable),
            "unlabelled": self.num_unlabelled,
            "subjects": self.num_subjects,
            "parts_of_files": self.num_segments,
            "duplicate_keys": len(self.duplicate_keys),
            "straddling_subjects": len(self.straddling_subjects),
            "clips_in_several_splits": len(self.shared_clips),
            "face_share": self.face_share,
        }

    def __rich__(self) -> Group:
        table = Table(title="shards", show_header=False)
        for name, value in {**self._summary(), "splits": self.splits}.items():
            if isinstance(value, dict):
                value = ", ".join(f"{kind} {n}" for kind, n in value.items()) or "none"
            if isinstance(value, float):
                value = f"{value:.3f}" if name == "face_share" else f"{value:.1f}"
            if value is not None:
                table.add_row(name.replace("_", " "), Text(str(value)))
        labels = Table(title="labels")
        labels.add_column("emotion")
        for title in ("minimum", "mean", "maximum"):
            labels.add_column(title, justify="right")
        for found in self.label_ranges:
            values = (found.minimum, found.mean, found.maximum)
            labels.add_row(Text(found.emotion), *(f"{value:.3f}" for value in values))
        kept = Table(title="values")
        kept.add_column("of")
        kept.add_column("samples")
        for name, counts in {**self.classes, **self.metadata}.items():
            kept.add_row(Text(name), Text(_in_words(counts)))
        tables = [*([labels] if self.label_ranges else []), *([kept] if kept.rows else [])]
        return Group(table, *tables, *self._lines())

    def _lines(self) -> list[Text]:
        kinds = {
            "shard": list(self.problems),
            "undecodable": [f"{clip.key}: {clip.error} ({clip.shard})" for clip in self.undecodable],
            "duplicate key": [f"{key}: {', '.join(where)}" for key, where in self.duplicate_keys.items()],
            "subject in several splits": [
                f"{subject}: {', '.join(splits)}" for subject, splits in self.straddling_subjects.items()
            ],
            "clip in several splits": [
                "; ".join(f"{split}: {', '.join(keys)}" for split, keys in where.items())
                for where in self.shared_clips
            ],
        }
        notes = [f"{clip.key}: {note} ({clip.shard})" for clip in self.clips for note in clip.notes]
        lines = []
        for kind, texts in {**kinds, "note": notes}.items():
            style = "" if kind == "note" else "red"
            lines += [Text(f"{kind}: {text}", style=style) for text in texts[:MAX_LINES]]
            if len(texts) > MAX_LINES:
                lines.append(Text(f"{kind}: {len(texts) - MAX_LINES} more (all are in --output)", style=style))
        return lines


def check(
    shards: ShardSet,
    *,
    decoding: DecodingConfig | None = None,
    faces: FaceFinder | None = None,
    num_workers: int | None = None,
    clip_timeout_seconds: float = TIME_LIMIT_SECONDS,
    max_restarts: int = MAX_RESTARTS,
    progress: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """Read, verify, probe and decode every sample as training would, and say what is there.

    ``shards``: opened with ``strict=False``, so that torn and doubled ones are reported, not raised.
    ``faces``: looks for a face in the decoded frames. ``num_workers`` processes decode (default: one per CPU,
    at most 8), so that a clip which crashes or hangs one is a finding; 0: none. ``progress`` is called with
    (clips done, clips in all).
    """
    count = min(8, os.cpu_count() or 1) if num_workers is None else num_workers
    reading = Reading(1, count, 2, clip_timeout_seconds, max_restarts)
    looks: dict[int, _Look | ClipError] = {}
    decode = LookAtSample(ClipDecoder(decoding or DecodingConfig()), keeps_frames=faces is not None)
    found = score(None, shards, reading, decode=decode, hooks=Hooks(on_clip=looks.__setitem__))
    clips: list[ClipCheck] = []
    # Samples that cannot be numbered are among the shards' problems.
    for one in (one for one in found if one.index >= 0):
        shard = shards.shard_of(one.index).path_or_url
        clips.append(_checked(one, shard, looks.pop(one.index), faces))
        if progress is not None:
            progress(len(clips), len(shards))
    entries = [entry for shard in shards.shards for entry in shard.samples]
    splits = _by_split(shards)
    return CheckReport(
        clips=tuple(clips),
        num_shards=len(shards.shards),
        splits=_counts(shard.split or "?" for shard in shards.shards for _ in shard.samples),
        num_unlabelled=sum(entry.intensities is None for entry in entries),
        label_ranges=_label_ranges(shards),
        duplicate_keys=shards.duplicate_keys,
        straddling_subjects=shared_subjects(splits),
        shared_clips=tuple(shared_clips(splits)),
        problems=shards.problems,
        classes=_classes(shards),
        metadata=_metadata(entries),
        num_subjects=len({entry.subject for entry in entries} - {None}),
        num_segments=sum(entry.segment is not None for entry in entries),
    )


class _Look(NamedTuple):
    """What one sample showed, on its way from a worker."""

    info: ClipInfo
    clip: DecodedClip
    """Without its frames where nobody looks for faces."""
    has_action_units: bool


@dataclass(frozen=True)
class LookAtSample:
    """Reads a sample's headers and decodes all of it that training would; imports no torch."""

    decoder: ClipDecoder
    keeps_frames: bool

    def __call__(self, sample: Sample) -> _Look:
        settings = self.decoder.config
        info = probe(sample.video, settings.limits, name=sample.key, video_track=settings.video_track)
        clip = decoded(replace(sample, action_units=None), self.decoder)
        if not self.keeps_frames:
            clip = replace(clip, frames=clip.frames[:0], sound=())
        return _Look(info, clip, sample.action_units is not None)


def _checked(one: Prediction, shard: str, look: _Look | ClipError, faces: FaceFinder | None) -> ClipCheck:
    if isinstance(look, ClipError):
        return ClipCheck(one.clip, shard, error=f"{one.stage}: {one.error}")
    info, clip, has_action_units = look
    return ClipCheck(
        one.clip,
        shard,
        container=info.container,
        video_codec=info.video_codec,
        audio_codec=info.audio_codec,
        width=info.width,
        height=info.height,
        seconds=clip.duration_seconds,
        has_sound=clip.has_sound,
        has_action_units=has_action_units,
        face_share=None if faces is None else _face_share(clip, faces),
        notes=clip.notes,
    )


def _face_share(clip: DecodedClip, faces: FaceFinder) -> float:
    import torch

    seconds = torch.from_numpy(clip.frame_seconds).float()
    (track,) = faces([torch.from_numpy(clip.frames)], [seconds])
    return track.face_found.float().mean().item()


def _label_ranges(shards: ShardSet) -> tuple[LabelRange, ...]:
    if shards.labels is None:
        return ()
    # Shards whose labels disagree with the first are among the problems; their values are not mixed in.
    rows = [
        entry.intensities
        for shard in shards.shards
        if shard.labels is not None and shard.labels.names == shards.labels.names
        for entry in shard.samples
        if entry.intensities is not None
    ]
    # Of a task that a clip lacks there is no number.
    columns = [[value for value in column if not isnan(value)] for column in zip(*rows, strict=True)]
    return tuple(
        LabelRange(name, min(values), sum(values) / len(values), max(values))
        for name, values in zip(shards.labels.names, columns, strict=bool(rows))
        if values
    )


def _classes(shards: ShardSet) -> dict[str, dict[str, int]]:
    if shards.labels is None:
        return {}
    # Of shards that disagree nothing is counted: that they do is among the problems.
    alike = [s for s in shards.shards if s.labels is not None and s.labels.names == shards.labels.names]
    rows = [entry.intensities for shard in alike for entry in shard.samples if entry.intensities is not None]
    found = {}
    for task, columns in shards.labels.parts:
        if task.kind == "class":
            titles = shards.labels.own_titles(task, columns)
            known = [row[columns] for row in rows if not any(map(isnan, row[columns]))]
            found[task.name] = _counts(titles[own.index(max(own))] for own in known)
    return found


def _metadata(entries: Iterable[SampleEntry]) -> dict[str, dict[str, int]]:
    found: dict[str, Counter[str]] = {}
    for entry in entries:
        for name, value in (entry.meta or {}).items():
            found.setdefault(name, Counter())[value] += 1
    return {name: dict(sorted(counts.items())) for name, counts in found.items()}


def _in_words(counts: dict[str, int]) -> str:
    """``joy 12, anger 5``; of many different values only how many."""
    if len(counts) > MAX_VALUES:
        return f"{len(counts)} different"
    return ", ".join(f"{value} {number}" for value, number in counts.items())


def _by_split(shards: ShardSet) -> dict[str, list[ShardIndex]]:
    splits: dict[str, list[ShardIndex]] = {}
    for shard in shards.shards:
        if shard.split is not None:
            splits.setdefault(shard.split, []).append(shard)
    return splits


def _counts(kinds: Iterable[str | None]) -> dict[str, int]:
    return dict(sorted(Counter(kind for kind in kinds if kind is not None).items()))
