"""close_up_frames.py: decodes frames of a clip again at higher resolution and keeps the part around a face."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from viper_e2e.clip import FrameSource, Side
from viper_e2e.config import DecodingConfig
from viper_e2e.decoding.attempts import Attempt, ReadAgain, RescanNeeded
from viper_e2e.decoding.container import Source, open_clip
from viper_e2e.decoding.media import ClipMedia
from viper_e2e.decoding.pyav import FrameReader
from viper_e2e.decoding.scan import read_timeline
from viper_e2e.decoding.timeline import Timeline
from viper_e2e.decoding.tracks import Tracks

MAX_BYTES_ALONG = 64 * 2**20
"""A clip that has no path goes along with its frames up to this size, so that they can be decoded again."""

NUM_TIMELINES = 4
"""Files whose timeline is remembered: a long one is asked for again with each of its windows."""

Window = tuple[int, int, int, int]


def frame_source_of(source: Source, indices: np.ndarray, side: Side = "full") -> FrameSource | None:
    """``None`` for bytes that are too many to go along."""
    if isinstance(source, bytes):
        is_small = len(source) <= MAX_BYTES_ALONG
        return FrameSource(np.frombuffer(source, np.uint8), indices, side) if is_small else None
    return FrameSource(Path(source), indices, side)


def close_up(
    config: DecodingConfig, frames: FrameSource, windows: dict[int, Window], max_side: int, name: str
) -> np.ndarray:
    """The pixels of some frames inside their windows, one after the other, uint8 RGB.

    ``windows``: x0 y0 x1 y1 by the place of a frame among ``frames.indices``, in pixels of the frame scaled to
    ``max_side``. One whole frame at a time is in memory. Always through PyAV, whatever the backend. Raises what
    decoding the clip raises.
    """
    attempt = Attempt()
    while True:
        try:
            return _cut(config, frames, windows, max_side, name, attempt)
        except ReadAgain as reason:
            attempt = attempt.after(reason, name)


def _cut(
    config: DecodingConfig,
    frames: FrameSource,
    windows: dict[int, Window],
    max_side: int,
    name: str,
    attempt: Attempt,
) -> np.ndarray:
    source = frames.source.tobytes() if isinstance(frames.source, np.ndarray) else frames.source
    with ExitStack() as files:

        def reopened() -> ClipMedia:
            files.close()
            tracks = Tracks(config.video_track, None, False)
            return files.enter_context(open_clip(source, config.limits, name, tracks))

        media = reopened()
        key = _identity(source, config.video_track, attempt)
        timeline = _TIMELINES.get(key)
        if timeline is None:
            timeline = read_timeline(
                media,
                source,
                with_sound=False,
                by_decoding=attempt.by_decoding,
                without_last=attempt.is_torn,
            )
            _TIMELINES.put(key, timeline)
            if timeline.by_order or not media.kept.is_complete:
                media = reopened()
        places = sorted(windows)
        if frames.indices[places].max() >= len(timeline.pts):
            raise RescanNeeded
        mask = np.zeros(len(timeline.pts), bool)
        mask[frames.indices[places]] = True
        reader = FrameReader(media, timeline, mask, max_side, has_fields=attempt.has_fields, side=frames.side)
        return _inside(reader, frames.indices, windows)


class _Timelines:
    """Timelines of the files asked for last; threads share it."""

    def __init__(self) -> None:
        self._known: OrderedDict[Hashable, Timeline] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable | None) -> Timeline | None:
        with self._lock:
            return None if key is None else self._known.get(key)

    def put(self, key: Hashable | None, timeline: Timeline) -> None:
        with self._lock:
            if key is not None:
                self._known[key] = timeline
                while len(self._known) > NUM_TIMELINES:
                    self._known.popitem(last=False)


_TIMELINES = _Timelines()


def _identity(source: Source, video_track: int | None, attempt: Attempt) -> Hashable | None:
    """Identity of this file, its state and this way to read it; ``None`` for bytes and unreadable files."""
    if isinstance(source, bytes):
        return None
    try:
        status = Path(source).stat()
    except OSError:
        return None
    return str(source), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, video_track, attempt


def _inside(reader: FrameReader, indices: np.ndarray, windows: dict[int, Window]) -> np.ndarray:
    """Raises `RescanNeeded`."""
    sizes = [(x1 - x0) * (y1 - y0) * 3 for x0, y0, x1, y1 in windows.values()]
    ends = dict(zip(windows, np.cumsum(sizes).tolist(), strict=True))
    pixels, missing = np.empty(sum(sizes), np.uint8), set(windows)
    for index, image in reader:
        for place in np.flatnonzero(indices == index).tolist():
            if place in windows:
                x0, y0, x1, y1 = windows[place]
                piece = image[y0:y1, x0:x1]
                pixels[ends[place] - piece.size : ends[place]] = piece.reshape(-1)
                missing.discard(place)
    if missing:
        raise RescanNeeded
    return pixels
