"""test_packed_segments.py: `viper pack` cuts clips out of longer files, which leave shards as they were."""

from __future__ import annotations

import json
import shutil
import tarfile

import numpy as np
import pytest
from support.deadly_decoder import deadly_cut, deadly_look
from support.films import packed, wav
from support.media import make_clip, tone

from viper_e2e.clip import Segment
from viper_e2e.commands.cli import main
from viper_e2e.config import DecodingConfig
from viper_e2e.cutting.long_file import MUXERS
from viper_e2e.decoding import ClipDecoder
from viper_e2e.model.preparing import decode
from viper_e2e.packing import PackOptions, pack
from viper_e2e.packing.media_worker import in_worker

ALL = DecodingConfig(num_frames=500, max_side=None, sample_rate=16_000, span_seconds=10.0)
OPTIONS = {"g": "25", "bf": "3", "x264-params": "scenecut=0:open-gop=1"}


@pytest.fixture
def folder(tmp_path):
    for name in ("videos", "sounds", "units"):
        (tmp_path / name).mkdir()
    make_clip(tmp_path / "videos/film.mp4", num_frames=200, fps=25, options=OPTIONS)
    return tmp_path


HEAD = "File_ID,Path,Split,Start,End,Side,Joy\n"


def test_clips_cut_out_of_a_file_show_its_frames(folder):
    report, samples = packed(
        folder,
        HEAD
        + "a,film.mp4,train,2.2,3.4,,0.1\nb,film.mp4,train,,00:00:01.0,left,0.2\nc,film.mp4,train,7,,,0.3\n"
        "d,film.mp4,train,,,right,0.4\n",
    )
    assert report.problems == ()
    film = folder / "videos/film.mp4"
    for key, segment in (
        ("a", Segment(2.2, 3.4)),
        ("b", Segment(0.0, 1.0, "left")),
        ("c", Segment(7.0)),
        ("d", Segment(side="right")),
    ):
        meant, clip = ClipDecoder(ALL)(film, segment=segment), decode(samples[key], ClipDecoder(ALL))
        np.testing.assert_array_equal(clip.frames, meant.frames)
        np.testing.assert_allclose(clip.frame_seconds, meant.frame_seconds, atol=1e-6)
        assert clip.sound[0].samples.shape == meant.sound[0].samples.shape
        if key != "d":
            assert len(samples[key].video) < 0.6 * film.stat().st_size
    with tarfile.open(folder / "out/train-000000.tar") as tar:
        record = json.load(tar.extractfile("a.json"))
    assert record["source"] == {"file": "film.mp4", "start": 2.2, "end": 3.4}


def test_times_in_milliseconds_are_suspected(folder):
    report, samples = packed(
        folder,
        HEAD + "a,film.mp4,train,1000,2000,,0.1\nb,film.mp4,train,0,900,,0.2\nc,film.mp4,train,9,10,,0.3\n"
        "d,film.mp4,train,1,2,,0.4\n",
    )
    assert samples.keys() == {"b", "d"}
    of_a, of_c = report.problems
    assert of_a.endswith("; are these milliseconds? Start and End are seconds, or hh:mm:ss.mmm")
    assert "are these" not in of_c
    assert any("1 clip whose End" in note and "are these milliseconds?" in note for note in report.notes)


def test_times_behind_the_end_of_a_file(folder):
    report, samples = packed(
        folder, HEAD + "a,film.mp4,train,9,10,,0.1\nb,film.mp4,train,7,30,,0.2\nc,film.mp4,train,1,2,,0.3\n"
    )
    assert samples.keys() == {"b", "c"}
    assert len(report.problems) == 1
    assert "a: line 2: Start 9 s is beyond the end" in report.problems[0]
    assert any("1 clip whose End is beyond the end of their file" in note for note in report.notes)
    assert decode(samples["b"], ClipDecoder(ALL)).duration_seconds == pytest.approx(1.0, abs=0.1)


def test_a_file_that_cannot_be_read_is_told_once_with_its_lines(folder):
    (folder / "videos/torn.mp4").write_bytes((folder / "videos/film.mp4").read_bytes()[:5000])
    report, samples = packed(
        folder, HEAD + "a,torn.mp4,train,0,1,,0.1\nb,torn.mp4,train,1,2,,0.2\nc,film.mp4,train,1,2,,0.3\n"
    )
    assert samples.keys() == {"c"}
    (problem,) = report.problems
    assert "lines 2, 3: " in problem
    assert "torn.mp4" in problem


def test_the_same_part_twice_packs_neither(folder):
    report, samples = packed(
        folder, HEAD + "a,film.mp4,train,0,1,,0.1\nb,film.mp4,train,0,1.0,,0.2\nc,film.mp4,train,0,1,left,0.3\n"
    )
    assert samples.keys() == {"c"}
    assert "lines 2, 3: all name" in report.problems[0]


