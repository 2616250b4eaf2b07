"""plan.py: which frames and which seconds of sound a clip, or each window of a long one, needs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..config import DecodingConfig
from .sampling import Span, frames_by_index, frames_by_time, merge_spans, spans_around, window_bounds
from .timeline import Timeline


@dataclass(frozen=True)
class Window:
    """A stretch of a clip that is handed out as a clip."""

    start_seconds: float
    end_seconds: float
    """On the clip's clock (0 = first frame)."""
    frames: np.ndarray
    """int64: indices in the timeline, ascending, at least one."""
    spans: tuple[Span, ...]
    """Seconds of sound, on the clip's clock, ascending, apart."""


class Plan:
    """The windows of a clip; a clip that is not tiled is its own only window."""

    def __init__(
        self, config: DecodingConfig, timeline: Timeline, sound_extent: Span, tiling: tuple[float, float] | None
    ):
        """`sound_extent`: where there is sound; `tiling`: length and hop of the windows in seconds, or None."""
        self.config, self.timeline, self.sound_extent = config, timeline, sound_extent
        self.is_tiled = tiling is not None
        self.seconds = timeline.seconds
        """float64: when each frame of the timeline is shown."""
        duration = timeline.duration_seconds
        self._bounds = window_bounds(duration, *tiling) if tiling else [(0.0, duration)]

    def windows(self, first: int = 0) -> Iterator[Window]:
        """In order of time, from number `first` on; made one by one, as there may be many."""
        for number in range(first, len(self._bounds)):
            yield self._window(*self._bounds[number], is_last=number == len(self._bounds) - 1)

    def wanted(self, first: int = 0) -> tuple[np.ndarray, list[Span]]:
        """What all windows together need: a bool mask over the timeline's frames, and merged spans of sound."""
        mask = np.zeros(len(self.seconds), bool)
        spans: list[Span] = []
        for window in self.windows(first):
            mask[window.frames] = True
            spans += window.spans
        return mask, merge_spans(sorted(spans))

    def _window(self, start: float, end: float, *, is_last: bool) -> Window:
        # Half a tick: a frame whose rounded time falls on the edge belongs behind it.
        edge = float(self.timeline.tick_seconds) / 2
        first = int(np.searchsorted(self.seconds, start - edge))
        last = len(self.seconds) if is_last else int(np.searchsorted(self.seconds, end - edge))
        if first >= last:
            # No new picture in this window: the one that still stands.
            first = max(last - 1, 0)
            last = first + 1
        if self.config.sampling == "paper":
            frames = first + frames_by_index(last - first, self.config.num_frames)
        else:
            frames = first + frames_by_time(self.timeline.pts[first:last], self.config.num_frames)
        return Window(start, end, frames, tuple(self._spans(frames, start, end)))

    def _spans(self, frames: np.ndarray, start: float, end: float) -> list[Span]:
        if self.config.sound == "none":
            return []
        bounds = self.sound_extent
        if self.is_tiled:
            bounds = (max(bounds[0], start), min(bounds[1], end))
        if self.config.sound == "windows":
            # The whole stream, to its true last sample, which packets tell only roughly.
            return merge_spans([bounds if self.is_tiled else (-math.inf, math.inf)])
        return spans_around(self.seconds[frames].tolist(), self.config.span_seconds, bounds)
