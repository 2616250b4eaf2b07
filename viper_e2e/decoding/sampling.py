"""sampling.py: which frames and which seconds of sound a clip's tokens need, as plain arithmetic."""

from __future__ import annotations

from collections.abc import Iterable

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


def window_bounds(duration_seconds: float, window_seconds: float, hop_seconds: float) -> list[Span]:
    """Windows of equal length over a clip; the last one ends where the clip does.

    A clip shorter than a window is one window.
    """
    if duration_seconds <= window_seconds:
        return [(0.0, duration_seconds)]
    last = duration_seconds - window_seconds
    starts = [i * hop_seconds for i in range(int(last / hop_seconds) + 1)]
    # A remainder below a millisecond is rounding, not a window.
    if last - starts[-1] > 1e-3:
        starts.append(last)
    return [(start, start + window_seconds) for start in starts]


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
