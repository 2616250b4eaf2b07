"""Sound is listened to at instants of its own, evenly spaced over the clip, whatever the pictures do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.media import tone
from support.selection import some_of
from support.streams import write_clip

from viper_e2e.config import DecodingConfig, with_settings
from viper_e2e.config.presets import micro
from viper_e2e.decoding import ClipDecoder
from viper_e2e.model.viper import ViPER

STEADY = range(0, 20_000, 200)
PICTURES = {
    "steady": (STEADY, 20.0),
    "still in the middle": ([*range(0, 2000, 200), *range(18_000, 20_000, 200)], 20.0),
    "one picture": ([0], 20.0),
    "a second, then none": (range(0, 1000, 100), 20.0),
    "one every seven seconds": ([0, 7000, 14_000], 20.0),
    "sound shorter": (range(0, 20_000, 500), 6.0),
}


def clip_of(tmp_path, pts, seconds: float, name: str = "clip.mkv"):
    return write_clip(tmp_path / name, pts=pts, size=(64, 48), sound=tone(seconds, 16_000, 1))


def heard(clip, start: float = 0.0) -> list[tuple[float, float]]:
    return [
        (round(start + run.start_seconds, 2), round(start + run.start_seconds + len(run.samples) / 16_000, 2))
        for run in clip.sound
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", some_of(PICTURES, lambda index, _: index in (1, 5)))
def test_all_sound_is_heard_whatever_the_pictures_do(name, tmp_path):
    pts, seconds = PICTURES[name]
    path = clip_of(tmp_path, pts, seconds)
    clip = ClipDecoder(DecodingConfig(max_side=64))(path)
    assert heard(clip) == [(0.0, seconds)]
    assert clip.unheard_seconds == pytest.approx(0.0, abs=1e-6)
    assert len(clip.sound_instants) == 32
    assert np.ptp(np.diff(clip.sound_instants)) < 1e-9
    assert clip.sound_instants[-1] == pytest.approx(20.0, abs=0.51)
    assert clip.duration_seconds == pytest.approx(20.0, abs=0.51)


@pytest.mark.slow
@pytest.mark.parametrize("name", some_of(PICTURES, lambda index, _: index in (1, 2)))
def test_each_window_hears_its_own_time(name, tmp_path):
    pts, seconds = PICTURES[name]
    path = clip_of(tmp_path, pts, seconds)
    windows = list(ClipDecoder(DecodingConfig(max_side=64)).windows(path, 4.0, 4.0))
    assert [start for start, _ in windows] == pytest.approx([0, 4, 8, 12, 16], abs=0.51)
    for start, clip in windows:
        end = min(start + clip.duration_seconds, seconds)
        # Frames of a Matroska file that was written so last 40 ms; the sound goes on a little.
        expected = [(pytest.approx(start, abs=0.02), pytest.approx(end, abs=0.2))] if end > start else []
        assert heard(clip, start) == expected
        assert len(clip.frames) >= 1
        assert clip.frame_seconds.max() <= clip.duration_seconds


def test_a_window_begins_with_the_picture_that_stands(tmp_path):
    path = clip_of(tmp_path, [0, 1000, 7000], 8.0)
    windows = list(ClipDecoder(DecodingConfig(max_side=64)).windows(path, 4.0, 4.0))
    assert windows[1][1].frame_seconds == pytest.approx([0.0, 3.0])


def test_a_window_longer_than_the_clip_is_the_clip(tmp_path):
    path = write_clip(
        tmp_path / "clip.mkv", pts=range(600, 3000, 40), size=(64, 48), sound=tone(3.5, 16_000, 1)
    )
    decoder = ClipDecoder(DecodingConfig(max_side=64))
    whole, ((start, window),) = decoder(path), decoder.windows(path, 60.0, 30.0)
    assert start == 0.0
    assert heard(whole) == [(-0.6, 2.9)] == heard(window)
    assert np.array_equal(whole.sound[0].samples, window.sound[0].samples)
    assert np.array_equal(whole.sound_instants, window.sound_instants)
    assert whole.duration_seconds == window.duration_seconds


@pytest.mark.slow
def test_sound_long_before_the_picture_is_part_of_the_clip(tmp_path):
    path = write_clip(
        tmp_path / "late picture.mkv", pts=range(5000, 9000, 100), size=(64, 48), sound=tone(9.0, 16_000, 1)
    )
    decoder = ClipDecoder(DecodingConfig(max_side=64))
    clip = decoder(path)
    assert heard(clip) == [(-5.0, 4.0)]
    assert clip.frame_seconds[0] == 0.0
    assert clip.duration_seconds == pytest.approx(9.0, abs=0.1)
    windows = list(decoder.windows(path, 3.0, 3.0))
    spans = [span for start, clip in windows for span in heard(clip, start)]
    assert np.allclose(spans, [(-5.0, -2.0), (-2.0, 1.0), (1.0, 4.0)], atol=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("sound", ["spans", pytest.param("windows", marks=pytest.mark.campaign)])
def test_what_is_not_heard_is_told_in_seconds(sound, tmp_path):
    path = clip_of(tmp_path, range(0, 1000, 100), 20.0)
    clip = ClipDecoder(DecodingConfig(num_frames=4, max_side=64, span_seconds=2.0, sound=sound))(path)
    # Spans: 1 s at either end and 2 s at two instants between. Windows: four of one second.
    expected = 20.0 - (6.0 if sound == "spans" else 4.0)
    assert clip.unheard_seconds == pytest.approx(expected, abs=0.05)
    (note,) = clip.notes
    assert note.startswith(f"{expected:.1f} of 20.0 s of sound are not used (--window-seconds ")
    window_seconds = int(note.rpartition("--window-seconds ")[2].split()[0])
    decoder = ClipDecoder(DecodingConfig(num_frames=4, max_side=64, span_seconds=2.0, sound=sound))
    assert all(not clip.notes for _, clip in decoder.windows(path, window_seconds, window_seconds))


@pytest.mark.slow
def test_tokens_of_sound_exist_whatever_the_number_of_frames(tmp_path):
    config = with_settings(micro(), {"decoding.num_frames": 8, "decoding.span_seconds": 1.0})
    model = ViPER(config).eval()
    path = clip_of(tmp_path, [0], 6.0)
    with torch.no_grad():
        (prepared,) = model.prepare([path])
        streams = {}
        model.fusion.register_forward_pre_hook(lambda _, args: streams.update(args[0]))
        output = model([prepared])
    assert output.used.sum() == 1
    assert streams["audio"].used.all()
    assert streams["audio"].present.all()
    assert streams["audio"].seconds[0] == pytest.approx(np.linspace(0, 6, 8), abs=0.05)
    assert model.predict(path)["unheard_seconds"] == pytest.approx(0.0, abs=1e-3)
