"""packing/pack.py: match clips with their labels, and write them: all shards of a run, or none."""

from __future__ import annotations

import json
import random
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from viper_e2e.clip import Sample, Segment
from viper_e2e.config import LimitsConfig
from viper_e2e.decoding import BESIDE_CONTAINERS, HEAD_BYTES, VIDEO_CONTAINERS, cut, sniff, sniff_sound
from viper_e2e.errors import ClipError, ViperError
from viper_e2e.loading import find_files
from viper_e2e.packing.action_units import ACTION_UNIT_FILES, read_action_units
from viper_e2e.packing.finding import Files
from viper_e2e.packing.oddities import oddities_of
from viper_e2e.packing.rehearsal import Rehearsal
from viper_e2e.packing.report import PackReport, SplitReport
from viper_e2e.packing.segments import Clip, is_timed, sound_of, units_of, with_stretches
from viper_e2e.packing.subtitles import PackedWords
from viper_e2e.packing.table import (
    NO_CHOICES,
    ColumnChoices,
    LabelTable,
    read_labels,
    without_brackets,
    without_ending,
)
from viper_e2e.packing.transcripts import transcripts_of
from viper_e2e.runtime import SOUND_EXTENSIONS, VIDEO_EXTENSIONS, Counted, explain, fault_of, printable
from viper_e2e.shards import SCHEMAS, ShardIndex, ShardLimits, ShardWriter, action_units_to_npy, index_path

SHARD_NAME = re.compile(r"[a-z0-9_]+-\d{6}\.(tar|index\.json)")


