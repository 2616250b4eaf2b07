"""Many channels become one by the standard's coefficients, speech keeps its level, and none is fatal."""

from __future__ import annotations

import subprocess

import av
import numpy as np
import pytest
from imageio_ffmpeg import get_ffmpeg_exe

from viper_e2e.config import DecodingConfig, LimitsConfig
from viper_e2e.decoding import ClipDecoder
from viper_e2e.decoding.downmix import mono_weights

ROOT_HALF = 2**-0.5
WEIGHTS = {
    "mono": [1],
    "stereo": [0.5, 0.5],
    "downmix": [0.5, 0.5],
    "2.1": [0.5, 0.5, 0],
    "3.0": [ROOT_HALF, ROOT_HALF, 1],
    "quad": [0.5, 0.5, 0.5 * ROOT_HALF, 0.5 * ROOT_HALF],
    "5.0": [ROOT_HALF, ROOT_HALF, 1, 0.5, 0.5],
    "5.1": [ROOT_HALF, ROOT_HALF, 1, 0, 0.5, 0.5],
    "5.1(side)": [ROOT_HALF, ROOT_HALF, 1, 0, 0.5, 0.5],
    "6 channels": [ROOT_HALF, ROOT_HALF, 1, 0, 0.5, 0.5],
    "6.1": [ROOT_HALF, ROOT_HALF, 1, 0, ROOT_HALF, 0.5, 0.5],
    "7.1": [ROOT_HALF, ROOT_HALF, 1, 0, 0.5, 0.5, 0.5, 0.5],
    "8 channels": [0.125] * 8,
    "ambisonic 1": [1, 0, 0, 0],
}


@pytest.mark.parametrize("layout", WEIGHTS)
def test_channels_count_as_the_standard_says(layout):
    assert mono_weights(av.AudioLayout(layout)) == pytest.approx(WEIGHTS[layout])


@pytest.mark.parametrize("layout", ["7.1.4", "22.2", "hexadecagonal", "octagonal", "7.1(wide)", "cube"])
def test_every_channel_of_large_layouts_has_its_weight(layout):
    channels = av.AudioLayout(layout).channels
    for channel, weight in zip(channels, mono_weights(av.AudioLayout(layout)), strict=True):
        assert (weight == 0) == channel.name.startswith("LFE")
        assert weight <= 1


def surround(path, layout: str, codec: str, heard: int | None = None):
    """A tenth of a second of picture and one second of sound, of amplitude 0.25, in one channel or in all."""
    num_channels = av.AudioLayout(layout).nb_channels
    tone = "0.25*sin(440*2*PI*t)"
    tones = "|".join(tone if heard in (None, channel) else "0" for channel in range(num_channels))
    words = (
        f"-y -v error -f lavfi -i testsrc2=s=64x64:r=10:d=1 -f lavfi -i aevalsrc={tones}:d=1:s=48000:c={layout}"
    )
    codecs = f"-c:v mpeg4 -c:a {codec} -strict -2 -threads 1"
    subprocess.run([get_ffmpeg_exe(), *words.split(), *codecs.split(), str(path)], check=True, timeout=60)
    return path


def rms(path, sound: str = "spans", **limits) -> float:
    (run,) = ClipDecoder(DecodingConfig(sound=sound, max_side=64, limits=LimitsConfig(**limits)))(path).sound
    return float(np.sqrt(np.square(run.samples[2_000:14_000]).mean()))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layout", "codec", "name"),
    [
        ("7.1", "aac", "a.mp4"),
        ("7.1", "pcm_s16le", "a.mkv"),
        ("7.1", "libopus", "b.mkv"),
        ("7.1", "flac", "c.mkv"),
        ("octagonal", "pcm_s16le", "a.mov"),
        ("7.1(wide)", "aac", "a.mov"),
    ],
)
@pytest.mark.parametrize("sound", ["spans", "windows"])
def test_eight_channels_do_not_kill_the_process(layout, codec, name, sound, tmp_path):
    assert rms(surround(tmp_path / name, layout, codec), sound) > 0.1


def test_channels_up_to_the_limit_can_be_had(tmp_path):
    path = surround(tmp_path / "many.mkv", "22.2", "pcm_s16le")
    assert rms(path, max_channels=24) == pytest.approx(0.25 * ROOT_HALF, rel=0.02)


@pytest.mark.parametrize(
    ("layout", "codec"), [("5.1", "aac"), ("5.1(side)", "ac3"), ("7.1", "aac"), ("3.0", "aac")]
)
def test_speech_in_the_centre_keeps_its_level(layout, codec, tmp_path):
    path = surround(tmp_path / "centre.mp4", layout, codec, heard=2)
    assert rms(path) == pytest.approx(0.25 * ROOT_HALF, rel=0.02)
    # As published: the mean of all channels.
    count = av.AudioLayout(layout).nb_channels
    assert rms(path, "windows") == pytest.approx(0.25 * ROOT_HALF / count, rel=0.03)


def test_low_frequency_effects_are_not_heard(tmp_path):
    assert rms(surround(tmp_path / "deep.mkv", "5.1", "flac", heard=3)) == 0.0


def test_six_channels_without_a_layout_are_taken_for_surround(tmp_path):
    assert rms(surround(tmp_path / "bare.mkv", "5.1", "pcm_s16le", heard=2)) == pytest.approx(0.177, rel=0.02)
