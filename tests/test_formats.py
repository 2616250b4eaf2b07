"""Containers that older cameras, programs and corpora left: each frame as FFmpeg has it, or the way said."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from support.optional import package

from viper_e2e.config import DecodingConfig, LimitsConfig
from viper_e2e.decoding import ClipDecoder, probe
from viper_e2e.errors import ClipError

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
SIZE = (96, 64)
DV_SIZE = (720, 576)


def ffmpeg(*words: object) -> bytes:
    command = [FFMPEG, "-v", "error", "-y", *map(str, words)]
    return subprocess.run(command, check=True, capture_output=True).stdout


def make(
    path: Path, *coding: str, size: tuple[int, int] = SIZE, sound: bool = True, seconds: float = 1
) -> Path:
    width, height = size
    picture = f"testsrc2=size={width}x{height}:rate=25:duration={seconds}"
    tone = ["-f", "lavfi", "-i", f"sine=frequency=440:duration={seconds}"] if sound else []
    ffmpeg("-f", "lavfi", "-i", picture, *tone, *coding, path)
    return path


READ = {
    "wmv2.wmv": ("-c:v", "wmv2", "-q:v", "3", "-c:a", "wmav2"),
    "wmv1.asf": ("-c:v", "wmv1", "-q:v", "3", "-c:a", "wmav1"),
    "h264.wmv": ("-c:v", "libx264", "-bf", "2", "-c:a", "wmav2"),
    "mpeg1.mpg": ("-c:v", "mpeg1video", "-q:v", "3", "-c:a", "mp2"),
    "mpeg2.mpg": ("-c:v", "mpeg2video", "-q:v", "3", "-bf", "2", "-c:a", "mp2", "-f", "svcd"),
    "dvd.vob": ("-c:v", "mpeg2video", "-q:v", "3", "-bf", "2", "-c:a", "ac3", "-f", "vob"),
    "moving.gif": ("-an",),
}
KINDS = {"wmv": "asf", "asf": "asf", "mpg": "mpeg", "vob": "mpeg", "gif": "gif"}


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["pyav", "decord"])
@pytest.mark.parametrize("name", READ)
def test_every_frame_is_ffmpegs_own(name, backend, tmp_path):
    if backend == "decord":
        package("decord")
    path = make(tmp_path / name, *READ[name])
    raw = ffmpeg("-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-fps_mode", "passthrough", "-")
    expected = np.frombuffer(raw, np.uint8).reshape(-1, SIZE[1], SIZE[0], 3).astype(int)
    assert len(expected) >= 25
    clip = ClipDecoder(DecodingConfig(num_frames=len(expected), max_side=None, backend=backend))(path)
    assert len(clip.frames) == len(expected)
    apart = np.abs(clip.frames.astype(int) - expected).mean(axis=(1, 2, 3))
    assert apart.max() < 1.5, "the same frame, but for the rounding of its conversion"
    assert np.abs(clip.frame_seconds - np.arange(len(expected)) / 25).max() < 0.011
    few = ClipDecoder(DecodingConfig(num_frames=5, max_side=None, backend=backend))(path)
    chosen = np.round(few.frame_seconds * 25).astype(int)
    assert (few.frames == clip.frames[chosen]).all()
    assert probe(path, LimitsConfig()).container == KINDS[name.rpartition(".")[2]]
    assert clip.has_sound == (name != "moving.gif")


@pytest.mark.parametrize("name", [name for name in READ if name != "moving.gif"])
def test_sound_is_heard_where_it_is(name, tmp_path):
    path = make(tmp_path / name, *READ[name])
    clip = ClipDecoder(DecodingConfig(num_frames=8))(path)
    heard = np.concatenate([run.samples for run in clip.sound])
    assert len(heard) / 16_000 == pytest.approx(1, abs=0.15)
    spectrum = np.abs(np.fft.rfft(heard))
    assert np.argmax(spectrum) * 16_000 / len(heard) == pytest.approx(440, abs=3)


def test_tapes_as_raw_dv_are_read(tmp_path):
    coding = ("-c:v", "dvvideo", "-pix_fmt", "yuv420p", "-ar", "48000", "-ac", "2", "-f", "dv")
    path = make(tmp_path / "tape.dv", *coding, size=DV_SIZE, seconds=0.2)
    clip = ClipDecoder(DecodingConfig(num_frames=5))(path)
    assert len(clip.frames) == 5
    assert clip.has_sound
    assert clip.frame_seconds.tolist() == pytest.approx([0, 0.04, 0.08, 0.12, 0.16])


def test_windows_of_a_program_stream_begin_where_they_should(tmp_path):
    path = make(tmp_path / "a.mpg", *READ["mpeg2.mpg"], seconds=3)
    whole = ClipDecoder(DecodingConfig(num_frames=75, max_side=None))(path)
    windows = list(ClipDecoder(DecodingConfig(num_frames=4, max_side=None)).windows(path, 1, 1))
    assert len(windows) == 3
    for start, clip in windows:
        first = np.searchsorted(whole.frame_seconds, start - 0.001)
        assert (clip.frames[0] == whole.frames[first]).all()


def test_a_gif_of_one_picture_is_no_clip(tmp_path):
    ffmpeg("-f", "lavfi", "-i", "testsrc2=size=96x64:rate=25:duration=1", "-frames:v", 1, tmp_path / "a.gif")
    with pytest.raises(ClipError, match="GIF picture, not a clip"):
        ClipDecoder(DecodingConfig())(tmp_path / "a.gif")


def test_a_windows_media_file_that_is_cut_short_is_told(tmp_path):
    path = make(tmp_path / "a.wmv", *READ["wmv2.wmv"])
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(ClipError, match="is cut short"):
        ClipDecoder(DecodingConfig())(path)


REFUSED = {
    "broad cast.mxf": ("an MXF file", ("-c:v", "mpeg2video", "-c:a", "pcm_s16le", "-ar", "48000")),
    "old.rm": ("a RealMedia file", ("-c:v", "rv20", "-c:a", "ac3")),
    "bare.h264": ("a bare video stream", ("-an", "-c:v", "libx264")),
    "bare.hevc": ("a bare video stream", ("-an", "-c:v", "libx265", "-x265-params", "log-level=none")),
    "bare.m2v": ("a bare video stream", ("-an", "-c:v", "mpeg2video")),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_converted_by_the_command_that_is_told(name, tmp_path):
    what, coding = REFUSED[name]
    path = make(tmp_path / name, *coding)
    with pytest.raises(ClipError, match=f"is {what}") as caught:
        probe(path, LimitsConfig())
    command = caught.value.reason.partition("convert it: ")[2].partition(" (25")[0]
    words = shlex.split(command)
    assert words[0] == "ffmpeg"
    subprocess.run([FFMPEG, "-v", "error", *words[1:]], check=True, cwd=tmp_path)
    converted = ClipDecoder(DecodingConfig(num_frames=4))(tmp_path / words[-1])
    assert len(converted.frames) == 4