_ByStem = dict[str, list[Path]]


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
) -> PackReport:
    """Pack clips into shards ``OUT/SPLIT-000000.tar``, each with its index beside it.

    Files are found in ``videos`` and its subfolders by the names that the table gives them; the bytes of clips
    are untouched; files of more than ``max_bytes`` are left out. ``choices`` says what of the table's columns
    is what, ``audio`` holds wav or flac files kept apart, ``fau`` a csv or npy of action units per clip.
    ``subtitles``: whether those beside clips (vtt, srt, txt) are packed as their words.
    ``transcribe``: a Whisper that hears clips of which no words are known, in this ``language``.
    Samples are written in a permutation that depends on ``seed`` alone: same input, same bytes. Shards appear
    in ``out`` when all are written; an interrupted run leaves nothing.

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
    words = PackedWords(subtitles, None if dry_run else transcripts_of(transcribe, language, limits))
    clips = _match(table, labels, videos, audio, fau, problems, notes, told, limits)
    kept: list[str] = []
    old = _to_replace(shards_in_the_way(out, overwrite), {clip.row.split for clip in clips}, kept)
    by_split = defaultdict(list)
    for clip in sorted(clips, key=lambda clip: clip.row.key):
        by_split[clip.row.split].append(clip)
    if dry_run:
        rehearsals = []
        for split, ordered in sorted(by_split.items()):
            rehearsal = Rehearsal(split)
            for clip in ordered:
                _add(rehearsal, clip, words, limits, problems, notes)
            rehearsals += [rehearsal.report()] if rehearsal.clips else []
        _refuse_nothing(rehearsals, labels, videos, problems)
        told += [*_summed(notes), *words.lines(), *kept]
        return PackReport(
            str(out), table.labels, tuple(rehearsals), tuple(problems), tuple(told), table.columns, is_dry=True
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".packing-", dir=out) as folder:
            counted = _Counted(progress, len(clips))
            reports = []
            for split, ordered in sorted(by_split.items()):
                random.Random(f"{seed}/{split}").shuffle(ordered)
                with ShardWriter(Path(folder), split, table.labels, shard_size=shard_size) as writer:
                    for clip in ordered:
                        _add(writer, clip, words, limits, problems, notes)
                        counted.step()
                if writer.indexes:
                    reports.append(_split_report(split, writer.indexes))
            _refuse_nothing(reports, labels, videos, problems)
            _publish(Path(folder), out, old)
    except OSError as error:
        raise ViperError(f"{explain(error, out)}; nothing was packed") from error
    left = [f"{path} is left from a run that was killed; remove it" for path in sorted(out.glob(".packing-*"))]
    told += [*_summed(notes), *words.lines(), *kept, *left]
    return PackReport(str(out), table.labels, tuple(reports), tuple(problems), tuple(told), table.columns)


def _refuse_nothing(reports: list[SplitReport], labels: Path, videos: Path, problems: list[str]) -> None:
    if not reports:
        first = "; ".join(problems[:3])
        raise ViperError(f"{labels}: nothing to pack from {videos}: {first} ({len(problems)} problems)")


def _match(
    table: LabelTable,
    labels: Path,
    videos: Path,
    audio: Path | None,
    fau: Path | None,
    problems: list[str],
    notes: list[str],
    told: list[str],
    limits: LimitsConfig,
) -> list[Clip]:
    """The clips whose files are all there, once each; ``notes`` are counted, ``told`` stand for themselves."""
    video_files = _by_stem(videos, VIDEO_EXTENSIONS, problems, told)
    files = {"video": Files(videos, video_files)}
    if audio:
        files["sound"] = Files(audio, _by_stem(audio, (*SOUND_EXTENSIONS, "ogg"), problems, told))
    if fau:
        files["action units"] = Files(fau, _by_stem(fau, ACTION_UNIT_FILES, problems, told))
    clips, named = [], set()
    for row in table.rows:
        found = {kind: folder.find(row.name, labels) for kind, folder in files.items()}
        # What is cut out of a long file may have sound of its own, cut already.
        own = {
            kind: folder.find(without_brackets(row.file_id), labels)
            for kind, folder in files.items()
            if kind != "video" and is_timed(row.segment)
        }
        has_own_files = any(own.values())
        found |= own if has_own_files else {}
        named.update(found["video"])
        doubled = [f"{kind} {' and '.join(map(str, paths))}" for kind, paths in found.items() if len(paths) > 1]
        if doubled:
            problems.append(
                f"{row.file_id}: more than one file: {'; '.join(doubled)}: keep one, or name its folder as well"
            )
        elif not found["video"]:
            hint = files["video"].hint(row.name)
            looked_for = f"{without_ending(row.name)}.* in {videos} (looked for .mp4, .mov, .mkv, .avi, …)"
            problems.append(f"{row.file_id}: no video {looked_for}{hint}")
        else:
            for kind, folder in (("sound", audio), ("action units", fau)):
                if folder and not found[kind]:
                    notes.append(f"without a file of {kind} in {folder}")
            sound, units = (next(iter(found.get(kind, ())), None) for kind in ("sound", "action units"))
            clips.append(Clip(row, found["video"][0], sound, units, has_own_files=has_own_files))
    unnamed = [path for paths in video_files.values() for path in paths if path not in named]
    _count_unnamed(unnamed, problems, notes)
    if unnamed:
        first, more = (
            ", ".join(path.relative_to(videos).as_posix() for path in unnamed[:3]),
            ", …" * (len(unnamed) > 3),
        )
        told.append(f"clips that no row means: {printable(first)}{more}")
    return with_stretches(_once_each(clips, problems), limits, problems, notes)


def _count_unnamed(paths: list[Path], problems: list[str], notes: list[str]) -> None:
    """Files that no row means."""
    for path in paths:
        if fault := fault_of(path.stem):
            problems.append(f"{printable(str(path))!r}: unusable name: it {fault}; rename the file")
        else:
            notes.append("with a video but no usable row in the labels")


def _once_each(clips: list[Clip], problems: list[str]) -> list[Clip]:
    """Clips that are no part of their file that another is as well."""
    by_part = defaultdict(list)
    for clip in clips:
        by_part[clip.video, clip.row.segment].append(clip)
    for (path, segment), same in by_part.items():
        if len(same) > 1:
            lines = ", ".join(str(clip.row.line) for clip in same)
            part = "" if segment is None else " with the same Start, End and Side"
            problems.append(f"lines {lines}: all mean {path}{part}; none of them is packed")
    return [clip for clip in clips if len(by_part[clip.video, clip.row.segment]) == 1]


def _by_stem(folder: Path, extensions: tuple[str, ...], problems: list[str], notes: list[str]) -> _ByStem:
    """Files with one of the extensions, in the folder and below, by name without it; what is odd is told."""
    if not folder.is_dir():
        raise ViperError(f"{folder}: no such folder; give the folder that holds the files")
    found = find_files(folder, extensions)
    problems += found.closed
    if extensions is VIDEO_EXTENSIONS:
        problems += found.sound_alone(folder)
        notes += found.left_out(folder)
    files = defaultdict(list)
    for path in found.files:
        files[path.name.rpartition(".")[0]].append(path)
    return dict(files)


def _add(
    writer: ShardWriter | Rehearsal,
    clip: Clip,
    words: PackedWords,
    limits: LimitsConfig,
    problems: list[str],
    notes: list[str],
) -> None:
    """Read one clip's files and hand them to the writer, or say why not."""
    row, max_bytes = clip.row, limits.max_bytes_in_memory
    segment, source = row.segment, None
    is_dry = isinstance(writer, Rehearsal)
    try:
        if clip.stretch is None:
            members = {_extension(clip.video): _media(clip.video, VIDEO_CONTAINERS, max_bytes, is_dry)}
        elif is_dry:
            # That it can be cut is known since it was matched.
            members = {}
        else:
            made = cut(clip.stretch, limits)
            members = {made.extension: made.data}
            segment = replace(made.segment, side=row.segment.side if row.segment else "full")
            ends = clip.stretch.end_seconds
            source = {"file": clip.video.name, "start": clip.stretch.start_seconds, "end": ends}
        if clip.sound and clip.stretch is not None and segment is not None and not is_dry:
            members["wav"] = sound_of(clip, segment, limits)
        elif clip.sound:
            # `.ogg` may be a video among a shard's members.
            extension = "oga" if _extension(clip.sound) == "ogg" else _extension(clip.sound)
            members[extension] = _media(clip.sound, BESIDE_CONTAINERS, max_bytes, is_dry)
        if clip.units:
            units, has_emotions = read_action_units(clip.units.name, _read(clip.units, max_bytes))
            members["fau.npy"] = action_units_to_npy(units_of(clip, units))
            if not has_emotions:
                notes.append("whose action units come without the seven emotions (stored as 0)")
        said = words.members(clip.video, row.text, row.segment if clip.stretch else None)
        members |= said or ({} if is_dry else words.heard(_sample(row.key, members, segment)))
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


