"""packing/recipe_frames.py: a recipe's files with labels of every frame -> a row for each window of time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from viper_e2e.errors import ClipError, ViperError
from viper_e2e.packing.frame_labels import WINDOW_SECONDS, frame_seconds, read_frame_labels, rows_of_windows
from viper_e2e.packing.recipe_sources import Fields, Folder, Source, some
from viper_e2e.runtime import count_of


@dataclass(frozen=True, kw_only=True)
class FrameWindows(Source):
    """Each window of each video that has a file with labels of its frames is a row.

    Fields: ``name`` of the file, ``path`` of its video, ``start`` and ``end`` in seconds, ``n`` (the window's
    number), ``ending``, and the labels by their titles.
    """

    table: str
    """Path of the files in the corpus, ``*`` allowed."""
    endings: tuple[str, ...] = ()
    """Endings of a file's name that its video's name lacks, such as ``_left``; in the field ``ending``."""

    def records(self, folder: Folder) -> Iterator[tuple[str, Fields]]:
        by_stem = {Path(file).stem: file for file in folder.files}
        left_out = _LeftOut()
        for path in folder.tables(self.table, optional=False):
            where = path.relative_to(folder.path).as_posix()
            ending = next((one for one in self.endings if path.stem.endswith(one)), "")
            video = by_stem.get(path.stem) or by_stem.get(path.stem.removesuffix(ending))
            if video is None:
                left_out.without_video.append(where)
                continue
            try:
                labels = read_frame_labels(path)
                seconds = frame_seconds(folder.path / video)
            except (ClipError, ViperError) as error:
                folder.notes.append(f"{where} is left out: {error}")
                continue
            if len(labels.values) != len(seconds):
                counts = f"{count_of(len(labels.values), 'line')}, {count_of(len(seconds), 'frame')}"
                left_out.uneven.append(f"{where} ({counts})")
            seconds = seconds[: len(labels.values)]
            unlabelled = {_window_of(time) for time in seconds.tolist()}
            for row in rows_of_windows([labels], seconds):
                n = _window_of(float(str(row["Start"])))
                unlabelled.discard(n)
                fields = {"name": path.stem, "path": video, "ending": ending, "n": str(n)}
                cells = {title: "" if cell is None else str(cell) for title, cell in row.items()}
                yield where, {**fields, **cells, "start": cells["Start"], "end": cells["End"]}
            left_out.unlabelled += [f"{where} from {n * WINDOW_SECONDS:g} s" for n in sorted(unlabelled)]
        folder.notes.extend(left_out.lines())


def _window_of(seconds: float) -> int:
    return int(seconds / WINDOW_SECONDS + 1e-9)


@dataclass
class _LeftOut:
    """Files that give no row."""

    without_video: list[str] = field(default_factory=list)
    uneven: list[str] = field(default_factory=list)
    """Files that have not one line per frame."""
    unlabelled: list[str] = field(default_factory=list)
    """Windows of files."""

    def lines(self) -> Iterator[str]:
        for named, one, many in (
            (self.without_video, "label file has no video", "label files have no video"),
            (
                self.uneven,
                "file does not have one line per frame of its video; extra lines or frames are left out",
                "files do not have one line per frame of their videos; extra lines or frames are left out",
            ),
            (
                self.unlabelled,
                "window has labels for fewer than half of its frames and is left out",
                "windows have labels for fewer than half of their frames and are left out",
            ),
        ):
            if named:
                yield f"{count_of(len(named), one, many)}: {some(named)}"
