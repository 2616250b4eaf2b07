"""Sound lies where it belongs, is one channel at one rate, and is an error where it cannot be decoded."""

from __future__ import annotations

import wave

import av
import numpy as np
import pytest
from support.clicks import click, click_seconds
from support.media import tone
from support.selection import some_of
from support.streams import config, write_clip

from viper_e2e.decoding import ClipDecoder
from viper_e2e.errors import ClipError


def test_the_sound_of_the_reference_clip_is_its_wav(reference):
    folder = reference / "peer" / "clips"
    with wave.open(str(folder / "single_face.wav")) as file:
        wav = np.frombuffer(file.readframes(file.getnframes()), np.int16) / 32768
    clip = ClipDecoder(config(sound="windows"))(folder / "single_face.mp4")
    (run,) = clip.sound
    assert run.samples.dtype == np.float32
    # FFmpeg 9 leaves out what the encoder filled the last packet with; the wav was made by an older one.
    padding = (1024 - 105_840 % 1024) * 16_000 // 44_100 if av.library_versions["libavcodec"] >= (63,) else 0
    expected = wav[: len(wav) - padding]
    assert len(run.samples) == len(expected)
    assert clip.sound_seconds == pytest.approx(len(expected) / 16_000)
    assert np.sqrt(np.mean((run.samples - expected) ** 2)) < 1e-3
    beside = ClipDecoder(config(sound="windows"))(folder / "single_face.mp4", sound=folder / "single_face.wav")
    assert np.abs(beside.sound[0].samples - wav).max() < 1e-4


@pytest.mark.parametrize("rule", ["windows", "spans"])
@pytest.mark.parametrize(
    "layout", some_of([(1, 8_000), (1, 16_000), (2, 44_100), (6, 48_000)], lambda index, _: index > 1)
)
def test_sound_is_one_channel_out_of_all_at_one_rate(layout, rule, tiny_clip):
    channels, rate = layout
    path = tiny_clip("clip.mkv", num_frames=45, channels=channels, rate=rate, audio_codec="flac")
    clip = ClipDecoder(config(sound=rule))(path)
    (run,) = clip.sound
    t = np.arange(len(run.samples)) / 16_000 + run.start_seconds
    weights = np.full(channels, 1 / channels)
    if channels == 6 and rule == "spans":
        # ITU-R BS.775: left, right, centre, low frequencies, two at the back.
        weights = np.array([0.5**0.5, 0.5**0.5, 1, 0, 0.5, 0.5])
    amplitude = weights @ [0.5 / (channel + 1) for channel in range(channels)]
    expected = amplitude * np.sin(2 * np.pi * 440 * t)
    inner = slice(400, 47_000)
    assert run.start_seconds == pytest.approx(0.0, abs=1e-3)
    assert abs(len(run.samples) - 48_000) < 40
    assert np.abs(run.samples[inner] - expected[inner]).max() < 4e-3


@pytest.mark.parametrize("rule", ["windows", "spans"])
@pytest.mark.parametrize("kind", ["mkv", "mov"])
@pytest.mark.parametrize(
    "starts", some_of([(0, 0), (0, 400), (400, 0), (1000, 1300), (700, 500)], lambda index, _: index in (1, 4))
)
def test_sound_stays_in_step_with_pictures_wherever_either_starts(starts, kind, rule, tmp_path):
    video_ms, sound_ms = starts
    blocks = [sound_ms * 16 + start for start in range(0, 32_000, 400)]
    path = write_clip(
        tmp_path / f"late.{kind}",
        pts=range(video_ms, video_ms + 2000, 40),
        sound=click(1.0),
        sound_pts=blocks,
    )
    clip = ClipDecoder(config(sound=rule, num_frames=32))(path)
    offset = (sound_ms - video_ms) / 1000
    assert click_seconds(clip) == pytest.approx(1.0 + offset, abs=2e-3)
    assert clip.sound[0].start_seconds == pytest.approx(
        offset if rule == "windows" else max(offset, -1.0), abs=2e-3
    )


