"""Recordings that break off or begin late: what is whole is read, and what is missing is told."""

from __future__ import annotations

import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from viper_e2e.config import DecodingConfig, LimitsConfig
from viper_e2e.decoding import ClipDecoder, probe
from viper_e2e.errors import ClipError

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


def samples(clip) -> np.ndarray:
    """The first four seconds of its sound, zeros where there is none."""
    row = np.zeros(4 * 16_000, np.float32)
    for run in clip.sound:
        first = max(round(run.start_seconds * 16_000), 0)
        row[first : first + len(run.samples)] = run.samples[: len(row) - first]
    return row


def decoded(path: Path, num_frames: int = 100):
    return ClipDecoder(DecodingConfig(num_frames=num_frames))(path)


@pytest.mark.slow
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


KINDS = {
    "ts": ("-c:a", "copy"),
    "m2ts": ("-c:a", "ac3", "-f", "mpegts", "-mpegts_m2ts_mode", "1"),
    "flv": ("-c:a", "copy"),
    "mpg": ("-c:v", "mpeg2video", "-c:a", "mp2", "-f", "vob"),
    "mp4": ("-c:a", "copy", *FRAGMENTS),
    "mkv": ("-c:a", "copy", "-live", "1"),
}
"""Containers whose headers promise no length, as recorders write them."""


@pytest.mark.slow
@pytest.mark.parametrize("ending", KINDS)
def test_a_recording_that_breaks_off_at_any_byte_is_read_up_to_there(ending, whole, tmp_path):
    coding = ("-c:v", "copy") if "-c:v" not in KINDS[ending] else ()
    path = tmp_path / f"whole.{ending}"
    subprocess.run([FFMPEG, "-v", "error", "-i", whole, *coding, *KINDS[ending], path], check=True)
    full = decoded(path)
    assert full.notes == ()
    data = path.read_bytes()
    told = set()
    for num_bytes in np.linspace(0.4, 0.97, 9) * len(data):
        cut = ClipDecoder(DecodingConfig(num_frames=100))(data[: int(num_bytes)], name="cut")
        assert 15 <= len(cut.frames) <= 45
        for seconds, frame in zip(cut.frame_seconds, cut.frames, strict=True):
            same = np.argmin(np.abs(full.frame_seconds - seconds))
            assert (frame == full.frames[same]).all()
        assert sum(len(run.samples) for run in cut.sound) > 8_000
        heard, whole_sound = samples(cut), samples(full)
        # The decoder of MP2 paints over a torn frame; the resampler's last samples know nothing of the next.
        length = np.flatnonzero(heard)[-1] - 600
        assert np.abs(heard[:length] - whole_sound[:length]).max() < 1e-4
        told |= set(cut.notes)
    assert told or ending == "mkv"  # FFmpeg's reader leaves out a torn block of Matroska and says nothing


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["aac", "flac", "mp3"])
def test_sound_beside_a_clip_that_breaks_off_at_any_byte_is_heard_up_to_there(ending, whole, tmp_path):
    path = tmp_path / f"sound.{ending}"
    subprocess.run([FFMPEG, "-v", "error", "-i", whole, "-vn", path], check=True)
    data = path.read_bytes()
    for share in (0.41, 0.6, 0.83):
        clip = ClipDecoder(DecodingConfig(num_frames=4))(whole, sound=data[: int(len(data) * share)])
        assert sum(len(run.samples) for run in clip.sound) / 16_000 == pytest.approx(3 * share, abs=0.25)


def test_a_frame_that_is_torn_amid_a_recording_is_still_refused(whole, tmp_path):
    data = copied(whole, tmp_path / "whole.ts").read_bytes()
    middle = len(data) // 2 // 188 * 188
    hole = data[: middle - 20 * 188] + data[middle:]
    with pytest.raises(ClipError, match=r"damaged|broken|cannot be decoded"):
        ClipDecoder(DecodingConfig(num_frames=100))(hole, name="hole")


@pytest.mark.parametrize("ending", ["flv", "mkv"])
def test_what_lies_behind_the_end_of_a_joined_file_is_told(ending, whole, tmp_path):
    data = copied(whole, tmp_path / f"whole.{ending}").read_bytes()
    clip = ClipDecoder(DecodingConfig(num_frames=4))
    assert clip(data).notes == ()
    joined = clip(data * 3)
    assert any("it seems to be several files joined" in note for note in joined.notes) == (
        joined.duration_seconds < 8.9
    )
