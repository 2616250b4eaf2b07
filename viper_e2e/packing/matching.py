"""packing/matching.py: rows of a table -> the files that they refer to, each clip once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from viper_e2e.errors import ViperError
from viper_e2e.loading import find_files
from viper_e2e.packing.action_units import ACTION_UNIT_FILES
from viper_e2e.packing.finding import Files
from viper_e2e.packing.options import PackOptions
from viper_e2e.packing.report import Findings
from viper_e2e.packing.segments import Clip, is_timed, with_stretches
from viper_e2e.runtime import SOUND_EXTENSIONS, VIDEO_EXTENSIONS, all_of, fault_of, first_of, printable
from viper_e2e.tables import LabelTable, Row, without_brackets, without_ending

_ByStem = dict[str, list[Path]]


def match_clips(
    table: LabelTable, labels: Path, videos: Path, options: PackOptions, findings: Findings
) -> list[Clip]:
    """The clips whose files are all there, once each; ``findings`` have all others."""
    video_files = _by_stem(videos, VIDEO_EXTENSIONS, findings)
    files = {"video": Files(videos, video_files)}
    for kind, folder, extensions in (
        ("sound", options.audio, (*SOUND_EXTENSIONS, "ogg")),
        ("action units", options.fau, ACTION_UNIT_FILES),
    ):
        if folder:
            files[kind] = Files(folder, _by_stem(folder, extensions, findings))
    clips: list[Clip] = []
    named: set[Path] = set()
    for row in table.rows:
        found, has_own_files = _found(row, files, labels)
        named.update(found["video"])
        if why := _why_not(row, found, files["video"]):
            findings.leave_out(f"{row.file_id}: {why}")
            continue
        for kind, paths in found.items():
            if not paths:
                findings.count(f"without a file of {kind} in {files[kind].folder}")
        sound, units = (next(iter(found.get(kind, ())), None) for kind in ("sound", "action units"))
        clips.append(Clip(row, found["video"][0], sound, units, has_own_files=has_own_files))
    _tell_unnamed(
        [path for paths in video_files.values() for path in paths if path not in named], videos, findings
    )
    return with_stretches(_once_each(clips, findings), options.limits, findings)


def _found(row: Row, files: Mapping[str, Files], labels: Path) -> tuple[dict[str, list[Path]], bool]:
    """Files of a row by their kind, all that it may mean; and whether those beside the video are its own: what
    is cut out of a long file may have sound of its own, cut already."""
    found = {kind: folder.find(row.name, labels) for kind, folder in files.items()}
    if not is_timed(row.segment):
        return found, False
    name = without_brackets(row.file_id)
    own = {kind: folder.find(name, labels) for kind, folder in files.items() if kind != "video"}
    return (found | own, True) if any(own.values()) else (found, False)


def _why_not(row: Row, found: Mapping[str, Sequence[Path]], videos: Files) -> str:
    """Why these files make no clip; empty: they do."""
    doubled = [f"{kind} {all_of(paths)}" for kind, paths in found.items() if len(paths) > 1]
    if doubled:
        return f"more than one file: {'; '.join(doubled)}: keep one, or name its folder as well"
    if not found["video"]:
        looked_for = f"{without_ending(row.name)}.* in {videos.folder} (looked for .mp4, .mov, .mkv, .avi, …)"
        return f"no video {looked_for}{videos.hint(row.name)}"
    return ""


def _tell_unnamed(paths: Sequence[Path], videos: Path, findings: Findings) -> None:
    """Files that no row means."""
    for path in paths:
        if fault := fault_of(path.stem):
            findings.leave_out(f"{printable(str(path))!r}: unusable name: it {fault}; rename the file")
        else:
            findings.count("with a video but no usable row in the labels")
    if paths:
        first = first_of(printable(path.relative_to(videos).as_posix()) for path in paths)
        findings.note([f"clips that no row names: {first}"])


def _once_each(clips: list[Clip], findings: Findings) -> list[Clip]:
    """Clips that are no part of their file that another is as well."""
    by_part = defaultdict(list)
    for clip in clips:
        by_part[clip.video, clip.row.segment].append(clip)
    for (path, segment), same in by_part.items():
        if len(same) > 1:
            lines = ", ".join(str(clip.row.line) for clip in same)
            part = "" if segment is None else " with the same Start, End and Side"
            findings.leave_out(f"lines {lines}: all name {path}{part}; none of them is packed")
    return [clip for clip in clips if len(by_part[clip.video, clip.row.segment]) == 1]


def _by_stem(folder: Path, extensions: tuple[str, ...], findings: Findings) -> _ByStem:
    """Files with one of the extensions, in the folder and below, by name without it; odd files are reported."""
    if not folder.is_dir():
        raise ViperError(f"{folder}: no such folder; give the folder that holds the files")
    found = find_files(folder, extensions)
    findings.leave_out(*found.closed)
    if extensions is VIDEO_EXTENSIONS:
        findings.leave_out(*found.sound_alone(folder))
        findings.note(found.left_out(folder))
    files = defaultdict(list)
    for path in found.files:
        files[path.name.rpartition(".")[0]].append(path)
    return dict(files)
