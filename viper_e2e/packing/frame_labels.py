"""packing/frame_labels.py: labels of every frame (Aff-Wild2, AFEW-VA) -> rows of a table, one a window."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from viper_e2e.config import LimitsConfig
from viper_e2e.cutting import LongFile
from viper_e2e.errors import ViperError
from viper_e2e.labels import name_of
from viper_e2e.loading import find_files
from viper_e2e.packing.media_worker import in_worker
from viper_e2e.runtime import VIDEO_EXTENSIONS, count_of, plain_json
from viper_e2e.tables import TaskColumns

WINDOW_SECONDS = 2.0
MIN_SHARE = 0.5
"""A window with a label in fewer of its frames has none."""
MAX_BYTES = 100_000_000
"""Largest file of labels."""
SPLITS = {"train": "train", "val": "val", "test": "test", "dev": "val"}
"""Beginnings of a folder's name (``Train_Set``, ``Validation_Set``) and the split that they mean."""

Row = dict[str, object]


@dataclass(frozen=True)
class FrameLabels:
    """One file of labels, a row for each frame."""

    name: str
    """Name of the task: ``expression``, ``units``; ``valence`` and ``arousal`` are two tasks."""
    kind: Literal["number", "class", "labels"]
    columns: tuple[str, ...]
    """Numbers: their names; a class: its words; labels: their titles."""
    values: np.ndarray
    """float64, ``T K``, NaN where there is none; of a class ``T 1``, the number of its word."""


def read_frame_labels(path: Path) -> FrameLabels:
    """A file as Aff-Wild2 has it (a header, a line for each frame), or AFEW-VA (json, −10 … 10 made −1 … 1).

    Raises `ViperError` for any other.
    """
    advice, is_json = "is this a file of labels?", path.suffix.lower() == ".json"
    read = plain_json.read_object if is_json else plain_json.read_text
    found = read(path, max_bytes=MAX_BYTES, advice=advice)
    try:
        return _of_lines(found) if isinstance(found, str) else _of_json(found)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        reason = f"{type(error).__name__}: {error}"
        message = "no labels by frame: a header and a line of numbers for each, or json with 'frames'"
        raise ViperError(f"{path}: {message} ({reason})") from error


def _of_json(data: Mapping[str, Any]) -> FrameLabels:
    frames = sorted(data["frames"].items())
    values = np.array([[float(one["valence"]), float(one["arousal"])] for _, one in frames]) / 10
    return FrameLabels("valence_arousal", "number", ("valence", "arousal"), values)


def _of_lines(text: str) -> FrameLabels:
    header, *lines = [line.strip() for line in text.splitlines() if line.strip()]
    titles = tuple(title.strip() for title in header.split(","))
    values = np.array([[float(cell) for cell in line.split(",")] for line in lines], np.float64)
    values = values.reshape(len(lines), -1)
    if {name_of(title) for title in titles} == {"valence", "arousal"}:
        kind: Literal["number", "class", "labels"] = "number"
        bad = np.abs(values) > 1
    elif values.shape[1] == 1 and len(titles) > 1:
        kind, bad = "class", (values < 0) | (values >= len(titles)) | (values != values.round())
    else:
        kind, bad = "labels", (values < 0) | (values > 1)
    wide = 1 if kind == "class" else len(titles)
    if values.shape[1] != wide:
        raise ValueError(f"{values.shape[1]} values a line, {len(titles)} titles")
    name = {"number": "valence_arousal", "class": "expression", "labels": "units"}[kind]
    # Where there is no label stands −5 (valence, arousal) or −1; one such value leaves the frame without.
    return FrameLabels(name, kind, titles, np.where(bad.any(1, keepdims=True), np.nan, values))


def frame_seconds(video: Path) -> np.ndarray:
    """When each frame of a film is shown; `ClipError` where it cannot be read."""
    return in_worker.on_file(video, _frame_seconds, video)


def _frame_seconds(video: Path) -> np.ndarray:
    return LongFile(video, LimitsConfig()).timeline.seconds


def rows_of_windows(
    labels: Sequence[FrameLabels], frame_seconds: np.ndarray, window_seconds: float = WINDOW_SECONDS
) -> list[Row]:
    """``Start``, ``End`` and the labels of each window of one file: of numbers and labels the means over its
    frames, of a class what most frames have.

    ``frame_seconds``: float64, when each frame is shown. A window in which fewer than half of the frames have
    a label has none; one without any is left out. Edges are times of frames, so that each is in one window.
    """
    if not window_seconds > 0:
        raise ViperError(f"--window-seconds {window_seconds}: give more than 0")
    number_of = np.floor(frame_seconds / window_seconds + 1e-9).astype(int)
    rows = []
    for number in np.unique(number_of):
        frames = np.flatnonzero(number_of == number)
        last = int(frames[-1]) + 1
        cells: Row = {}
        for one in labels:
            cells |= _cells(one, one.values[frames[0] : last], len(frames))
        if any(cell is not None for cell in cells.values()):
            end = f"{frame_seconds[last]:.6f}" if last < len(frame_seconds) else None
            rows.append({"Start": f"{frame_seconds[frames[0]]:.6f}", "End": end, **cells})
    return rows


