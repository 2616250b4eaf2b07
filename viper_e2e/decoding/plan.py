"""plan.py: plan of the frames and the seconds of sound that a clip, or each window of a long one, needs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import assert_never

import numpy as np

from viper_e2e.clip import UNHEARD, WORTH_TELLING_SECONDS
from viper_e2e.config import DecodingConfig
from viper_e2e.decoding.timeline import Span, Timeline

SLACK_SECONDS = 0.25
"""A clip lasts as long as its sound, where that outlasts the pictures by more than this; less is the filling of
a codec's last block. By as much may an instant of sound miss the edge of the clip to fall on a frame."""
STEADY_SECONDS = 1.02
"""The same, where the last frame stands for no longer than those before it."""
EARLY_SECONDS = 1.0
"""A clip begins with its sound, where that begins earlier than the pictures by more than this; cuts that copy
whole packets leave less."""

EXACT_SECONDS = 1e-6
"""Times of frames and edges of segments that differ by less are equal."""
SMALL_SHARE = 0.25
"""Share of a hop by which the last window of a clip may be longer or shorter than the others."""


@dataclass(frozen=True)
class Window:
    """A stretch of a clip that is handed out as a clip."""

    start_seconds: float
    end_seconds: float
    """On the clip's clock (0 = first frame)."""
    frames: np.ndarray
    """int64: indices in the timeline, ascending, at least one."""
    instants: np.ndarray
    """float64, ``num_frames``: when sound is listened to, on the clip's clock, evenly spaced."""
    spans: tuple[Span, ...]
    """Seconds of sound, on the clip's clock, ascending, apart."""
    sound_bounds: Span
    """Bounds of the sound in this stretch; equal if there is none."""
    unheard_seconds: float
    """Seconds of it that no token covers."""


