"""Clocks that run wrong, start anew or leap: sound stays where its times say, and a file is read to its end."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
from support.media import make_clip

from viper_e2e.config import DecodingConfig
from viper_e2e.decoding import ClipDecoder

RATE = 16_000


def write_drifting(path, seconds: int, error: float, jitter_seconds: float = 0.0):
    """A click every 10 s by the packets' times, which run so much faster than the samples."""
    random = np.random.default_rng(0)
    sound = np.zeros(int(seconds * RATE / (1 + error)), np.float32)
    for at in range(5, seconds, 10):
        first = int(at * RATE / (1 + error))
        sound[first : first + 8] = 0.9
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=1)
        video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        audio = container.add_stream("pcm_s16le", rate=RATE, layout="mono")
        for index in range(seconds):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), index % 255, np.uint8), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for first in range(0, len(sound), 1600):
            block = (sound[None, first : first + 1600] * 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, first, Fraction(1, RATE)
            for packet in audio.encode(frame):
                noise = random.normal(0, jitter_seconds) * RATE if first else 0
                packet.pts = packet.dts = round(packet.pts * (1 + error) + noise)
                container.mux(packet)
    return path


def click_errors(clip, start: float = 0.0) -> list[float]:
    found = []
    for run in clip.sound:
        loud = np.flatnonzero(run.samples > 0.5)
        times = start + run.start_seconds + loud[np.diff(loud, prepend=-1000) > 100] / RATE
        found += (times - (np.round((times - 5) / 10) * 10 + 5)).tolist()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("error", [1e-3, -1e-3])
def test_errors_of_a_clock_do_not_add_up(error, tmp_path):
    path = write_drifting(tmp_path / "drift.mkv", 120, error)
    windows = ClipDecoder(DecodingConfig(max_side=32)).windows(path, 60.0, 60.0)
    errors = [e for start, clip in windows for e in click_errors(clip, start)]
    assert len(errors) == 12
    assert np.abs(errors).max() < 0.025


def test_an_unsteady_clock_does_not_cut_sound_into_pieces(tmp_path):
    path = write_drifting(tmp_path / "jitter.mkv", 60, 0.0, jitter_seconds=0.008)
    clip = ClipDecoder(DecodingConfig(max_side=32))(path)
    assert len(clip.sound) == 1
    assert np.abs(click_errors(clip)).max() < 0.025


def part(folder, kind: str, number: int, seconds: int) -> bytes:
    """White noise, another for each number."""
    random = np.random.default_rng(number)
    sound = (0.2 * random.standard_normal((1, seconds * RATE))).astype(np.float32)
    made = make_clip(
        folder / f"{number}.{kind}",
        num_frames=10 * seconds,
        fps=10,
        width=64,
        height=48,
        codec="mpeg2video" if kind == "ts" else "mpeg4",
        sound=sound,
        audio_codec="mp2" if kind == "ts" else "pcm_s16le",
    )
    return made.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ts", "mkv"])
def test_joined_recordings_are_read_to_their_end(kind, tmp_path):
    # Of three Matroska files in a row FFmpeg gives up two.
    lengths = (3, 2, 4) if kind == "ts" else (3, 2)
    parts = [part(tmp_path, kind, number, seconds) for number, seconds in enumerate(lengths)]
    singles = [ClipDecoder(DecodingConfig(max_side=64))(data) for data in parts]
    clip = ClipDecoder(DecodingConfig(num_frames=200, max_side=64))(b"".join(parts))
    assert len(clip.frames) == 10 * sum(lengths)
    assert clip.duration_seconds == pytest.approx(sum(lengths), abs=0.3)
    assert (np.diff(clip.frame_seconds) > 0.05).all()
    heard = np.concatenate([run.samples for run in clip.sound])
    assert len(heard) / RATE == pytest.approx(sum(lengths), abs=0.15)
    for single, start in zip(singles, (0.0, 3.0, 5.0), strict=False):
        expected = single.sound[0].samples[RATE // 2 : RATE]
        spectrum = np.fft.rfft(heard, 2**18) * np.conj(np.fft.rfft(expected, 2**18))
        assert np.fft.irfft(spectrum).argmax() / RATE == pytest.approx(start + 0.5, abs=0.15)


def test_a_leap_of_all_streams_is_another_clock_and_one_of_the_pictures_is_a_pause(tmp_path):
    leaping = part(tmp_path, "ts", 1, 3) + late_part(tmp_path)
    clip = ClipDecoder(DecodingConfig(max_side=64))(leaping)
    assert clip.duration_seconds == pytest.approx(5.0, abs=0.3)
    silence = np.zeros((1, RATE * 2), np.float32)
    pause = make_clip(tmp_path / "pause.ts", num_frames=2, fps=1, codec="mpeg2video", sound=silence)
    assert ClipDecoder(DecodingConfig(max_side=64))(pause).duration_seconds == pytest.approx(2.0, abs=0.3)


def late_part(folder) -> bytes:
    """Two seconds whose clock begins ten minutes later."""
    part(folder, "ts", 2, 2)
    with av.open(str(folder / "2.ts")) as source, av.open(str(folder / "late.ts"), "w") as target:
        streams = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                shift = round(600 / packet.time_base)
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
    return (folder / "late.ts").read_bytes()
