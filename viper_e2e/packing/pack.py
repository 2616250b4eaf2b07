"""packing/pack.py: match clips with their labels, and write them: all shards of a run, or none."""

from __future__ import annotations

import random
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from viper_e2e.clip import Sample, Segment
from viper_e2e.config import LimitsConfig
from viper_e2e.decoding import BESIDE_CONTAINERS, HEAD_BYTES, VIDEO_CONTAINERS, cut, sniff, sniff_sound
from viper_e2e.errors import ClipError, ViperError
from viper_e2e.labels import LabelSet
from viper_e2e.packing.action_units import read_action_units
from viper_e2e.packing.column_choices import ColumnChoices
from viper_e2e.packing.dry_run import Rehearsal
from viper_e2e.packing.likely_mistakes import oddities_of
from viper_e2e.packing.matching import match_clips
from viper_e2e.packing.replacing import publish, shards_in_the_way, to_replace
from viper_e2e.packing.report import PackReport, SplitReport
from viper_e2e.packing.segments import Clip, sound_of, units_of
from viper_e2e.packing.subtitles import PackedWords
from viper_e2e.packing.table import NO_CHOICES, read_labels
from viper_e2e.packing.transcripts import transcripts_of
from viper_e2e.runtime import SOUND_EXTENSIONS, VIDEO_EXTENSIONS, Counted, count_of, explain
from viper_e2e.shards import ShardIndex, ShardLimits, ShardWriter, action_units_to_npy

TRANSCRIPTS = ".transcripts.jsonl"
"""In the folder of shards, until all are there."""


def pack(
    videos: Path,
    labels: Path,
    out: Path,
    *,
    choices: ColumnChoices = NO_CHOICES,
    audio: Path | None = None,
    fau: Path | None = None,
    shard_size: int = 256_000_000,
    seed: int = 0,
    overwrite: bool = False,
    progress: Counted | None = None,
    max_bytes: int = ShardLimits.max_clip_bytes,
    dry_run: bool = False,
    subtitles: bool = True,
    transcribe: str | None = None,
    language: str | None = None,
    words_language: str = "",
) -> PackReport:
    """Pack clips into shards ``OUT/SPLIT-000000.tar``, each with its index beside it.

    Files are found in ``videos`` and its subfolders by the names that the table gives them; the bytes of clips
    are untouched; files of more than ``max_bytes`` are left out. ``choices`` says what of the table's columns
    is what, ``audio`` holds wav or flac files kept apart, ``fau`` a csv or npy of action units per clip.
    ``subtitles``: whether those beside clips (vtt, srt, txt) are packed as their words; ``words_language``:
    of those that are taken where there are several (``CLIP.en.srt``).
    ``transcribe``: a Whisper for clips of which no words are known, in this ``language``.
    Samples are written in a permutation that depends on ``seed`` alone: same input, same bytes. Shards appear
    in ``out`` when all are written; an interrupted run leaves nothing but a Whisper's transcripts, from which
    the next one continues.

    ``dry_run``: look at everything and write nothing; of clips only the first bytes are read, of files from
    which some are cut the times of their frames.

    Clips that cannot be packed are listed in the report, the others are packed. Raises ``ViperError``
    where nothing can be packed: folders or labels.csv unusable, or shards of another run in the way.
    """
    if shard_size <= 0:
        raise ViperError(f"shard size {shard_size}: give a positive number of bytes")
    table = read_labels(labels, choices)
    problems, told = list(table.problems), [*table.notes, *oddities_of(table)]
    notes: list[str] = []
    limits = LimitsConfig(max_bytes_in_memory=max_bytes)
    transcripts = None if dry_run else transcripts_of(transcribe, language, limits, out / TRANSCRIPTS)
    words = PackedWords(subtitles, words_language, transcripts)
    clips = match_clips(table, labels, videos, audio, fau, problems, notes, told, limits)
    kept: list[str] = []
    old = to_replace(shards_in_the_way(out, overwrite), {clip.row.split for clip in clips}, kept)
    by_split = defaultdict(list)
    for clip in sorted(clips, key=lambda clip: clip.row.key):
        by_split[clip.row.split].append(clip)

    def add(target: ShardWriter | Rehearsal, clip: Clip) -> None:
        _add(target, clip, words, limits, problems, notes)

    left: list[str] = []
    if dry_run:
        reports = _rehearsed(by_split, add)
        _refuse_nothing(reports, labels, videos, problems)
    else:
        counted = _Counted(progress, len(clips))
        try:
            out.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".packing-", dir=out) as folder:
                reports = _written(Path(folder), by_split, add, table.labels, shard_size, seed, counted)
                _refuse_nothing(reports, labels, videos, problems)
                publish(Path(folder), out, old)
                words.all_packed()
        except OSError as error:
            raise ViperError(f"{explain(error, out)}; nothing was packed") from error
        killed = sorted(out.glob(".packing-*"))
        left += [f"{path} is left from a run that was killed; remove it" for path in killed]
    told += [*_summed(notes), *words.lines(), *kept, *left]
    return PackReport(
        str(out), table.labels, tuple(reports), tuple(problems), tuple(told), table.columns, is_dry=dry_run
    )


