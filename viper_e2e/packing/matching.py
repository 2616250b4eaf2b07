"""packing/matching.py: rows of a table -> the files that they mean, each clip once."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from viper_e2e.config import LimitsConfig
from viper_e2e.errors import ViperError
from viper_e2e.loading import find_files
from viper_e2e.packing.action_units import ACTION_UNIT_FILES
from viper_e2e.packing.finding import Files
from viper_e2e.packing.rows import without_brackets, without_ending
from viper_e2e.packing.segments import Clip, is_timed, with_stretches
from viper_e2e.packing.table import LabelTable
from viper_e2e.runtime import SOUND_EXTENSIONS, VIDEO_EXTENSIONS, fault_of, first_of, printable

_ByStem = dict[str, list[Path]]


def match_clips(
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
        first = first_of(printable(path.relative_to(videos).as_posix()) for path in unnamed)
        told.append(f"clips that no row means: {first}")
    return with_stretches(_once_each(clips, problems), limits, problems, notes, told)


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
    """Files with one of the extensions, in the folder and below, by name without it; odd files are reported."""
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
