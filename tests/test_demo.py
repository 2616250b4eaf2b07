"""The demo corpus: the same every time, honest about what shows where, and a person a detector can see."""

from __future__ import annotations

import csv
import sys
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch

pytest.importorskip("skimage", reason="the demo corpus needs scikit-image: pip install '.[demo]'")
sys.path.insert(0, str(Path(__file__).parents[1] / "datasets"))  # recipes are run by path, not installed

import demo
import demo_face

COUNTS = {"train": 2, "val": 1, "test": 2}


@pytest.fixture(scope="module")
def plan() -> demo.Plan:
    """A small quick clip with everything in it."""
    plan = demo.plan_clip(0, "train", 0)
    return replace(plan, size=(192, 192), seconds=1.0, frames_per_second=6, has_face=True, has_sound=True)


def showing(plan: demo.Plan, **intensities: float) -> demo.Plan:
    truth = {emotion: intensities.get(emotion.replace("-", "_"), 0.0) for emotion in demo.EMOTIONS}
    return replace(plan, truth=truth)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "corpus"
    demo.write_corpus(out, COUNTS, seed=3, num_workers=1)
    return out


# --- determinism --------------------------------------------------------------------------------


def test_the_same_seed_and_index_make_the_same_file(plan, tmp_path):
    files = [tmp_path / name for name in ("a.mp4", "b.mp4", "c.mp4")]
    for path in files:
        demo.write_clip(plan, path)
    assert len({path.read_bytes() for path in files}) == 1
    assert demo.plan_clip(0, "test", 7) == demo.plan_clip(0, "test", 7)


def test_another_seed_split_or_index_is_another_clip():
    plans = [
        demo.plan_clip(*which) for which in ((0, "train", 0), (1, "train", 0), (0, "test", 0), (0, "train", 1))
    ]
    assert len({tuple(plan.reported.values()) for plan in plans}) == 4
    assert len({plan.seconds for plan in plans}) == 4


# --- labels -------------------------------------------------------------------------------------


def test_labels_are_one_to_three_emotions_divided_by_their_maximum():
    plans = [demo.plan_clip(0, "train", index) for index in range(300)]
    active = [sum(value > 0 for value in plan.truth.values()) for plan in plans]
    assert set(active) == {1, 2, 3}
    assert all(max(plan.truth.values()) == max(plan.reported.values()) == 1.0 for plan in plans)
    assert all(0.0 <= value <= 1.0 for plan in plans for value in plan.reported.values())


def test_self_report_is_noisy_by_a_tenth():
    plans = [demo.plan_clip(0, "train", index) for index in range(300)]
    middling = [
        plan.reported[emotion] - value
        for plan in plans
        for emotion, value in plan.truth.items()
        if 0.3 < value < 0.8
    ]
    assert 0.07 < np.std(middling) < 0.15


# --- what shows where ---------------------------------------------------------------------------


def test_emotions_of_the_face_leave_the_sound_untouched(plan):
    still = showing(plan, Amusement=1.0)
    moved = showing(plan, Amusement=1.0, Adoration=1.0, Disgust=0.5, Surprise=0.7)
    assert np.array_equal(demo.render_sound(still), demo.render_sound(moved))
    assert not np.array_equal(demo.render_frames(still), demo.render_frames(moved))


def test_emotions_of_the_voice_leave_the_picture_untouched(plan):
    quiet = showing(plan, Adoration=1.0)
    loud = showing(plan, Adoration=1.0, Amusement=0.7, Anxiety=1.0, Empathic_Pain=0.5)
    assert np.array_equal(demo.render_frames(quiet), demo.render_frames(loud))
    assert not np.array_equal(demo.render_sound(quiet), demo.render_sound(loud))


def test_every_emotion_shows_somewhere_and_fear_in_both(plan):
    rest = showing(plan)
    changes = {}
    for emotion in demo.EMOTIONS:
        shown = showing(plan, **{emotion.replace("-", "_"): 1.0})
        in_face = not np.array_equal(demo.render_frames(shown), demo.render_frames(rest))
        in_voice = not np.array_equal(demo.render_sound(shown), demo.render_sound(rest))
        changes[emotion] = (in_face, in_voice)
    assert changes == {
        "Adoration": (True, False),
        "Amusement": (False, True),
        "Anxiety": (False, True),
        "Disgust": (True, False),
        "Empathic-Pain": (False, True),
        "Fear": (True, True),
        "Surprise": (True, False),
    }


def test_a_stronger_emotion_moves_the_face_and_fills_the_voice_more(plan):
    rest = demo.render_frames(showing(plan)).astype(float)
    moved = [
        np.abs(demo.render_frames(showing(plan, Surprise=s)).astype(float) - rest).mean()
        for s in (0.3, 0.6, 1.0)
    ]
    loud = [np.square(demo.render_sound(showing(plan, Anxiety=s))).mean() for s in (0.0, 0.3, 0.6, 1.0)]
    assert moved == sorted(moved)
    assert moved[2] > 2 * moved[0]
    assert loud == sorted(loud)
    assert loud[3] > 2 * loud[1]