def _rehearsed(by_split: Mapping[str, list[Clip]], add: Callable[[Rehearsal, Clip], None]) -> list[SplitReport]:
    """What would be packed of each split of which there is something to pack."""
    reports = []
    for split, clips in sorted(by_split.items()):
        rehearsal = Rehearsal(split)
        for clip in clips:
            add(rehearsal, clip)
        reports += [rehearsal.report()] if rehearsal.clips else []
    return reports


def _written(
    folder: Path,
    by_split: Mapping[str, list[Clip]],
    add: Callable[[ShardWriter, Clip], None],
    labels: LabelSet,
    shard_size: int,
    seed: int,
    counted: _Counted,
) -> list[SplitReport]:
    """Shards of each split in ``folder``, clips in an order that ``seed`` alone decides."""
    reports = []
    for split, clips in sorted(by_split.items()):
        order = [*clips]
        random.Random(f"{seed}/{split}").shuffle(order)
        with ShardWriter(folder, split, labels, shard_size=shard_size) as writer:
            for clip in order:
                add(writer, clip)
                counted.step()
        if writer.indexes:
            reports.append(_split_report(split, writer.indexes))
    return reports


def _refuse_nothing(reports: list[SplitReport], labels: Path, videos: Path, problems: list[str]) -> None:
    if not reports:
        first = "; ".join(problems[:3])
        raise ViperError(
            f"{labels}: nothing to pack from {videos}: {first} ({count_of(len(problems), 'problem')})"
        )


def _add(
    writer: ShardWriter | Rehearsal,
    clip: Clip,
    words: PackedWords,
    limits: LimitsConfig,
    problems: list[str],
    notes: list[str],
) -> None:
    """Read one clip's files and hand them to the writer, or say why not."""
    row, is_dry = clip.row, isinstance(writer, Rehearsal)
    try:
        members, segment, source = _video_of(clip, limits, notes, is_dry=is_dry)
        if clip.sound:
            members |= _sound_beside(clip.sound, clip, segment, limits, is_dry=is_dry)
        if clip.units:
            units, has_emotions = read_action_units(
                clip.units.name, _read(clip.units, limits.max_bytes_in_memory)
            )
            members["fau.npy"] = action_units_to_npy(units_of(clip, units))
            if not has_emotions:
                notes.append("whose action units come without the seven emotions (stored as 0)")
        said = words.members(clip.video, row.text, row.segment if clip.stretch else None)
        members |= said or ({} if is_dry else words.transcribed(_sample(row.key, members, segment)))
    except ClipError as error:
        problems.append(f"{row.file_id}: {error}")
        return
    except ValueError as error:
        problems.append(f"{row.file_id}: {clip.units}: {error}")
        return
    writer.add(
        row.key,
        members,
        file_id=row.file_id,
        intensities=row.intensities,
        subject=row.subject,
        meta=row.meta,
        text=row.text,
        segment=segment,
        source=source,
    )


