"""check_report.py: findings of `viper check` on clips and labels, as JSON and as lines for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Group
from rich.text import Text

from viper_e2e.errors import ExitCode
from viper_e2e.runtime import table, taken_apart, values_of
from viper_e2e.shards import ShardIndex, ShardSet

MAX_LINES = 20
"""Lines of one kind printed in the table; the JSON report holds all."""


@dataclass(frozen=True)
class ClipCheck:
    """Result of reading one sample."""

    key: str
    shard: str
    container: str | None = None
    video_codec: str | None = None
    audio_codec: str | None = None
    """Codec of the clip's own sound."""
    width: int = 0
    height: int = 0
    seconds: float = 0.0
    has_sound: bool = False
    """Its own, or a file kept apart."""
    has_action_units: bool = False
    face_share: float | None = None
    """Share of the decoded frames with a face, 0 … 1; ``None`` where faces were not looked for."""
    words_by: str = ""
    """The model that transcribed its words; empty: it has none, or a person wrote them."""
    notes: tuple[str, ...] = ()
    """Notes on how it is read (`DecodedClip.notes`)."""
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
    """Problems of whole shards, and what was left out in them."""
    classes: dict[str, dict[str, int]] = field(default_factory=dict)
    """Number of samples for which each class is the likeliest, by task."""
    metadata: dict[str, dict[str, int]] = field(default_factory=dict)
    """Number of samples by value, for each kept column."""
    num_subjects: int = 0
    num_without_subject: int = 0
    num_segments: int = 0
    """Samples that are a part of their file."""
    words: dict[str, int] = field(default_factory=dict)
    """How many samples have words ``with times`` and ``without times``."""

    spelt_alike: dict[str, list[list[str]]] = field(default_factory=dict)
    """Names that may be one, spelt in several ways: of subjects, and of what is kept with samples."""

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
            "containers": counts_of(clip.container for clip in usable),
            "video_codecs": counts_of(clip.video_codec for clip in usable),
            "audio_codecs": counts_of(clip.audio_codec for clip in usable),
            "undecodable": len(self.undecodable),
            "without_sound": len(self.without_sound),
            "with_action_units": sum(clip.has_action_units for clip in usable),
            "unlabelled": self.num_unlabelled,
            "subjects": self.num_subjects,
            "parts_of_files": self.num_segments,
            "words": self.words,
            "words_by": counts_of(clip.words_by or None for clip in usable),
            "duplicate_keys": len(self.duplicate_keys),
            "straddling_subjects": len(self.straddling_subjects),
            "clips_in_several_splits": len(self.shared_clips),
            "face_share": self.face_share,
        }

    def __rich__(self) -> Group:
        rows = []
        for name, value in {**self._summary(), "splits": self.splits}.items():
            if isinstance(value, dict):
                value = ", ".join(f"{kind} {n}" for kind, n in value.items()) or "none"
            if isinstance(value, float):
                value = f"{value:.3f}" if name == "face_share" else f"{value:.1f}"
            if value is not None:
                rows.append((name.replace("_", " "), f"{value:,}" if isinstance(value, int) else str(value)))
        tables = [table("shards", ("what", "found"), rows)]
        if self.label_ranges:
            ranges = [
                (found.emotion, *(f"{value:.3f}" for value in (found.minimum, found.mean, found.maximum)))
                for found in self.label_ranges
            ]
            tables.append(table("labels", ("label", "minimum", "mean", "maximum"), ranges))
        if kept := {**self.classes, **self.metadata}:
            cells = [(name, values_of(counts)) for name, counts in kept.items()]
            tables.append(table("values", ("of", "clips"), cells))
        return Group(*(part for made in tables for part in (made, Text())), *self._lines())

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
        notes = [f"{title}: {taken_apart(alike)}" for title, alike in self.spelt_alike.items()]
        if self.num_without_subject and len(self.splits) > 1:
            notes.append(
                f"{self.num_without_subject:,} of {sum(self.splits.values()):,} clips have no subject: whether "
                "their people are in several splits cannot be told; pack with --subject-column TITLE"
            )
        notes += [f"{clip.key}: {note} ({clip.shard})" for clip in self.clips for note in clip.notes]
        lines = []
        for kind, texts in {**kinds, "note": notes}.items():
            style = "" if kind == "note" else "red"
            lines += [Text(f"{kind}: {text}", style=style) for text in texts[:MAX_LINES]]
            if len(texts) > MAX_LINES:
                lines.append(Text(f"{kind}: {len(texts) - MAX_LINES} more (all are in --output)", style=style))
        return lines


def by_split(shards: ShardSet) -> dict[str, list[ShardIndex]]:
    splits: dict[str, list[ShardIndex]] = {}
    for shard in shards.shards:
        if shard.split is not None:
            splits.setdefault(shard.split, []).append(shard)
    return splits


def counts_of(kinds: Iterable[str | None]) -> dict[str, int]:
    return dict(sorted(Counter(kind for kind in kinds if kind is not None).items()))
