"""Of several sound tracks the one that a player plays is heard, a silent one gives way, a number decides."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest
from imageio_ffmpeg import get_ffmpeg_exe
from support.selection import some_of

from viper_e2e.config import DecodingConfig
from viper_e2e.decoding import ClipDecoder
from viper_e2e.errors import ClipError, ViperError

PICTURE = "-f lavfi -i testsrc2=s=64x64:r=5:d=3"
SILENCE = "-f lavfi -i anullsrc=r=48000:cl=stereo"


def tone(hertz: int) -> str:
    return f"-f lavfi -i sine={hertz}:d=3"


def make(path, *sounds: str, how: str = "", codec: str = "aac"):
    """A clip with these sound tracks."""
    maps = " ".join(f"-map {number}" for number in range(len(sounds) + 1))
    words = f"-y -v error -threads 1 {PICTURE} {' '.join(sounds)} {maps} -t 3 -c:v mpeg4 -c:a {codec} {how}"
    subprocess.run([get_ffmpeg_exe(), *words.split(), str(path)], check=True, timeout=60)
    return path


def hertz_of(clip) -> int:
    (run,) = clip.sound
    if np.abs(run.samples).max() < 1e-3:
        return 0
    spectrum = np.abs(np.fft.rfft(run.samples[:16_000]))
    return int(spectrum.argmax())


def decoded(path, **settings):
    return ClipDecoder(DecodingConfig(max_side=64, **settings))(path)


CHOICES = {
    "the first": ("a.mkv", (tone(300), tone(500)), "-disposition:a 0", 300),
    "the default": ("a.mkv", (tone(300), tone(500)), "-disposition:a:0 0 -disposition:a:1 default", 500),
    "first is silent": ("a.mkv", (SILENCE, tone(500)), "", 500),
    "first is silent, in mp4": ("a.mp4", (SILENCE, tone(500)), "", 500),
    "first is silent, in ts": ("a.ts", (SILENCE, tone(500)), "", 500),
    "first two are silent": ("a.mov", (SILENCE, SILENCE, tone(500)), "", 500),
    "the default is silent": (
        "a.mkv",
        (tone(300), SILENCE),
        "-disposition:a:0 0 -disposition:a:1 default",
        300,
    ),
    "all are silent": ("a.mkv", (SILENCE, SILENCE), "", 0),
    "commentary first": ("a.mkv", (tone(300), tone(500)), "-disposition:a:0 comment -disposition:a:1 0", 500),
    "descriptions first": ("a.mkv", (tone(300), tone(500)), "-disposition:a:0 visual_impaired", 500),
    "commentary beside silence": ("a.mkv", (SILENCE, tone(500)), "-disposition:a:1 comment", 0),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", some_of(CHOICES, lambda index, _: index % 2 == 0))
def test_the_track_of_the_rule_is_heard_and_named(name, tmp_path):
    file, sounds, how, expected = CHOICES[name]
    path = make(tmp_path / file, *sounds, how=how)
    clip = decoded(path)
    assert hertz_of(clip) == expected
    (note,) = clip.notes
    assert note.startswith(f"of {len(sounds)} sound tracks ")
    assert "--audio-track" in note
    assert ("silent" in note) == ("silent" in name and name != "all are silent")


def test_a_track_that_is_silent_at_first_is_not_taken_for_silent(tmp_path):
    late = r"-f lavfi -i aevalsrc=gt(t\,2.2)*0.2*sin(300*2*PI*t):d=3"
    path = make(tmp_path / "late.mkv", late, tone(500))
    assert "1 (aac mono) was used" in decoded(path).notes[0]


@pytest.mark.slow
def test_a_number_takes_a_track(tmp_path):
    path = make(tmp_path / "three.mkv", tone(300), SILENCE, tone(500))
    assert [hertz_of(decoded(path, audio_track=number)) for number in (1, 2, 3)] == [300, 0, 500]
    for start, clip in ClipDecoder(DecodingConfig(max_side=64, audio_track=3)).windows(path, 1.0, 1.0):
        assert hertz_of(clip) == 500, start
    with pytest.raises(ClipError, match=r"has no sound track 4, only 1 \(aac .*\), 2 .*--audio-track"):
        decoded(path, audio_track=4)
    with pytest.raises(ViperError, match="counted from 1"):
        decoded(path, audio_track=0)


def test_windows_hear_the_track_that_the_whole_clip_hears(tmp_path):
    path = make(tmp_path / "obs.mkv", SILENCE, tone(500))
    for _, clip in ClipDecoder(DecodingConfig(max_side=64)).windows(path, 1.0, 1.0):
        assert hertz_of(clip) == 500


def test_one_track_needs_no_word(tmp_path):
    assert decoded(make(tmp_path / "one.mkv", tone(300))).notes == ()
