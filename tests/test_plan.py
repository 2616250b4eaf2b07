"""Which frames and which seconds of sound are asked for, as plain arithmetic."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest

from viper_e2e.decoding.plan import (
    frames_by_index,
    frames_by_time,
    merge_spans,
    spans_around,
    window_bounds,
)


def test_the_published_rule_gives_the_published_indices(reference):
    expected = json.loads((reference / "peer" / "expected" / "expected.json").read_text())["frame_indices"]
    assert frames_by_index(72, 32).tolist() == expected


@pytest.mark.parametrize("num_available", [1, 2, 3, 15, 16, 31, 32, 33, 40, 46, 47, 72, 300, 18_000])
@pytest.mark.parametrize("num_frames", [1, 2, 8, 32])
def test_the_published_rule_never_crashes_and_never_gives_too_many(num_available, num_frames):
    indices = frames_by_index(num_available, num_frames)
    assert 1 <= len(indices) <= min(num_available, num_frames)
    assert indices[0] == 0
    assert (np.diff(indices) > 0).all()
    assert indices[-1] == (num_available - 1 if num_frames > 1 else 0)


def test_the_published_rule_fills_all_places_from_47_frames_on():
    assert all(len(frames_by_index(n, 32)) == 32 for n in range(47, 400))


def test_an_instant_shows_the_last_frame_that_began_before_it():
    # Instants at 0, 25, 50, 75, 100 ticks; the frame at 76 has not begun at 75, the one at 75.4 would have.
    pts = np.array([0, 10, 24, 26, 50, 76, 100])
    assert frames_by_time(pts, 5).tolist() == [0, 2, 4, 6]


def test_half_a_tick_forgives_rounded_times():
    # 30 frames a second counted in milliseconds: 33, 67, 100 stand for 33.3, 66.7, 100.
    pts = np.round(np.arange(31) * 1000 / 30).astype(np.int64)
    assert frames_by_time(pts, 31).tolist() == list(range(31))


def test_times_far_from_zero_choose_the_same_frames():
    pts = np.sort(np.random.default_rng(0).choice(100_000, 500, replace=False))
    assert (frames_by_time(pts, 32) == frames_by_time(pts + 2**40, 32)).all()


def test_fewer_frames_than_instants_are_each_given_once():
    assert frames_by_time(np.array([5, 9, 11]), 32).tolist() == [0, 1, 2]
    assert frames_by_time(np.array([5]), 32).tolist() == [0]


@pytest.mark.parametrize("duration", [1.0, 11.9, 12.0, 12.3, 18.0, 19.4, 19.6, 60.0, 61.7])
def test_windows_cover_the_clip_and_the_last_ends_with_it(duration):
    bounds = window_bounds(duration, 12.0, 6.0)
    assert bounds[0][0] == 0.0
    assert bounds[-1][1] == duration
    lengths = [end - start for start, end in bounds]
    assert lengths[:-1] == pytest.approx([12.0] * (len(bounds) - 1))
    assert min(duration, 12.0 - 6.0 / 4) <= lengths[-1] <= 12.0 + 6.0 / 4
    hops = [later[0] - earlier[0] for earlier, later in pairwise(bounds)]
    assert all(6.0 / 4 < hop <= 6.0 + 1e-9 for hop in hops), "no window is nearly the one before it"


@pytest.mark.parametrize(
    ("duration", "hop", "expected"),
    [
        (8.008, 2.0, [(0, 2), (2, 4), (4, 6), (6, 8.008)]),
        (8.008, 1.0, [(0, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 7), (6, 8.008)]),
        (7.999, 2.0, [(0, 2), (2, 4), (4, 6), (6, 7.999)]),
        (7.4, 2.0, [(0, 2), (2, 4), (4, 6), (5.4, 7.4)]),
        (8.4, 2.0, [(0, 2), (2, 4), (4, 6), (6, 8.4)]),
        (8.6, 2.0, [(0, 2), (2, 4), (4, 6), (6, 8), (6.6, 8.6)]),
        (2.0, 2.0, [(0, 2)]),
        (2.3, 2.0, [(0, 2.3)]),
    ],
)
def test_the_last_window_is_a_little_longer_or_shorter_or_one_more(duration, hop, expected):
    assert np.array(window_bounds(duration, 2.0, hop)) == pytest.approx(np.array(expected))


def test_rounding_makes_no_window_of_its_own():
    for hops in range(1, 500):
        bounds = window_bounds(2.0 + hops * 0.1, 2.0, 0.1)
        assert len(bounds) == hops + 1
        assert bounds[-1][1] == 2.0 + hops * 0.1


def test_touching_spans_become_one_and_stay_inside_the_stream():
    assert spans_around([0.0, 1.0, 5.0, 9.5], 2.0, (-0.2, 10.0)) == [(-0.2, 2.0), (4.0, 6.0), (8.5, 10.0)]
    assert spans_around([0.0, 9.0], 2.0, (3.0, 4.0)) == []


def test_merging_keeps_the_longer_end():
    assert merge_spans([(0.0, 5.0), (1.0, 2.0), (5.0, 6.0), (7.0, 7.0)]) == [(0.0, 6.0)]