def shards_in_the_way(out: Path, overwrite: bool) -> list[Path]:
    """Shards and indexes of an earlier run in ``out``; ``ViperError`` unless they may be overwritten."""
    old = _shards_in(out) if out.is_dir() else []
    if old and not overwrite:
        raise ViperError(
            f"{out}: holds {len(old)} files of another run ({old[0].name}, …); "
            "choose another --out, or --overwrite"
        )
    return old


def _to_replace(old: list[Path], splits: set[str], notes: list[str]) -> list[Path]:
    """Of what is there, the shards of these splits that `pack` wrote; nothing else is ours to delete."""
    found = []
    for path in old:
        split = path.name.rpartition("-")[0]
        if split not in splits:
            if path.suffix == ".tar":
                notes.append(f"{path} stays as it is: this table has no split {split}")
        elif _is_packed(Path(index_path(str(path))) if path.suffix == ".tar" else path, split):
            found.append(path)
        else:
            raise ViperError(f"{path}: was not written by viper pack; move it, or choose another --out")
    return found


def _is_packed(index: Path, split: str) -> bool:
    """Whether an index is of ours and of this split, by its first fields."""
    if not index.is_file():
        return False
    with index.open(encoding="utf-8", errors="replace") as file:
        head = file.read(4096)
    is_ours = any(f'"schema": "{schema}"' in head for schema in SCHEMAS)
    return is_ours and f'"split": {json.dumps(split, ensure_ascii=False)}' in head


def _shards_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if SHARD_NAME.fullmatch(path.name))


def _publish(folder: Path, out: Path, old: list[Path]) -> None:
    """Move finished shards into place; an index goes first, so that no shard is seen without its own."""
    for path in old:
        path.unlink()
    for path in sorted(_shards_in(folder), key=lambda path: (path.suffix == ".tar", path.name)):
        path.replace(out / path.name)


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
    return tuple(f"{n} clips {note}" for note, n in sorted(Counter(notes).items()))


class _Counted:
    def __init__(self, progress: Counted | None, total: int):
        self.progress, self.total, self.done = progress, total, 0

    def step(self) -> None:
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, self.total)
