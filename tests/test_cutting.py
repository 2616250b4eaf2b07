"""test_cutting.py: stretches of long files are copied, not encoded: frames come out bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from support.media import make_clip

from viper_e2e.clip import Segment
from viper_e2e.config import DecodingConfig, LimitsConfig
from viper_e2e.cutting import LongFile, cut
from viper_e2e.decoding import ClipDecoder

ALL = DecodingConfig(num_frames=500, max_side=None, sample_rate=16_000, span_seconds=10.0)
LIMITS = LimitsConfig()
OPEN = {"g": "25", "bf": "3", "x264-params": "scenecut=0:open-gop=1"}
FILMS = {
    "open groups": ("mp4", {"options": OPEN}),
    "closed groups": ("mp4", {"options": {"g": "25", "x264-params": "scenecut=0"}}),
    "mov": ("mov", {"options": OPEN}),
    "matroska": ("mkv", {"options": OPEN}),
    "webm": (
        "webm",
        {
            "codec": "libvpx-vp9",
            "audio_codec": "libopus",
            "rate": 48_000,
            "options": {"g": "25", "cpu-used": "8"},
        },
    ),
    "flv": ("flv", {"options": {"g": "25"}}),
    "ts": ("ts", {"options": {"g": "25"}}),
    "44.1 kHz": ("mp4", {"options": OPEN, "rate": 44_100}),
}


def chirp(rate: int) -> np.ndarray:
    """Six seconds of a tone that rises, so that no second is like another."""
    t = np.arange(6 * rate) / rate
    return (0.4 * np.sin(2 * np.pi * (100 * t + 20 * t * t)))[None].astype(np.float32)


@pytest.mark.parametrize("name", FILMS)
def test_a_cut_shows_the_frames_of_its_stretch_bit_for_bit(tmp_path, name):
    ending, more = FILMS[name]
    path = make_clip(
        tmp_path / f"film.{ending}",
        num_frames=150,
        fps=25,
        sound=chirp(more.get("rate", 16_000)),
        **{"rate": 16_000, **more},
    )
    film = LongFile(path, LIMITS)
    for start, end in ((2.2, 3.4), (0.0, 1.0), (5.0, 6.0), (3.96, 4.04), (1.99, 2.31)):
        meant = ClipDecoder(ALL)(path, segment=Segment(start, end))
        stretch = film.stretch(start, end)
        assert stretch.muxer is not None
        made = cut(stretch, LIMITS)
        shown = ClipDecoder(ALL)(made.data, segment=made.segment)
        np.testing.assert_array_equal(shown.frames, meant.frames)
        np.testing.assert_allclose(shown.frame_seconds, meant.frame_seconds, atol=1e-3)
        assert shown.duration_seconds == pytest.approx(meant.duration_seconds, abs=2e-3)
        assert_same_sound(shown, meant)
        assert cut(stretch, LIMITS).data == made.data
        assert len(made.data) < path.stat().st_size


def assert_same_sound(shown, meant):
    """To the sample, but where a container counts milliseconds; resampled from another sample on."""
    (one,), (other,) = shown.sound, meant.sound
    assert abs(len(one.samples) - len(other.samples)) <= 16
    assert one.start_seconds == pytest.approx(other.start_seconds, abs=1e-3)
    middle = one.samples[16:-32]
    best = min(np.abs(middle - other.samples[at : at + len(middle)]).max() for at in range(32))
    assert best < 0.03
