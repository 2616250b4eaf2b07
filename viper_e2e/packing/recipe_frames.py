"""packing/recipe_frames.py: files with labels of every frame of a video -> a row for each window of time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from viper_e2e.config import LimitsConfig
from viper_e2e.decoding import LongFile
from viper_e2e.errors import ClipError
from viper_e2e.packing.recipe_sources import Fields, Folder, Source, some
from viper_e2e.packing.recipe_tables import read_text

Values = list[tuple[float, ...]]
Read = Callable[[str], "list[tuple[float, ...] | None]"]
"""Text of a file of labels → those of each frame, in order; ``None`` for a frame without."""
LEAST_SHARE = 0.5
"""Of a window's frames that must have labels, and of a window's length that its last one must have."""


@dataclass(frozen=True, kw_only=True)
class FrameLabels(Source):
    """Each window of each video that has a file with labels of its frames is a row.

    Fields: ``name`` of the file, ``path`` of its video, ``start`` and ``end`` in seconds, ``n`` (the window's
    number), and ``columns``. When a frame is shown is read from the video, not reckoned from a rate.
    """

    table: str
    """Path of the files in the corpus, ``*`` allowed."""
    read: Read
    columns: tuple[str, ...]
    """What the values of a frame are."""
    combine: Literal["mean", "most"] = "mean"
    """What a window's value is: the mean of its frames', or the one most of them have."""
    endings: tuple[str, ...] = ()
    """Of a file's name that are not in that of its video, such as ``_left``; in the field ``ending``."""
    window_seconds: float = 2.0

    def records(self, folder: Folder) -> Iterator[tuple[str, Fields]]:
        by_stem = {Path(file).stem: file for file in folder.files}
        without, other, unlabelled = [], [], []
        for path in folder.tables(self.table, optional=False):
            where = path.relative_to(folder.path).as_posix()
            ending = next((one for one in self.endings if path.stem.endswith(one)), "")
            video = by_stem.get(path.stem) or by_stem.get(path.stem.removesuffix(ending))
            if video is None:
                without.append(where)
                continue
            try:
                film = LongFile(folder.path / video, LimitsConfig())
            except ClipError as error:
                folder.told.append(f"{video}: {error}")
                continue
            labels, seconds = self.read(read_text(path, folder.told)), film.timeline.seconds
            if len(labels) != len(seconds):
                other.append(f"{where} ({len(labels)} for {len(seconds)} frames)")
            windows: dict[int, list[tuple[float, ...] | None]] = {}
            for time, label in zip(seconds.tolist(), labels, strict=False):
                windows.setdefault(int(time / self.window_seconds), []).append(label)
            length = film.timeline.duration_seconds
            for n, found in windows.items():
                start, end = n * self.window_seconds, min((n + 1) * self.window_seconds, length)
                own = [label for label in found if label is not None]
                if len(own) < LEAST_SHARE * len(found):
                    unlabelled.append(f"{where} from {start:g} s")
                elif n == 0 or end - start >= LEAST_SHARE * self.window_seconds:
                    fields = {"name": path.stem, "path": video, "ending": ending, "n": str(n)}
                    fields |= {"start": f"{start:g}", "end": f"{end:.6g}"}
                    yield where, {**fields, **self._values(own)}
        for named, text in (
            (without, "files of labels have no video"),
            (
                other,
                "files have more or fewer lines than their videos have frames; the shorter counts",
            ),
            (unlabelled, "windows have labels for fewer than half of their frames and are left out"),
        ):
            if named:
                folder.told.append(f"{len(named)} {text}: {some(named)}")

    def _values(self, labels: Values) -> Fields:
        """Of a window, each column by itself."""
        made = {}
        for column, values in zip(self.columns, zip(*labels, strict=True), strict=True):
            most, _ = Counter(values).most_common(1)[0]
            made[column] = f"{most if self.combine == 'most' else sum(values) / len(values):.6g}"
        return made
