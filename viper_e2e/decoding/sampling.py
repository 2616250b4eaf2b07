"""sampling.py: which frames and which seconds of sound a clip's tokens need, as plain arithmetic."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np

Span = tuple[float, float]
"""Start and end in seconds."""


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


SMALL_SHARE = 0.25
"""Of a hop: by so much the last window of a clip may be longer or shorter than the others."""


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


def seconds_counted_once(spans: Sequence[Span]) -> list[float]:
    """For each of some spans, which may overlap, the seconds that are its own part of what all of them cover.

    A second that lies in n spans counts 1/n for each, so that the parts add up to the seconds covered: weights
    for a mean over time in which no second counts twice.
    """
    edges = sorted({edge for span in spans for edge in span})
    waiting = deque(sorted(range(len(spans)), key=lambda i: spans[i][0]))
    parts, under_way = [0.0] * len(spans), []
    for left, right in pairwise(edges):
        while waiting and spans[waiting[0]][0] <= left:
            under_way.append(waiting.popleft())
        under_way = [i for i in under_way if spans[i][1] > left]
        for i in under_way:
            parts[i] += (right - left) / len(under_way)
    return parts


def instants_between(start_seconds: float, end_seconds: float, num_instants: int) -> np.ndarray:
    """float64: `num_instants` times evenly spaced from the first to the last; one alone is the first."""
    return np.linspace(start_seconds, end_seconds, num_instants)


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