def test_warps_do_not_fold_the_face():
    """Along every row and column of the patch, neighbouring pixels are fetched from neighbours in order."""
    fields = demo_face._fields()
    height, width = fields.edge.shape
    for emotion, parts in demo.FACE.items():
        amounts = torch.zeros(len(demo_face.ACTIONS))
        for action, amount in parts.items():
            amounts[demo_face.ACTIONS.index(action)] = amount * demo.RANGES["warp_strength"][2][1]
        for action, amount in demo_face.REST.items():
            amounts[demo_face.ACTIONS.index(action)] += amount
        x, y = (fields.grid + torch.einsum("a,adp->dp", amounts, fields.displacement)).view(2, height, width)
        assert bool((x.diff(dim=1) > 0).all()), emotion
        assert bool((y.diff(dim=0) > 0).all()), emotion


# --- test clips are not training clips ----------------------------------------------------------


@pytest.mark.parametrize("name", sorted(demo.RANGES))
def test_ranges_of_test_clips_lie_outside_those_of_training(name):
    def values(split: str) -> list[float]:
        plans = [demo.plan_clip(0, split, index) for index in range(60)]
        return [plan.scene.get(name, getattr(plan.speaker, name, None)) for plan in plans]

    low, high = demo.RANGES[name][0]
    assert all(low <= value <= high for split in ("train", "val") for value in values(split))
    assert all(not low < value < high for value in values("test"))


def test_nobody_is_in_two_splits():
    subjects = [{demo.plan_clip(0, split, i).subject for i in range(40)} for split in demo.SPLITS]
    assert not set.intersection(*subjects)
    assert all(len(s) == 40 / demo.CLIPS_PER_SUBJECT for s in subjects)


def test_one_clip_in_twenty_has_no_face_and_as_many_no_sound():
    plans = [demo.plan_clip(0, "train", index) for index in range(1000)]
    assert 0.03 < np.mean([not plan.has_face for plan in plans]) < 0.07
    assert 0.03 < np.mean([not plan.has_sound for plan in plans]) < 0.07
    assert all(plan.has_face or plan.has_sound for plan in plans)


# --- files --------------------------------------------------------------------------------------


def test_clips_are_h264_and_aac_as_planned(plan, tmp_path):
    demo.write_clip(plan, tmp_path / "clip.mp4")
    with av.open(str(tmp_path / "clip.mp4")) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, audio.codec_context.name) == ("h264", "aac")
        assert (video.width, video.height) == plan.size
        assert video.average_rate == plan.frames_per_second
        assert (audio.rate, audio.channels) == (plan.sample_rate, plan.channels)
        assert sum(1 for _ in container.decode(video=0)) == 6
        assert float(audio.duration * audio.time_base) == pytest.approx(plan.seconds, abs=0.1)


def test_a_clip_without_sound_has_no_audio_stream(plan, tmp_path):
    demo.write_clip(replace(plan, has_sound=False), tmp_path / "clip.mp4")
    with av.open(str(tmp_path / "clip.mp4")) as container:
        assert len(container.streams.audio) == 0


def test_the_corpus_is_hume_reactions_layout(corpus):
    rows = list(csv.DictReader((corpus / "labels.csv").open()))
    assert list(rows[0]) == ["File_ID", "Split", *demo.EMOTIONS, "Subject"]
    assert [row["Split"] for row in rows] == ["train"] * 2 + ["val"] + ["test"] * 2
    assert {row["File_ID"] for row in rows} == {f"[{path.stem}]" for path in (corpus / "videos").iterdir()}
    assert (corpus / "new_clip.mp4").stat().st_size > 0


def test_an_existing_corpus_is_not_overwritten(corpus, capsys):
    with pytest.raises(SystemExit) as stopped:
        demo.main(["--out", str(corpus)])
    assert stopped.value.code == 1
    assert "holds a corpus already" in capsys.readouterr().err


# --- ceiling and floor --------------------------------------------------------------------------


def test_the_parameters_tell_the_labels_and_permuted_ones_do_not(tmp_path):
    plans = [demo.plan_clip(0, split, i) for split, n in (("train", 320), ("test", 160)) for i in range(n)]
    tables = tmp_path / "parameters.csv", tmp_path / "labels.csv"
    demo._write_table(tables[0], [demo._parameters(plan) for plan in plans])
    demo._write_table(tables[1], [demo._labels(plan) for plan in plans])
    best = demo.ceiling(*tables)
    assert list(best) == [*demo.EMOTIONS, "mean"]
    assert best["mean"] > 0.9
    assert min(best.values()) > 0.8
    floors = [demo.ceiling(*tables, permute_seed=seed)["mean"] for seed in range(5)]
    assert abs(np.mean(floors)) < 0.1


def test_parameters_say_nothing_about_what_is_not_shown(plan):
    row = demo._parameters(replace(showing(plan, Fear=1.0), has_face=False))
    assert all(value == 0 for name, value in row.items() if name.startswith("face."))
    assert row["voice.shriek"] > 0.8


# --- a face that a detector finds ---------------------------------------------------------------


@pytest.mark.slow
def test_mtcnn_finds_the_face_where_there_is_one_and_none_where_there_is_none():
    from facenet_pytorch import MTCNN

    detector = MTCNN(min_face_size=40)
    found = {True: [], False: []}
    for index in range(6):
        plan = demo.plan_clip(1, "test", index)
        for has_face in (True, False):
            frames = demo.render_frames(replace(plan, has_face=has_face, frames_per_second=3))
            boxes, probabilities = detector.detect(frames)
            found[has_face] += [
                b is not None and p[0] >= 0.9 for b, p in zip(boxes, probabilities, strict=True)
            ]
    assert np.mean(found[True]) >= 0.95
    assert not any(found[False])