class Plan:
    """The windows of a clip; a clip that is not tiled, or fits into one window, is its own only window."""

    def __init__(
        self,
        config: DecodingConfig,
        timeline: Timeline,
        sound_extent: Span,
        tiling: tuple[float, float] | None,
        segment: Span | None = None,
    ):
        """`sound_extent`: where there is sound; `tiling`: length and hop of the windows in seconds, or None;
        `segment`: from when to when the clip is in its file, None: all of it."""
        self.config, self.timeline, self.sound_extent = config, timeline, sound_extent
        self.seconds = timeline.seconds
        """float64: when each frame of the timeline is shown."""
        start, end = _extent(timeline.duration_seconds, sound_extent)
        self.is_segment = segment is not None
        """Whether the clip is a part of its file; its times then count from where it begins."""
        if segment is not None:
            start, end = segment[0], min(segment[1], max(end, segment[0]))
        self.duration_seconds = end - start
        bounds = window_bounds(end - start, *tiling) if tiling else [(0.0, end - start)]
        self.is_tiled = len(bounds) > 1
        self._bounds = [(start + low, start + high) for low, high in bounds]

    def windows(self, first: int = 0) -> Iterator[Window]:
        """Windows in order of time, from number `first` on; made one by one, as there may be many."""
        for number in range(first, len(self._bounds)):
            yield self._window(number)

    def wanted(self, first: int = 0) -> tuple[np.ndarray, list[Span]]:
        """Needs of all windows together: a bool mask over the timeline's frames, and merged spans of sound."""
        mask = np.zeros(len(self.seconds), bool)
        spans: list[Span] = []
        for window in self.windows(first):
            mask[window.frames] = True
            spans += window.spans
        return mask, merge_spans(sorted(spans))

    def _window(self, number: int) -> Window:
        (start, end), is_last = self._bounds[number], number == len(self._bounds) - 1
        first, last = self._frames_between(number)
        if first >= last:
            # No new picture in this window: the one that still stands, or, before there was any, the first.
            first = max(last - 1, 0)
            last = first + 1
        instants = self._instants(start, end, first, last)
        frames = self._sampled(number, start, first, last)
        bounds = (
            max(self.sound_extent[0], start) if self.is_part else self.sound_extent[0],
            self.sound_extent[1] if is_last and not self.is_segment else min(self.sound_extent[1], end),
        )
        spans, bounds, unheard = self._sound(instants, (bounds[0], max(bounds)))
        if number == 0 and self.is_tiled and not self.is_segment:
            unheard += max(0.0, min(start, self.sound_extent[1]) - self.sound_extent[0])
        return Window(start, end, frames, instants, spans, bounds, unheard)

    def _sampled(self, number: int, start: float, first: int, last: int) -> np.ndarray:
        """The window's frames to look at, by the rule that the settings name."""
        match self.config.sampling:
            case "paper":
                return first + frames_by_index(last - first, self.config.num_frames)
            case "time":
                if first > 0 and number and self.seconds[first] - start > SLACK_SECONDS:
                    # The picture from before is what the window begins with.
                    first -= 1
                shown_from = self.timeline.pts[first:last]
                if number:
                    begun = self.timeline.pts[0] + round(start / float(self.timeline.tick_seconds))
                    shown_from = np.maximum(shown_from, begun)
                return first + frames_by_time(shown_from, self.config.num_frames)
        assert_never(self.config.sampling)

    @property
    def is_part(self) -> bool:
        """Whether a window is less than the file, so that its times count from its own start."""
        return self.is_tiled or self.is_segment

    def _frames_between(self, number: int) -> tuple[int, int]:
        """The first frame of a window, and the one after its last."""
        (start, end), is_last = self._bounds[number], number == len(self._bounds) - 1
        # Half a tick: a frame whose rounded time falls on the edge belongs after it. A segment's own edges are
        # what a person gave: only what binary fractions lose is allowed for.
        edge = float(self.timeline.tick_seconds) / 2
        first, last = 0, len(self.seconds)
        if number or self.is_segment:
            first = int(np.searchsorted(self.seconds, start - (edge if number else EXACT_SECONDS)))
        if not is_last or self.is_segment:
            last = int(np.searchsorted(self.seconds, end - (EXACT_SECONDS if is_last else edge)))
        return first, last

    def _instants(self, start: float, end: float, first: int, last: int) -> np.ndarray:
        """Instants from edge to edge of a window, or from and to the frames close to them."""
        low, high = float(self.seconds[first]), float(self.seconds[last - 1])
        # Of a steady row of pictures the last one lasts as long as any other.
        steps = np.diff(self.seconds[first:last])
        step = float(np.median(steps)) if len(steps) > 1 else 0.0
        slack = max(SLACK_SECONDS, min(1.01 * step, STEADY_SECONDS))
        rounding = float(self.timeline.tick_seconds)
        low = low if -rounding <= low - start <= slack else start
        high = high if -rounding <= end - high <= slack else end
        return np.linspace(low, high, self.config.num_frames)

    def _sound(self, instants: np.ndarray, bounds: Span) -> tuple[tuple[Span, ...], Span, float]:
        """Spans, bounds and unheard seconds of a window."""
        if self.config.sound == "none" or bounds[0] == bounds[1]:
            return (), bounds, 0.0
        if self.config.sound == "windows":
            heard = published_windows(bounds, len(instants))
            # The whole stream, to its true last sample, which packets tell only roughly.
            spans = [bounds if self.is_part else (-math.inf, math.inf)]
        else:
            spans = heard = spans_around(instants.tolist(), self.config.span_seconds, bounds)
        unheard = bounds[1] - bounds[0] - sum(end - start for start, end in heard)
        return tuple(spans), bounds, max(unheard, 0.0)


def _extent(picture_seconds: float, sound: Span) -> Span:
    """Extent of a clip: from the earlier begin to the later end of picture and sound."""
    start, end = 0.0, picture_seconds
    if sound[0] < sound[1]:
        start = sound[0] if sound[0] < -EARLY_SECONDS else start
        end = sound[1] if sound[1] > picture_seconds + SLACK_SECONDS else end
    return start, end