def _cells(labels: FrameLabels, values: np.ndarray, num_frames: int) -> Row:
    known = values[~np.isnan(values).any(1)]
    is_known = len(known) >= max(1, MIN_SHARE * num_frames)
    if labels.kind == "class":
        word = None
        if is_known:
            word = labels.columns[Counter(known[:, 0].astype(int).tolist()).most_common(1)[0][0]]
        return {labels.name: word}
    means = known.mean(0) if is_known else [None] * len(labels.columns)
    return {
        title: None if mean is None else round(float(mean), 6)
        for title, mean in zip(labels.columns, means, strict=True)
    }


def tasks_of(labels: Iterable[FrameLabels]) -> tuple[TaskColumns, ...]:
    """The tasks of a table made of these, for `ColumnChoices.tasks`."""
    found: dict[str, TaskColumns] = {}
    for one in labels:
        if one.kind == "number":
            found |= {
                name: TaskColumns(name_of(name), "number", (name,), span=(-1.0, 1.0)) for name in one.columns
            }
        elif one.kind == "class":
            found[one.name] = TaskColumns(one.name, "class", (one.name,), classes=one.columns)
        else:
            found[one.name] = TaskColumns(one.name, "labels", one.columns)
    return tuple(found.values())


@dataclass(frozen=True)
class FrameLabelTable:
    """The table made of a folder of label files."""

    rows: tuple[Row, ...]
    tasks: tuple[TaskColumns, ...]
    notes: tuple[str, ...]


def frame_label_table(
    folder: Path,
    videos: Path,
    *,
    window_seconds: float = WINDOW_SECONDS,
    split: str = "",
) -> FrameLabelTable:
    """The rows of all files of labels in a folder and below, those of one name joined.

    ``videos``: the folder with the videos, which have the names of the files. ``split``: of all; empty: as the
    folders are called (``Train_Set``). Raises `ViperError` for a file that cannot be read, and for a video in
    several splits.
    """
    by_name: dict[str, list[tuple[Path, FrameLabels]]] = defaultdict(list)
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".txt", ".json")):
        by_name[path.stem].append((path, read_frame_labels(path)))
    if not by_name:
        raise ViperError(f"{folder}: no label files in it (.txt with a line for each frame, or .json)")
    rows, notes, all_labels = [], [], []
    video_of = _videos_by_stem(videos)
    for name, found in by_name.items():
        splits = {split or _split_of(path, folder) for path, _ in found}
        if len(splits) > 1:
            places = ", ".join(str(path.relative_to(folder)) for path, _ in found)
            raise ViperError(f"{folder}: {name} is in several splits ({places}); give one task's folder")
        video = video_of.get(name)
        if video is None:
            notes.append(f"{found[0][0]}: no video of this name; left out")
            continue
        seconds = frame_seconds(video)
        labels = [one for _, one in found]
        lengths = {len(one.values) for one in labels} - {len(seconds)}
        if lengths:
            notes.append(
                f"{name}: {count_of(len(seconds), 'frame')}, labels of {min(lengths)}: the "
                "first of both are matched"
            )
        num_frames = min(len(seconds), *(len(one.values) for one in labels))
        all_labels += labels
        rows += [
            {"Path": video.relative_to(videos).as_posix(), "Split": splits.copy().pop(), **row}
            for row in rows_of_windows(labels, seconds[:num_frames], window_seconds)
        ]
    tasks = tasks_of(all_labels)
    titles = ["Path", "Split", "Start", "End", *(title for task in tasks for title in task.titles)]
    return FrameLabelTable(tuple({t: row.get(t) for t in titles} for row in rows), tasks, tuple(notes))


def _split_of(path: Path, folder: Path) -> str:
    for part in reversed(path.relative_to(folder).parts[:-1]):
        found = next((split for begin, split in SPLITS.items() if part.lower().startswith(begin)), None)
        if found is not None:
            return found
    raise ViperError(f"{path}: no parent folder names its split (Train_Set, Validation_Set); add --split train")


def _videos_by_stem(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise ViperError(f"{folder}: no such folder; give the folder that holds the videos")
    return {path.stem: path for path in reversed(find_files(folder, VIDEO_EXTENSIONS).files)}
