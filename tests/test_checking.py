"""test_checking.py: `viper check` sees what is there, and what is wrong, in every sample."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from viper_e2e.config import DecodingConfig, FaceConfig
from viper_e2e.labels import LabelSet
from viper_e2e.scoring.checking import check
from viper_e2e.shards import ShardSet, ShardWriter, action_units_to_npy

LABELS = LabelSet(("Joy", "Fear"))


@pytest.fixture
def corpus(tmp_path, tiny_clip):
    """Three splits' shards: good clips of two containers, one silent, one broken, one subject in two splits."""
    loud = tiny_clip("loud.mp4", num_frames=30, fps=15).read_bytes()
    silent = tiny_clip("silent.mkv", num_frames=15, fps=15, sound=None).read_bytes()
    folder = tmp_path / "shards"
    folder.mkdir()
    with ShardWriter(folder, "train", LABELS, shard_size=10**9) as writer:
        units = action_units_to_npy(np.zeros((4, 27)))
        writer.add("a", {"mp4": loud, "fau.npy": units}, file_id="[a]", intensities=(0.25, 0.5), subject="anna")
        writer.add("b", {"mkv": silent}, file_id="[b]", intensities=(0.75, 1.0), subject="ben")
        writer.add("c", {"mp4": b"#EXTM3U\nhttp://127.0.0.1/\n"}, file_id="[c]", intensities=(0.5, 0.0))
    with ShardWriter(folder, "val", LABELS, shard_size=10**9) as writer:
        writer.add("d", {"mp4": loud}, file_id="[d]", subject="anna")
    return folder


def look(folder: Path, **options):
    shards = ShardSet(str(folder / "*.tar"), strict=False)
    return check(shards, decoding=DecodingConfig(num_frames=4), num_workers=2, **options)


@pytest.mark.slow
def test_everything_in_the_shards_is_counted(corpus):
    seen = []
    report = look(corpus, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(n, 4) for n in range(1, 5)]
    summary = report.to_json()["summary"]
    assert summary == {
        "clips": 4,
        "shards": 2,
        "seconds": pytest.approx(5.0, abs=0.1),
        "containers": {"mkv": 1, "mp4": 2},
        "video_codecs": {"h264": 3},
        "audio_codecs": {"aac": 2},
        "undecodable": 1,
        "without_sound": 1,
        "with_action_units": 1,
        "subjects": 2,
        "parts_of_files": 0,
        "words": {},
        "words_by": {},
        "unlabelled": 1,
        "duplicate_keys": 0,
        "straddling_subjects": 1,
        "clips_in_several_splits": 1,
        "face_share": None,
    }
    assert report.splits == {"train": 3, "val": 1}
    assert [(r.emotion, r.minimum, r.mean, r.maximum) for r in report.label_ranges] == [
        ("joy", 0.25, 0.5, 0.75),
        ("fear", 0.0, 0.5, 1.0),
    ]
    assert report.straddling_subjects == {"anna": ["train", "val"]}
    (broken,) = report.undecodable
    assert broken.key == "c"
    assert "playlist" in broken.error
    assert report.without_sound[0].key == "b"
    assert report.exit_code == 2


@pytest.mark.slow
def test_the_report_is_json_and_a_table(corpus):
    report = look(corpus)
    assert json.loads(json.dumps(report.to_json()))["clips"][0]["width"] == 96
    console = Console(width=160, file=io.StringIO())
    console.print(report)
    text = console.file.getvalue()
    for wanted in (
        "h264 3",
        "undecodable: c: container:",
        "subject in several splits: anna: train, val",
        "joy",
    ):
        assert wanted in text


@pytest.mark.slow
def test_clips_that_are_all_right_give_exit_code_0(tmp_path, tiny_clip):
    with ShardWriter(tmp_path, "train", LABELS, shard_size=10**9) as writer:
        writer.add("a", {"mp4": tiny_clip().read_bytes()}, file_id="a", intensities=(0.0, 1.0))
    assert look(tmp_path).exit_code == 0


@pytest.mark.slow
def test_torn_shards_and_doubled_keys_are_part_of_the_report(corpus):
    val = corpus / "val-000000.tar"
    (corpus / "val-000001.tar").write_bytes(val.read_bytes())  # the same clip in a shard without an index
    report = look(corpus)
    assert list(report.duplicate_keys) == ["d"]
    val.write_bytes(val.read_bytes()[:-1024])
    report = look(corpus)
    assert any("val-000000.tar" in problem and "incomplete" in problem for problem in report.problems)
    assert sorted(clip.key for clip in report.clips) == ["a", "b", "c", "d"]


@pytest.mark.slow
def test_damaged_bytes_are_found_by_their_hash(corpus):
    train = corpus / "train-000000.tar"
    data = bytearray(train.read_bytes())
    data[data.index(b"#EXTM3U")] ^= 1
    train.write_bytes(data)
    (broken,) = look(corpus).undecodable
    assert "sha256" in broken.error


@pytest.mark.slow
def test_sound_kept_apart_counts_as_sound(tmp_path, tiny_clip, reference):
    wav = (reference / "peer/clips/single_face.wav").read_bytes()
    with ShardWriter(tmp_path, "train", LABELS, shard_size=10**9) as writer:
        writer.add("a", {"mp4": tiny_clip(sound=None).read_bytes(), "wav": wav}, file_id="a")
        writer.add("b", {"mp4": tiny_clip(sound=None).read_bytes(), "wav": b"no sound"}, file_id="b")
    report = look(tmp_path)
    clips = {clip.key: clip for clip in report.clips}
    assert clips["a"].has_sound
    assert clips["a"].audio_codec is None
    assert clips["b"].error


@pytest.mark.slow
def test_faces_are_counted_in_the_decoded_frames(tmp_path, reference):
    from viper_e2e.faces import FaceCropper

    with ShardWriter(tmp_path, "test", LABELS, shard_size=10**9) as writer:
        for name in ("single_face", "no_face"):
            writer.add(name, {"mp4": (reference / f"clips/{name}.mp4").read_bytes()}, file_id=name)
    report = look(tmp_path, faces=FaceCropper(FaceConfig(min_face_size=60)).eval())
    shares = {clip.key: clip.face_share for clip in report.clips}
    assert shares == {"single_face": 1.0, "no_face": 0.0}
    assert report.face_share == 0.5


@pytest.mark.slow
@pytest.mark.parametrize("has_index", [True, False])
def test_a_film_in_two_splits_under_two_names_is_found(tmp_path, tiny_clip, has_index):
    data = {number: tiny_clip(f"{number}.mp4", num_frames=4 + number).read_bytes() for number in range(3)}
    films = {"train": {"a": 0, "b": 1}, "test": {"c": 1, "d": 2}}
    for split, names in films.items():
        with ShardWriter(tmp_path, split, LABELS, shard_size=10**9) as writer:
            for key, number in names.items():
                writer.add(key, {"mp4": data[number]}, file_id=key, intensities=(0.0, 1.0))
    if not has_index:
        (tmp_path / "test-000000.index.json").unlink()
    report = look(tmp_path)
    assert list(report.shared_clips) == [{"test": ["c"], "train": ["b"]}]
    assert report.exit_code == 2
