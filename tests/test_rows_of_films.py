"""test_rows_of_films.py: rows whose times are rounded, empty, behind the end, overlapping or there twice."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest
from imageio_ffmpeg import get_ffmpeg_exe
from support.films import packed, wav
from support.media import make_clip, tone

from viper_e2e.clip import Segment
from viper_e2e.config import DecodingConfig
from viper_e2e.decoding import ClipDecoder
from viper_e2e.model.preparing import decode

ALL = DecodingConfig(num_frames=500, max_side=None, sample_rate=16_000, span_seconds=10.0)
HEAD = "File_ID,Path,Split,Start,End,Joy\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "videos").mkdir()
    make_clip(
        tmp_path / "videos/film.mp4", num_frames=50, fps=25, options={"g": "10"}, sound=tone(2, 16_000, 1)
    )
    return tmp_path


def test_an_end_rounded_a_little_past_the_end_of_its_file_is_that_end(folder):
    report, samples = packed(folder, HEAD + "a,film.mp4,train,1,2.05,.1\nb,film.mp4,train,1.2,,.2\n")
    assert report.problems == ()
    assert not any("End is beyond" in note for note in report.notes)
    for key, start in (("a", 1.0), ("b", 1.2)):
        clip = decode(samples[key], ClipDecoder(ALL))
        meant = ClipDecoder(ALL)(folder / "videos/film.mp4", segment=Segment(start))
        np.testing.assert_array_equal(clip.frames, meant.frames)
        np.testing.assert_array_equal(len(clip.sound[0].samples), len(meant.sound[0].samples))


def test_a_row_of_no_length_or_behind_the_end_is_refused_with_its_line(folder):
    rows = ["z,film.mp4,train,1,1,.1", "y,film.mp4,train,1.5,1.0,.1", "x,film.mp4,train,2.1,3,.1"]
    rows += ["w,film.mp4,train,0,0,.1", "v,film.mp4,train,-1,1,.1", "u,film.mp4,train,1,2,.1"]
    report, samples = packed(folder, HEAD + "\n".join(rows) + "\n")
    assert samples.keys() == {"u"}
    assert [int(problem.partition("line ")[2].partition(":")[0]) for problem in report.problems] == [
        2,
        3,
        5,
        6,
        4,
    ]
    assert all("not before" in report.problems[at] for at in (0, 1, 2))
    assert "Start 2.1 s is beyond the end" in report.problems[4]


def test_rows_that_overlap_are_each_a_clip_of_their_own(folder):
    spans = {"a": (0.2, 1.4), "b": (0.6, 1.0), "c": (0.8, 2.0)}
    rows = "".join(f"{key},film.mp4,train,{start},{end},.1\n" for key, (start, end) in spans.items())
    report, samples = packed(folder, HEAD + rows)
    assert report.problems == ()
    for key, span in spans.items():
        meant = ClipDecoder(ALL)(folder / "videos/film.mp4", segment=Segment(*span))
        np.testing.assert_array_equal(decode(samples[key], ClipDecoder(ALL)).frames, meant.frames)


def test_a_row_that_is_there_twice_is_told_with_both_lines(folder):
    twice = "a,film.mp4,train,0,1,.1\na,film.mp4,train,0,1,.1\nb,film.mp4,train,1,2,.2\n"
    report, samples = packed(folder, HEAD + twice)
    assert samples.keys() == {"b"}
    assert report.problems[0].endswith(": lines 2 and 3: File_ID 'a' more than once; none of them is packed")
    unnamed = "film.mp4,train,0,1,.1\nfilm.mp4,train,0,1.00,.1\nfilm.mp4,train,1,2,.2\n"
    report, samples = packed(folder, "Path,Split,Start,End,Joy\n" + unnamed)
    assert samples.keys() == {"film__1000-2000"}
    assert report.problems[0].startswith("lines 2, 3: all name")


def test_sound_kept_apart_that_outlasts_the_pictures_is_heard_to_the_end(folder):
    (folder / "sounds").mkdir()
    make_clip(folder / "videos/long.mp4", num_frames=50, fps=25, sound=tone(3, 16_000, 1), options={"g": "10"})
    wav(folder / "sounds/long.wav", 3.0, 880.0)
    _, samples = packed(folder, HEAD + "a,long.mp4,train,2.0,2.1,.1\n", audio=folder / "sounds")
    assert len(decode(samples["a"], ClipDecoder(ALL)).sound[0].samples) == 1600


def test_the_track_that_is_kept_is_told(folder):
    words = "-y -v error -threads 1 -f lavfi -i testsrc2=s=64x64:r=25:d=2 -f lavfi -i sine=300:d=2 -f lavfi -i "
    words += "sine=500:d=2 -map 0 -map 1 -map 2 -c:v libx264 -g 10 -c:a aac"
    path = folder / "videos/two.mp4"
    subprocess.run([get_ffmpeg_exe(), *words.split(), str(path)], check=True, timeout=60)
    report, _ = packed(folder, HEAD + "a,two.mp4,train,0,1,.1\nb,film.mp4,train,0,1,.2\n")
    (told,) = (note for note in report.notes if "sound track" in note)
    assert told.startswith("clips cut out of 1 film keep one sound track")
    assert "two.mp4 (1 (aac mono) of 2)" in told