@pytest.mark.parametrize("own", [False, True])
def test_sound_and_units_kept_apart_are_those_of_the_stretch(folder, own):
    units = np.zeros((80, 27), np.float32)
    units[:, 0] = np.arange(80)
    if own:
        wav(folder / "sounds/a.wav", 1.0, 880.0)
        np.save(folder / "units/a.npy", units[:10])
    else:
        wav(folder / "sounds/film.wav", 8.0, 880.0)
        np.save(folder / "units/film.npy", units)
    _, samples = packed(
        folder, HEAD + "a,film.mp4,train,2.2,3.2,,0.1\n", audio=folder / "sounds", fau=folder / "units"
    )
    clip = decode(samples["a"], ClipDecoder(ALL))
    (run,) = clip.sound
    begin = 0 if own else round(2.2 * 16_000)
    meant = tone(8.0, 16_000, 1, 880.0)[0, begin : begin + 16_000]
    np.testing.assert_allclose(run.samples, meant, atol=1e-3)
    np.testing.assert_array_equal(samples["a"].action_units[:, 0], np.arange(10) if own else np.arange(22, 32))


def test_the_command_packs_the_same_bytes_twice(folder):
    (folder / "labels.csv").write_text(HEAD + "a,film.mp4,train,2.2,3.4,,0.1\nb,film.mp4,train,1,2,left,0.2\n")
    words = ["pack", "--videos", f"{folder}/videos", "--labels", f"{folder}/labels.csv"]
    assert main([*words, "--out", f"{folder}/one"]) == 0
    assert main([*words, "--out", f"{folder}/two"]) == 0
    one, two = (folder / name / "train-000000.tar" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    assert main(["check", "--shards", f"{folder}/one/*.tar"]) == 0


def test_films_in_avi_are_cut_and_a_rehearsal_says_so(folder):
    make_clip(
        folder / "videos/old.avi",
        num_frames=75,
        fps=25,
        codec="mpeg4",
        options={"g": "25", "bf": "2"},
        audio_codec="adpcm_ms",
    )
    rows = HEAD + "a,old.avi,train,1.2,1.6,,0.1\nb,old.avi,train,2,2.5,left,0.2\nc,film.mp4,train,1,2,,0.3\n"
    report, samples = packed(folder, rows)
    (folder / "labels.csv").write_text(rows)
    rehearsed = pack(folder / "videos", folder / "labels.csv", folder / "none", PackOptions(dry_run=True))
    for told in (report.notes, rehearsed.notes):
        assert "cut by copying packets: 2 films (avi 1, mp4 1)" in told
    assert report.problems == rehearsed.problems == ()
    for key, segment in (("a", Segment(1.2, 1.6)), ("b", Segment(2.0, 2.5, "left"))):
        meant = ClipDecoder(ALL)(folder / "videos/old.avi", segment=segment)
        clip = decode(samples[key], ClipDecoder(ALL))
        np.testing.assert_array_equal(clip.frames, meant.frames)
        np.testing.assert_allclose(clip.frame_seconds, meant.frame_seconds, atol=1e-6)
        np.testing.assert_allclose(clip.sound[0].samples, meant.sound[0].samples, atol=0.03)
        assert samples[key].sound is not None


def test_films_that_cannot_be_cut_are_named_with_what_they_cost(folder, monkeypatch):
    monkeypatch.setitem(MUXERS, "mp4", ())
    monkeypatch.setattr("viper_e2e.packing.segments.in_worker.on_file", lambda _, look, *given: look(*given))
    rows = HEAD + "a,film.mp4,train,1.2,1.6,,0.1\nb,film.mp4,train,2,2.5,,0.2\n"
    report, samples = packed(folder, rows)
    size = (folder / "videos/film.mp4").stat().st_size
    (told,) = (note for note in report.notes if "cannot be cut" in note)
    assert "without re-encoding: 1 film, " in told
    assert f"film.mp4 (2 × {size / 1e6:.1f} MB)" in told
    assert [len(samples[key].video) for key in "ab"] == [size, size]


@pytest.mark.slow
def test_films_and_stretches_that_crash_what_reads_them_are_left_out_and_named(folder, monkeypatch):
    monkeypatch.setattr("viper_e2e.packing.segments.look_into", deadly_look)
    monkeypatch.setattr("viper_e2e.packing.samples.cut", deadly_cut)
    shutil.copy(folder / "videos/film.mp4", folder / "videos/dead.mp4")
    rows = HEAD + "a,dead.mp4,train,1.2,1.6,,0.1\nb,film.mp4,train,1,2.5,,0.2\nc,film.mp4,train,2,2.5,,0.2\n"
    report, samples = packed(folder, rows)
    dead, film = folder / "videos/dead.mp4", folder / "videos/film.mp4"
    assert report.problems == (
        f"lines 2: {dead}: left out: killed by SIGKILL",
        f"b: {film}: left out: killed by SIGKILL",
    )
    assert list(samples) == ["c"]
    assert not in_worker.is_running


def test_keyframes_that_are_far_apart_are_told(folder):
    make_clip(
        folder / "videos/one.mp4", num_frames=200, fps=25, options={"g": "250", "x264-params": "scenecut=0"}
    )
    report, _ = packed(folder, HEAD + "a,one.mp4,train,6,6.5,,0.1\nb,one.mp4,train,4,4.5,,0.2\n")
    assert any(
        "shards hold 5.0 s of film before each Start, on average, for 2 clips of 0.5 s" in note
        for note in report.notes
    )
    report, _ = packed(folder, HEAD + "a,film.mp4,train,6,6.5,,0.1\n")
    assert not any("before each Start" in note for note in report.notes)
