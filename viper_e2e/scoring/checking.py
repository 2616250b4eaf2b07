"""checking.py: `viper check`: reads and decodes every sample of a set of shards, without a model."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from math import isnan
from typing import Any, NamedTuple

from viper_e2e.clip import DecodedClip, Sample
from viper_e2e.config import DecodingConfig
from viper_e2e.decoding import ClipDecoder, ClipInfo, probe
from viper_e2e.errors import ClipError
from viper_e2e.loading import MAX_RESTARTS, TIME_LIMIT_SECONDS, Reading, decoded
from viper_e2e.model import Prediction
from viper_e2e.runtime import spelt_alike
from viper_e2e.scoring.check_report import CheckReport, ClipCheck, LabelRange, by_split, counts_of
from viper_e2e.scoring.score import Hooks, score
from viper_e2e.shards import WORDS_EXTENSIONS, SampleEntry, ShardSet, shared_clips, shared_subjects

FaceFinder = Callable[..., Any]
"""A `viper_e2e.faces.FaceCropper`, or what is called like one; not named here, as it imports torch."""


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
    """Read, verify, probe and decode every sample as training would, and report on them.

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
    entries = shards.entries()
    splits, metadata = by_split(shards), _metadata(entries)
    names = {"Subject": [entry.subject for entry in entries if entry.subject is not None], **metadata}
    return CheckReport(
        clips=tuple(clips),
        num_shards=len(shards.shards),
        splits=counts_of(shard.split or "?" for shard in shards.shards for _ in shard.samples),
        num_unlabelled=sum(entry.intensities is None for entry in entries),
        label_ranges=_label_ranges(shards),
        duplicate_keys=shards.duplicate_keys,
        straddling_subjects=shared_subjects(splits),
        shared_clips=tuple(shared_clips(splits)),
        problems=shards.problems,
        classes=_classes(shards),
        metadata=metadata,
        num_subjects=len({entry.subject for entry in entries} - {None}),
        num_without_subject=sum(entry.subject is None for entry in entries),
        num_segments=sum(entry.segment is not None for entry in entries),
        spelt_alike={title: alike for title, own in names.items() if (alike := spelt_alike(own))},
        words=counts_of(kind for entry in entries if (kind := _words_of(entry))),
    )


class _Look(NamedTuple):
    """Findings about one sample, on their way from a worker."""

    info: ClipInfo
    clip: DecodedClip
    """Without its frames where nobody looks for faces."""
    has_action_units: bool
    words_by: str


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
        return _Look(info, clip, sample.action_units is not None, sample.words_by)


def _checked(one: Prediction, shard: str, look: _Look | ClipError, faces: FaceFinder | None) -> ClipCheck:
    if isinstance(look, ClipError):
        return ClipCheck(one.clip, shard, error=f"{one.stage}: {one.error}")
    info, clip, has_action_units, words_by = look
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
        words_by=words_by,
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
            found[task.name] = counts_of(titles[own.index(max(own))] for own in known)
    return found


def _words_of(entry: SampleEntry) -> str:
    """Whether the words of a sample have times; empty where it has none."""
    kinds = dict(zip(WORDS_EXTENSIONS, ("with times", "without times"), strict=True))
    return next((kind for extension, kind in kinds.items() if extension in entry.members), "")


def _metadata(entries: Iterable[SampleEntry]) -> dict[str, dict[str, int]]:
    found: dict[str, Counter[str]] = {}
    for entry in entries:
        for name, value in (entry.meta or {}).items():
            found.setdefault(name, Counter())[value] += 1
    return {name: dict(sorted(counts.items())) for name, counts in found.items()}