def sound_notes(window: Window, config: DecodingConfig) -> tuple[str, ...]:
    """Notes on sound of a clip, or of a window, that no token covers."""
    if window.unheard_seconds < WORTH_TELLING_SECONDS:
        return ()
    total = window.sound_bounds[1] - window.sound_bounds[0]
    note = f"{window.unheard_seconds:.1f} of {total:.1f} s{UNHEARD}"
    # Spans touch where their instants are no further apart than they are long; published windows are cut to a
    # second.
    by_spans, by_windows = (config.num_frames - 1) * config.span_seconds, (config.num_frames + 1) / 2
    whole = int(by_spans if config.sound == "spans" else by_windows)
    if 1 <= whole < window.end_seconds - window.start_seconds:
        note += f" (--window-seconds {whole} uses all)"
    return (note,)


def frames_by_time(pts: np.ndarray, num_frames: int) -> np.ndarray:
    """The frames shown at `num_frames` instants spread evenly from the first frame to the last.

    `pts`: int64, ascending, in ticks. An instant t shows the last frame with pts ≤ t + half a tick.
    Returns int64 indices, ascending and distinct: fewer than `num_frames` where a frame fills several instants.
    """
    instants = np.linspace(0.0, float(pts[-1] - pts[0]), num_frames)
    return np.unique(np.searchsorted(pts - pts[0], instants + 0.5, side="right") - 1)


def frames_by_index(num_available: int, num_frames: int) -> np.ndarray:
    """The published rule: index 0, then round(N/(T-1)·k), last N-1 (Vaiani et al. 2022, frame extraction).

    Where the published script crashes or saves too many (short clips), the distinct indices that the rule
    gives, at most `num_frames`.
    """
    if num_frames == 1:
        return np.zeros(1, np.int64)
    steps = np.round(num_available / (num_frames - 1) * np.arange(num_frames - 1)).astype(np.int64)
    return np.unique(np.minimum(np.append(steps, num_available - 1), num_available - 1))


def window_bounds(duration_seconds: float, window_seconds: float, hop_seconds: float) -> list[Span]:
    """Windows over a clip, one every hop; the last one ends where the clip does.

    A clip seldom ends where a window would. If it does so but for `SMALL_SHARE` of a hop, the last window is
    that much longer or shorter (a further one would show nearly the same again); else one more window of full
    length ends with the clip. A clip shorter than a window is one window.
    """
    if duration_seconds <= window_seconds:
        return [(0.0, duration_seconds)]
    last = duration_seconds - window_seconds
    count, share_left = divmod(last / hop_seconds, 1.0)
    starts = [i * hop_seconds for i in range(int(count) + 1)]
    if share_left >= 1 - SMALL_SHARE:
        starts.append(len(starts) * hop_seconds)
    elif share_left > SMALL_SHARE:
        starts.append(last)
    return [*((start, start + window_seconds) for start in starts[:-1]), (starts[-1], duration_seconds)]


def published_windows(bounds: Span, num_windows: int) -> list[Span]:
    """The seconds inside the published windows: half-overlapping, each cut to a second; merged.

    As `AudioEncoder` cuts them (Vaiani et al. 2022): length 2 · seconds / (`num_windows` + 1).
    """
    length = (bounds[1] - bounds[0]) * 2 / (num_windows + 1)
    starts = (bounds[0] + i * length / 2 for i in range(num_windows))
    return merge_spans((start, min(start + min(length, 1.0), bounds[1])) for start in starts)


def spans_around(instants: Iterable[float], span_seconds: float, bounds: Span) -> list[Span]:
    """The sound around each instant, inside `bounds`; touching spans are merged."""
    half = span_seconds / 2
    return merge_spans((max(t - half, bounds[0]), min(t + half, bounds[1])) for t in instants)


def merge_spans(spans: Iterable[Span]) -> list[Span]:
    """Spans in order of their start, touching ones joined, empty ones left out."""
    merged: list[Span] = []
    for start, end in spans:
        if end <= start:
            continue
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
