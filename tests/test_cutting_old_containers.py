"""test_cutting_old_containers.py: clips cut out of AVI, Windows Media, MPEG, DV and GIF, bit for bit."""

from __future__ import annotations

from dataclasses import replace

import av
import numpy as np
import pytest
from support.divx import packed
from support.media import make_clip

from viper_e2e.clip import Segment
from viper_e2e.config import DecodingConfig, LimitsConfig
from viper_e2e.cutting import LongFile, cut
from viper_e2e.decoding import ClipDecoder

ALL = DecodingConfig(num_frames=500, max_side=None, sample_rate=16_000, span_seconds=10.0)
LIMITS = LimitsConfig()
B_FRAMES = {"g": "25", "bf": "2"}
OPEN = {"g": "25", "bf": "3", "x264-params": "scenecut=0:open-gop=1"}
TAPE = {"width": 720, "height": 576, "num_frames": 25, "audio_codec": "pcm_s16le", "codec": "dvvideo"}
FILMS = {
    "mpeg4 mp3": ("avi", {"codec": "mpeg4", "options": B_FRAMES, "audio_codec": "libmp3lame"}),
    "mpeg4 ac3": ("avi", {"codec": "mpeg4", "options": {"g": "25"}, "audio_codec": "ac3", "rate": 48_000}),
    "msmpeg4 adpcm": ("avi", {"codec": "msmpeg4", "options": {"g": "25"}, "audio_codec": "adpcm_ms"}),
    "mjpeg": ("avi", {"codec": "mjpeg", "pix_fmt": "yuvj420p", "audio_codec": "pcm_u8"}),
    "huffyuv": ("avi", {"codec": "huffyuv", "pix_fmt": "yuv422p", "audio_codec": "pcm_s16le"}),
    "ffv1": ("avi", {"codec": "ffv1", "options": {"g": "10"}, "audio_codec": "pcm_s16le"}),
    "raw": ("avi", {"codec": "rawvideo", "audio_codec": "pcm_s16le"}),
    "raw rgb": ("avi", {"codec": "rawvideo", "pix_fmt": "bgr24", "audio_codec": "pcm_s16le"}),
    "h264": ("avi", {"options": OPEN, "audio_codec": "pcm_s16le"}),
    "wmv2": ("wmv", {"codec": "wmv2", "options": {"g": "25"}, "audio_codec": "wmav2", "rate": 44_100}),
    "mpeg1": ("mpg", {"codec": "mpeg1video", "options": B_FRAMES, "audio_codec": "mp2", "rate": 48_000}),
    "mpeg2": ("vob", {"codec": "mpeg2video", "options": B_FRAMES, "audio_codec": "ac3", "rate": 48_000}),
    "dv": ("dv", {**TAPE, "rate": 48_000, "channels": 2}),
    "dv in avi": ("avi", TAPE),
    "gif": ("gif", {"codec": "gif", "pix_fmt": "rgb8", "sound": None}),
}


def chirp(seconds: float, rate: int, channels: int) -> np.ndarray:
    """A tone that rises, so that no moment is like another."""
    t = np.arange(round(seconds * rate)) / rate
    return np.stack([0.4 * np.sin(2 * np.pi * (100 * t + 200 * t * t))] * channels).astype(np.float32)


def shown_by_the_film(path, start: float, end: float) -> tuple[np.ndarray, np.ndarray]:
    """Frames and times of a film decoded from its first packet to its last, those in between of it."""
    meant = ClipDecoder(DecodingConfig(num_frames=10_000, max_side=None, sound="none"))(path)
    inside = (meant.frame_seconds >= start - 1e-6) & (meant.frame_seconds < end - 1e-6)
    return meant.frames[inside], meant.frame_seconds[inside] - start


@pytest.mark.parametrize("name", FILMS)
def test_a_cut_shows_and_sounds_as_its_film_does(tmp_path, name):
    ending, more = FILMS[name]
    more = {"num_frames": 60, "rate": 16_000, "sound": "chirp", **more}
    if more["sound"] is not None:
        more["sound"] = chirp(more["num_frames"] / 25, more["rate"], more.get("channels", 1))
    path = make_clip(tmp_path / f"film.{ending}", fps=25, **more)
    film = LongFile(path, LIMITS)
    # At the film's own rate: a resampler's output depends on the sample that it begins with.
    decode = ClipDecoder(replace(ALL, sample_rate=more["rate"]))
    for start, end in ((0.48, 0.71), (0.0, 0.3), (0.41, 0.9))[: 2 if "dv" in name else 3]:
        made = cut(film.stretch(start, end), LIMITS)
        assert not made.is_uncut
        assert len(made.data) < 0.9 * path.stat().st_size
        frames, seconds = shown_by_the_film(path, start, end)
        shown = decode(made.data, sound=made.sound, segment=made.segment)
        np.testing.assert_array_equal(shown.frames, frames)
        np.testing.assert_allclose(shown.frame_seconds, seconds, atol=1e-6)
        # Times of Windows Media are whole milliseconds; those of a program stream, 1/90,000 s, become samples.
        late_seconds = {"wmv": 1e-3, "mpg": 1 / 48_000, "vob": 1 / 48_000}.get(ending, 0.0)
        assert_sounds_alike(shown, decode(path, segment=Segment(start, end)), more, late_seconds)
    again = cut(film.stretch(start, end), LIMITS)
    assert (again.data, again.sound) == (made.data, made.sound)


def assert_sounds_alike(shown, meant, more, late_seconds: float) -> None:
    """PCM to the last bit; else up to what decoders make up, and as far apart as times are rounded."""
    assert len(shown.sound) == len(meant.sound)
    assert shown.duration_seconds == pytest.approx(meant.duration_seconds, abs=1e-3)
    for one, other in zip(shown.sound, meant.sound, strict=True):
        assert one.start_seconds == pytest.approx(other.start_seconds, abs=late_seconds + 1e-6)
        if "pcm" in more["audio_codec"]:
            np.testing.assert_array_equal(one.samples, other.samples)
            continue
        late = round(late_seconds * more["rate"])
        assert abs(len(one.samples) - len(other.samples)) <= late
        middle = one.samples[2 * late : len(one.samples) - 2 * late]
        apart = [
            np.abs(middle - other.samples[at : at + len(middle)]).max()
            for at in range(min(4 * late, len(other.samples) - len(middle)) + 1)
        ]
        assert min(apart) < 0.03


def test_pictures_that_divx_packed_two_to_a_packet_come_out_one_by_one(tmp_path):
    plain = make_clip(
        tmp_path / "plain.avi", num_frames=100, fps=25, codec="mpeg4", options=B_FRAMES, audio_codec="pcm_s16le"
    )
    path = packed(plain, tmp_path / "film.avi")
    with av.open(str(path)) as container:
        sizes = [packet.size for packet in container.demux(video=0) if packet.size]
    assert sum(size < 19 for size in sizes) > 30
    film = LongFile(path, LIMITS)
    for start, end in ((1.2, 2.4), (2.0, 2.04), (2.96, 3.3), (0.5, 4.0)):
        made = cut(film.stretch(start, end), LIMITS)
        assert not made.is_uncut
        frames, seconds = shown_by_the_film(path, start, end)
        shown = ClipDecoder(ALL)(made.data, segment=made.segment)
        np.testing.assert_array_equal(shown.frames, frames)
        np.testing.assert_allclose(shown.frame_seconds, seconds, atol=1e-6)