@pytest.mark.parametrize("kind", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("codec", ["aac", "libmp3lame", "libopus"])
def test_priming_of_codecs_does_not_shift_the_sound(codec, kind, tmp_path):
    sound = np.repeat(click(1.0), 3, axis=1)
    path = write_clip(
        tmp_path / f"clip.{kind}", pts=range(0, 2000, 40), sound=sound, rate=48_000, audio_codec=codec
    )
    clip = ClipDecoder(config(sound="windows"))(path)
    assert click_seconds(clip) == pytest.approx(1.0, abs=2e-3)


def test_sound_shorter_than_the_pictures_is_not_made_longer(tmp_path):
    path = write_clip(tmp_path / "short.mkv", pts=range(0, 4000, 40), sound=tone(1.5, 16_000, 1))
    clip = ClipDecoder(config(sound="spans", num_frames=32))(path)
    (run,) = clip.sound
    assert len(run.samples) == 24_000
    assert clip.has_sound
    assert clip.sound_seconds == pytest.approx(1.5)


@pytest.mark.slow
def test_only_the_seconds_around_tokens_are_kept(tmp_path):
    path = write_clip(tmp_path / "long.mkv", pts=range(0, 30_001, 1000), sound=tone(31.0, 16_000, 1))
    whole = ClipDecoder(config(sound="windows", num_frames=4))(path).sound[0].samples
    clip = ClipDecoder(config(sound="spans", num_frames=4, span_seconds=2.0))(path)
    assert clip.frame_seconds == pytest.approx([0, 10, 20, 30])
    spans = [(run.start_seconds, len(run.samples)) for run in clip.sound]
    assert spans == [(0.0, 16_000), (9.0, 32_000), (19.0, 32_000), (29.0, 32_000)]
    for run in clip.sound:
        start = round(run.start_seconds * 16_000)
        assert np.abs(run.samples - whole[start : start + len(run.samples)]).max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    "audio_codec", some_of(["aac", "libmp3lame", "libopus", "ac3", "flac"], lambda index, _: index in (0, 2))
)
def test_a_jump_to_a_span_changes_nothing_in_it(audio_codec, tmp_path):
    # In mp4, as Matroska rounds times to milliseconds, and a run after a jump begins at such a time.
    path = write_clip(
        tmp_path / "clip.mp4",
        pts=range(0, 12_000, 500),
        sound=tone(12.0, 48_000, 1),
        rate=48_000,
        audio_codec=audio_codec,
    )
    whole = ClipDecoder(config(sound="windows"))(path).sound[0]
    clip = ClipDecoder(config(sound="spans", num_frames=3, span_seconds=0.5))(path)
    assert [run.start_seconds for run in clip.sound] == pytest.approx([0.0, 5.5, 11.25], abs=1e-4)
    times = whole.start_seconds + np.arange(len(whole.samples)) / 16_000
    for run in clip.sound:
        expected = np.interp(run.start_seconds + np.arange(len(run.samples)) / 16_000, times, whole.samples)
        assert len(run.samples) == (4_000 if run is clip.sound[0] else 8_000)
        assert np.abs(run.samples - expected).max() < 0.01


def test_touching_spans_are_one_run(tmp_path):
    path = write_clip(tmp_path / "clip.mkv", pts=range(0, 4000, 40), sound=tone(4.0, 16_000, 1))
    clip = ClipDecoder(config(sound="spans", num_frames=5, span_seconds=1.0))(path)
    assert len(clip.sound) == 1


def test_a_gap_in_the_stream_ends_a_run_and_rounding_does_not(tmp_path):
    blocks = [start if start < 16_000 else start + 8_000 for start in range(0, 32_000, 400)]
    path = write_clip(
        tmp_path / "gap.mkv", pts=range(0, 2500, 40), sound=tone(2.0, 16_000, 1), sound_pts=blocks
    )
    clip = ClipDecoder(config(sound="spans", num_frames=32))(path)
    assert [(round(run.start_seconds, 3), len(run.samples)) for run in clip.sound] == [
        (0.0, 16_000),
        (1.5, 16_000),
    ]
    # The published rule divides the samples, as in a wav.
    (run,) = ClipDecoder(config(sound="windows"))(path).sound
    assert len(run.samples) == 32_000


def test_a_clip_without_sound_says_so(tiny_clip):
    for rule in ("spans", "windows", "none"):
        clip = ClipDecoder(config(sound=rule))(tiny_clip(sound=None))
        assert (clip.sound, clip.has_sound, clip.sound_seconds) == ((), False, 0.0)


def test_sound_nobody_wants_is_not_read(tiny_clip):
    clip = ClipDecoder(config(sound="none"))(tiny_clip())
    assert clip.sound == ()
    assert clip.has_sound


def test_a_sound_file_beside_the_clip_takes_its_place(tiny_clip, tmp_path):
    path = tiny_clip(num_frames=30, fps=15)
    for name in ("beside.wav", "beside.flac"):
        beside = tmp_path / name
        with av.open(str(beside), "w") as container:
            stream = container.add_stream("flac" if "flac" in name else "pcm_s16le", rate=16_000, layout="mono")
            data = (click(1.5) * 32767).astype(np.int16)
            block = av.AudioFrame.from_ndarray(data, format="s16", layout="mono")
            block.sample_rate = 16_000
            container.mux(stream.encode(block))
            container.mux(stream.encode(None))
        for source in (beside, beside.read_bytes()):
            clip = ClipDecoder(config(sound="spans"))(path, sound=source)
            assert click_seconds(clip) == pytest.approx(1.5, abs=1e-3)
            assert len(clip.sound[0].samples) == 32_000
    with pytest.raises(ClipError, match=r"\(sound\): is a mp4 file"):
        ClipDecoder(config(sound="spans"))(path, sound=path)


def test_sound_that_cannot_be_decoded_is_an_error_not_silence(tmp_path):
    data = write_clip(tmp_path / "clip.mov", sound=tone(1.0, 16_000, 1)).read_bytes()
    unknown = data.replace(b"sowt", b"zzzz")
    for rule in ("spans", "windows"):
        with pytest.raises(ClipError) as caught:
            ClipDecoder(config(sound=rule))(unknown, name="clip7")
        assert (caught.value.stage, caught.value.clip) == ("sound", "clip7")
    assert ClipDecoder(config(sound="none"))(unknown).frames.shape[0] == 8


def test_damaged_sound_is_an_error_of_sound(tiny_clip):
    path = tiny_clip("clip.mkv", num_frames=30)
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [(packet.pos, bytes(packet)) for packet in container.demux(audio=0) if packet.size]
    for _, content in packets[5:12]:
        at = bytes(data).find(content)
        data[at : at + len(content)] = b"\xff" * len(content)
    with pytest.raises(ClipError, match="sound cannot be decoded") as caught:
        ClipDecoder(config(sound="spans"))(bytes(data))
    assert caught.value.stage == "sound"
