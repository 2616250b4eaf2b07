"""Sound of odd clips is FFmpeg's own decode, where a player plays it, or is refused in one line."""

from __future__ import annotations

import subprocess

import av
import numpy as np
import pytest
from imageio_ffmpeg import get_ffmpeg_exe
from support.odd_sounds import ODD_SOUNDS, OddSound
from support.selection import some_of

from viper_e2e.config import DecodingConfig
from viper_e2e.decoding import ClipDecoder
from viper_e2e.decoding.downmix import mono_weights

RATE = 16_000
# Noise that lies below the edges that resamplers differ at.
NOISE = "anoisesrc=r={rate}:d=3:a=0.4:seed=3,lowpass=f=2500,aformat=channel_layouts={layout}"


def make(path, odd: OddSound):
    sound = NOISE.format(rate=odd.rate, layout=odd.layout) + (f",{odd.filters}" if odd.filters else "")
    words = [*odd.picture_options.split(), "-f", "lavfi", "-i", odd.picture]
    words += [*odd.sound_options.split(), "-f", "lavfi", "-i", sound]
    video = {"webm": "libvpx", "ogv": "libtheora", "flv": "flv"}.get(path.suffix[1:], "mpeg4")
    words += ["-c:v", video, "-c:a", odd.codec, "-strict", "-2", *odd.how.split()]
    subprocess.run(
        [get_ffmpeg_exe(), "-y", "-v", "error", "-threads", "1", *words, str(path)], check=True, timeout=60
    )
    return path


def played(path, layout: str) -> tuple[np.ndarray, float]:
    """FFmpeg's own decode to one channel by our weights, and when it begins after the first picture."""
    weights = mono_weights(av.AudioLayout(layout))
    mix = "pan=mono|c0=" + "+".join(f"{weight:.6f}*c{i}" for i, weight in enumerate(weights))
    command = [get_ffmpeg_exe(), "-v", "info", "-copyts", "-i", str(path), "-vn"]
    command += ["-af", f"{mix},ashowinfo,aresample={RATE}", "-f", "f32le", "-"]
    done = subprocess.run(command, check=True, capture_output=True, timeout=60)
    start = float(done.stderr.decode(errors="replace").partition("pts_time:")[2].split()[0])
    with av.open(str(path)) as container:
        start -= next(container.decode(video=0)).time
    return np.frombuffer(done.stdout, np.float32), start


@pytest.mark.slow
@pytest.mark.parametrize("odd", some_of(ODD_SOUNDS, lambda i, _: i % 6 == 0, lambda odd: odd.name))
def test_odd_sound_is_what_ffmpeg_plays(odd, tmp_path):
    path = make(tmp_path / odd.name, odd)
    bare = odd.layout not in ("mono", "stereo") and odd.codec.startswith("pcm")
    expected, start = played(path, "stereo" if bare else odd.layout)
    clip = ClipDecoder(DecodingConfig(max_side=64))(path)
    heard = np.zeros(RATE * 8, np.float32)
    for run in clip.sound:
        first = round((run.start_seconds + 1.0) * RATE)
        heard[first : first + len(run.samples)] = run.samples
    assert sum(len(run.samples) for run in clip.sound) == pytest.approx(len(expected), abs=0.07 * RATE)
    spectrum = np.fft.rfft(heard, 2**18) * np.conj(np.fft.rfft(expected, 2**18))
    at = int(np.fft.irfft(spectrum).argmax())
    assert at / RATE - 1.0 == pytest.approx(start, abs=0.02)
    ours, theirs = heard[at + 800 : at + 40_000], expected[800:40_000]
    assert np.corrcoef(ours, theirs)[0, 1] > 0.99
    assert np.sqrt(np.mean(ours**2)) == pytest.approx(np.sqrt(np.mean(theirs**2)), rel=0.05)
    assert clip.unheard_seconds == pytest.approx(0.0, abs=0.01)
    assert clip.notes == ()


def test_there_are_enough_of_them():
    assert len({odd.name for odd in ODD_SOUNDS}) == len(ODD_SOUNDS) >= 65
