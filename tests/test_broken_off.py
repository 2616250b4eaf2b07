"""Recordings that break off or begin late: what is whole is read, and what is missing is told."""

from __future__ import annotations

import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from viper_e2e.config import DecodingConfig, LimitsConfig
from viper_e2e.decoding import ClipDecoder, probe

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
FRAGMENTS = ("-movflags", "frag_keyframe+empty_moov+default_base_moof")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "whole.mp4"
    sources = ["-f", "lavfi", "-i", "testsrc2=size=96x64:rate=15:duration=3"]
    sources += ["-f", "lavfi", "-i", "sine=frequency=440:duration=3"]
    coding = ["-c:v", "libx264", "-g", "15", "-bf", "2", "-pix_fmt", "yuv420p", "-c:a", "aac"]
    subprocess.run([FFMPEG, "-v", "error", *sources, *coding, path], check=True)
    return path


def copied(whole: Path, out: Path, *how: str) -> Path:
    subprocess.run([FFMPEG, "-v", "error", "-i", whole, "-c", "copy", *how, out], check=True)
    return out


def decoded(path: Path, num_frames: int = 100):
    return ClipDecoder(DecodingConfig(num_frames=num_frames))(path)


@pytest.mark.parametrize("ending", ["mkv", "webm", "ts", "mp4"])
def test_a_part_that_begins_hours_into_a_recording_is_as_long_as_it_is(ending, whole, tmp_path):
    how = ["-output_ts_offset", "20000", "-avoid_negative_ts", "disabled"]
    if ending == "webm":
        how = ["-c:v", "libvpx", "-deadline", "realtime", "-an", *how]
    path = copied(whole, tmp_path / f"late.{ending}", *how)
    clip = decoded(path)
    assert clip.duration_seconds == pytest.approx(3, abs=0.05)
    assert len(clip.frames) == 45
    if ending in ("mkv", "webm"):
        assert probe(path, LimitsConfig()).duration_seconds == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize("share", [0.55, 0.7, 0.85, 0.95])
def test_a_recording_in_fragments_is_read_up_to_where_it_broke_off(share, whole, tmp_path):
    path = copied(whole, tmp_path / "whole.mp4", *FRAGMENTS)
    full = decoded(path)
    assert full.notes == ()
    data = path.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: int(len(data) * share)])
    cut = decoded(tmp_path / "cut.mp4")
    assert 15 <= len(cut.frames) <= 45  # the last bytes are sound
    for seconds, frame in zip(cut.frame_seconds, cut.frames, strict=True):
        same = np.argmin(np.abs(full.frame_seconds - seconds))
        assert (frame == full.frames[same]).all()
    assert (
        share > 0.9 or any("the file is cut short" in note for note in cut.notes) or len(cut.frames) % 15 == 0
    )


@pytest.mark.parametrize("share", [0.6])  # elsewhere a packet of sound is torn as well
def test_a_span_of_a_camcorder_that_ends_in_a_frame_is_read_without_it(share, whole, tmp_path):
    path = copied(whole, tmp_path / "whole.m2ts", "-f", "mpegts", "-mpegts_m2ts_mode", "1")
    full = decoded(path)
    data = path.read_bytes()
    (tmp_path / "cut.m2ts").write_bytes(data[: int(len(data) * share) // 192 * 192])
    cut = decoded(tmp_path / "cut.m2ts")
    assert 15 <= len(cut.frames) < 45
    for seconds, frame in zip(cut.frame_seconds, cut.frames, strict=True):
        same = np.argmin(np.abs(full.frame_seconds - seconds))
        assert (frame == full.frames[same]).all()
