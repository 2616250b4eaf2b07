"""test_cutting_odd_films.py: films that are turned, interlaced, uneven or of odd pixels are cut as shown."""

from __future__ import annotations

import numpy as np
import pytest
from support.odd_clips import ODD_CLIPS, make

from viper_e2e.clip import Segment
from viper_e2e.config import DecodingConfig, LimitsConfig
from viper_e2e.cutting import LongFile, cut
from viper_e2e.decoding import ClipDecoder

ALL = DecodingConfig(num_frames=500, max_side=None, sound="none")
LIMITS = LimitsConfig()
NAMES = [
    "turned 90 mp4",
    "turned 270 b-frames mov",
    "pixels 4 to 3 prores mov",
    "pixels 4 to 3 wmv",
    "pixels 12 to 11 avi",
    "fields top first mpeg2 ts",
    "fields mpeg4 avi",
    "fields mpeg2 vob",
    "uneven times mp4",
    "uneven times mkv",
    "starts late mkv",
    "cut without coding mp4",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_cut_is_shown_as_its_film_is(tmp_path, name):
    (odd,) = (odd for odd in ODD_CLIPS if odd.name == name)
    path = make(odd, tmp_path, 40, "" if "prores" in name else "-g 10")
    film = LongFile(path, LIMITS)
    seconds = film.timeline.seconds
    middle = len(seconds) // 2
    # On a frame, and between two.
    for start, end in (
        (seconds[middle], seconds[middle + 3]),
        (seconds[middle] - 0.004, seconds[middle] + 0.2),
    ):
        made = cut(film.stretch(start, end), LIMITS)
        assert not made.is_uncut
        side = "right" if "turned" in name else "full"
        meant = ClipDecoder(ALL)(path, segment=Segment(start, end, side))
        shown = ClipDecoder(ALL)(made.data, segment=Segment(*made.segment.span, side))
        assert shown.display_size == meant.display_size
        np.testing.assert_array_equal(shown.frames, meant.frames)
        np.testing.assert_allclose(shown.frame_seconds, meant.frame_seconds, atol=1e-3)
