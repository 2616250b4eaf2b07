"""test_cutting_sounds.py: a clip cut out of a film sounds as that does there: its track, its gaps, its end."""

from __future__ import annotations

import subprocess

import av
import numpy as np
import pytest
from imageio_ffmpeg import get_ffmpeg_exe

from viper_e2e.clip import Segment
from viper_e2e.config import DecodingConfig, LimitsConfig
from viper_e2e.cutting import LongFile, cut
from viper_e2e.decoding import ClipDecoder

ALL = DecodingConfig(num_frames=500, max_side=None, sample_rate=16_000, span_seconds=10.0)
LIMITS = LimitsConfig()
PICTURE = "-f lavfi -i testsrc2=s=64x64:r=25:d={}"
SECOND_BY_DEFAULT = "-disposition:a:0 0 -disposition:a:1 default"
QUIET_AMID = r"-f lavfi -i aevalsrc=(lt(t\,1.2)+gt(t\,2.6))*0.2*sin(300*2*PI*t):d=3:s=16000"
CODECS = {"avi": "-c:v mpeg4 -c:a adpcm_ms", "wmv": "-c:v wmv2 -c:a wmav2 -b:a 64k -ar 44100"}


def ffmpeg(words: str, path):
    subprocess.run(
        [get_ffmpeg_exe(), *f"-y -v error -threads 1 {words}".split(), str(path)], check=True, timeout=60
    )
    return path


def tone(hertz: int, seconds: float = 3.0) -> str:
    return f"-f lavfi -i sine={hertz}:d={seconds}:r=16000"


def film_of(path, *sounds: str, how: str = "", picture_seconds: float = 3.0):
    maps = " ".join(f"-map {number}" for number in range(len(sounds) + 1))
    codecs = CODECS.get(path.suffix[1:], "-c:v libx264 -c:a aac")
    return ffmpeg(f"{PICTURE.format(picture_seconds)} {' '.join(sounds)} {maps} {codecs} -g 25 {how}", path)


def heard(clip) -> list[tuple[float, int, int]]:
    """Of each run of sound: when it begins, its samples, its loudest frequency (0: silence)."""
    told = []
    for run in clip.sound:
        hertz = (
            int(np.abs(np.fft.rfft(run.samples, 16_000)).argmax()) if np.abs(run.samples).max() > 1e-3 else 0
        )
        told.append((abs(round(run.start_seconds, 2)), len(run.samples), hertz))
    return told


def assert_as_in_the_film(path, start: float, end: float, atol: int = 0) -> list[tuple[float, int, int]]:
    meant = ClipDecoder(ALL)(path, segment=Segment(start, end))
    made = cut(LongFile(path, LIMITS).stretch(start, end), LIMITS)
    assert not made.is_uncut
    shown = ClipDecoder(ALL)(made.data, sound=made.sound, segment=made.segment)
    np.testing.assert_array_equal(shown.frames, meant.frames)
    told = heard(shown)
    assert [one[::2] for one in told] == [one[::2] for one in heard(meant)]
    for own, other in zip(told, heard(meant), strict=True):
        assert own[1] == pytest.approx(other[1], abs=atol)
    return told


TRACKS = {
    "the default is the second, mp4": ("a.mp4", (tone(300), tone(500)), SECOND_BY_DEFAULT, 500),
    "the default is the second, mkv": ("a.mkv", (tone(300), tone(500)), SECOND_BY_DEFAULT, 500),
    "commentary first": ("a.mkv", (tone(300), tone(500)), "-disposition:a:0 comment -disposition:a:1 0", 500),
    "silent in the clip alone, mp4": ("a.mp4", (QUIET_AMID, tone(500)), "", 0),
    "silent in the clip alone, ts": ("a.ts", (QUIET_AMID, tone(500)), "", 0),
    "silent in all of the film": ("a.mov", ("-f lavfi -i anullsrc=r=16000:cl=mono:d=3", tone(500)), "", 500),
    "two tracks that only a wav holds": ("a.avi", (tone(300), tone(500)), "", 300),
}


@pytest.mark.parametrize("name", TRACKS)
def test_a_clip_keeps_the_track_that_is_heard_of_the_whole_film(tmp_path, name):
    file, sounds, how, hertz = TRACKS[name]
    path = film_of(tmp_path / file, *sounds, how=how)
    ((_, _, found),) = assert_as_in_the_film(path, 1.5, 2.0, atol=64)
    assert found == hertz
    assert f"{1 + (hertz == 500)} (" in LongFile(path, LIMITS).sound_note


def test_one_track_needs_no_note(tmp_path):
    assert LongFile(film_of(tmp_path / "a.mp4", tone(300)), LIMITS).sound_note == ""


@pytest.mark.parametrize("order", ["-map 0 -map 1", "-map 1 -map 0"])
@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_a_cover_beside_the_film_stays_behind(tmp_path, ending, order):
    film = film_of(tmp_path / f"film.{ending}", tone(300))
    cover = ffmpeg("-f lavfi -i testsrc=s=320x240:d=0.04:r=25 -frames:v 1", tmp_path / "cover.png")
    path = tmp_path / f"a.{ending}"
    if ending == "mp4":
        at = 1 if order.endswith("1") else 0
        ffmpeg(f"-i {film} -i {cover} {order} -c copy -disposition:v:{at} attached_pic", path)
    else:
        ffmpeg(f"-i {film} -c copy -attach {cover} -metadata:s:t mimetype=image/png", path)
    assert_as_in_the_film(path, 1.5, 2.0)


def without_sound_amid(film, path, start: float, end: float):
    """A film without the packets of sound between two times."""
    with av.open(str(film)) as source, av.open(str(path), "w") as made:
        places = {stream.index: made.add_stream_from_template(stream, opaque=True) for stream in source.streams}
        for packet in source.demux():
            is_sound = packet.stream.type == "audio"
            if not packet.size or (is_sound and start <= float(packet.pts * packet.time_base) < end):
                continue
            packet.stream = places[packet.stream.index]
            made.mux(packet)
    return path


@pytest.mark.parametrize("ending", ["mp4", "mkv", "flv", "wmv"])
def test_a_gap_in_the_sound_stays_where_it_is(tmp_path, ending):
    how = "-ar 44100" if ending == "flv" else "-bf 0" if ending == "mkv" else ""
    film = film_of(tmp_path / f"film.{ending}", tone(300), how=how)
    path = without_sound_amid(film, tmp_path / f"a.{ending}", 1.0, 2.0)
    assert [hertz for _, _, hertz in assert_as_in_the_film(path, 0.5, 2.5)] == [300, 300]
    assert assert_as_in_the_film(path, 1.3, 1.8) == []
    ((start, _, _),) = assert_as_in_the_film(path, 1.6, 2.6)
    assert start == pytest.approx(0.4, abs=0.15)


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts", "avi"])
@pytest.mark.parametrize(("start", "end"), [(1.5, 2.04), (2.0, 2.1), (1.5, 2.5), (2.4, 9.0)])
def test_sound_that_outlasts_the_pictures_is_heard_to_the_end_of_the_clip(tmp_path, ending, start, end):
    path = film_of(tmp_path / f"a.{ending}", tone(300, 3.0), picture_seconds=2.0)
    assert_as_in_the_film(path, start, end, atol=1024)
