"""Pictures of unusual clips are those that FFmpeg's own program shows: upright, square, whole, in SDR."""

from __future__ import annotations

import numpy as np
import pytest
from support.odd_clips import ODD_CLIPS, OddClip, agreement, make, shown_by_ffmpeg
from support.selection import some_of

from viper_e2e.config import DecodingConfig, LimitsConfig
from viper_e2e.decoding import ClipDecoder, probe


def decoded(path, **settings):
    return ClipDecoder(DecodingConfig(**{"num_frames": 400, "max_side": None, "sound": "none", **settings}))(
        path
    )


# Each kind of oddity stands together in the table: some of all kinds are among every sixth.
@pytest.mark.slow
@pytest.mark.parametrize("odd", some_of(ODD_CLIPS, lambda i, _: i % 6 == 0, lambda odd: odd.name))
def test_the_picture_is_what_ffmpeg_shows(odd: OddClip, tmp_path):
    path = make(odd, tmp_path)
    truth = shown_by_ffmpeg(path, odd.truth, odd.track)
    clip = decoded(path)
    assert clip.display_size == truth[0].shape[1::-1]
    info = probe(path, LimitsConfig())
    assert (info.width, info.height) == clip.display_size
    assert len(clip.frames) == len(truth)
    alike = [agreement(ours, theirs) for ours, theirs in zip(clip.frames, truth, strict=True)]
    assert min(alike) >= odd.agreement, alike
    # Some of the frames alone, most of the others never decoded, are the very same.
    few = decoded(path, num_frames=4)
    places = np.searchsorted(clip.frame_seconds, few.frame_seconds)
    assert (few.frame_seconds == clip.frame_seconds[places]).all()
    assert (few.frames == clip.frames[places]).all()