def _video_of(
    clip: Clip, limits: LimitsConfig, notes: list[str], *, is_dry: bool
) -> tuple[dict[str, bytes], Segment | None, Mapping[str, object] | None]:
    """The video, whole or cut, with sound that was cut apart; what of it is the clip; what it was cut from."""
    segment = clip.row.segment
    if clip.stretch is None:
        data = _media(clip.video, VIDEO_CONTAINERS, limits.max_bytes_in_memory, is_dry)
        return {_extension(clip.video): data}, segment, None
    if is_dry:
        # That it can be cut is known since it was matched.
        return {}, segment, None
    made = cut(clip.stretch, limits)
    members = {made.extension: made.data}
    if made.sound is not None and not clip.sound:
        members["wav"] = made.sound
    if made.is_uncut and not clip.stretch.is_uncut:
        notes.append("whose file went along whole, as a copy of its packets alone was not exact")
    start, end = clip.stretch.start_seconds, clip.stretch.end_seconds
    source = {"file": clip.video.name, "start": start, "end": end}
    return members, replace(made.segment, side=segment.side if segment else "full"), source


def _sound_beside(
    path: Path, clip: Clip, segment: Segment | None, limits: LimitsConfig, *, is_dry: bool
) -> dict[str, bytes]:
    """The sound file that is kept apart, cut as the video is."""
    if clip.stretch is not None and segment is not None and not is_dry:
        return {"wav": sound_of(clip, segment, limits)}
    # `.ogg` may be a video among a shard's members.
    extension = "oga" if _extension(path) == "ogg" else _extension(path)
    return {extension: _media(path, BESIDE_CONTAINERS, limits.max_bytes_in_memory, is_dry)}


def _sample(key: str, members: Mapping[str, bytes], segment: Segment | None) -> Sample:
    """A clip as it will lie in its shard."""
    video = next(data for extension, data in members.items() if extension in VIDEO_EXTENSIONS)
    sound = next((data for extension, data in members.items() if extension in SOUND_EXTENSIONS), None)
    return Sample(key, video, sound=sound, segment=segment)


def _extension(path: Path) -> str:
    return path.suffix[1:].lower()


def _media(path: Path, allowed: tuple[str, ...], max_bytes: int, head_alone: bool) -> bytes:
    """The bytes of a clip or a sound file, whose first ones tell an allowed container."""
    data = _read(path, max_bytes, HEAD_BYTES if head_alone else None)
    look = sniff_sound if allowed is BESIDE_CONTAINERS else sniff
    container = look(data[:HEAD_BYTES], name=str(path))
    if container not in allowed:
        reason = f"holds {container}; allowed are {' '.join(allowed)}"
        raise ClipError(reason, stage="container", clip=str(path))
    return data


def _read(path: Path, max_bytes: int, at_most: int | None = None) -> bytes:
    try:
        size = path.stat().st_size
        if size > max_bytes:
            wanted = f"--max-bytes {-(-size // 10**9)}GB allows more, here and wherever the shards are read"
            reason = f"has {size:,} bytes, at most {max_bytes:,} are packed ({wanted})"
            raise ClipError(reason, stage="read", clip=str(path))
        if at_most is not None:
            with path.open("rb") as file:
                return file.read(at_most)
        return path.read_bytes()
    except OSError as error:
        raise ClipError(f"cannot be read ({error.strerror})", stage="read", clip=str(path)) from error


def _split_report(split: str, indexes: list[ShardIndex]) -> SplitReport:
    samples = [sample for index in indexes for sample in index.samples]
    return SplitReport(
        split=split,
        clips=len(samples),
        unlabelled=sum(sample.intensities is None for sample in samples),
        subjects=len({sample.subject for sample in samples} - {None}),
        shards=len(indexes),
        bytes=sum(index.size for index in indexes),
    )


def _summed(notes: list[str]) -> tuple[str, ...]:
    return tuple(f"{count_of(n, 'clip')} {note}" for note, n in sorted(Counter(notes).items()))


class _Counted:
    def __init__(self, progress: Counted | None, total: int):
        self.progress, self.total, self.done = progress, total, 0

    def step(self) -> None:
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, self.total)
