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
from support.selection import some_of

pytest.importorskip("skimage", reason="the demo corpus needs scikit-image: pip install '.[demo]'")
sys.path.insert(0, str(Path(__file__).parents[1] / "datasets"))  # recipes are run by path, not installed

import demo
import demo_clip
import demo_face
import demo_look
import demo_plan

pytestmark = pytest.mark.slow

COUNTS = {"train": 2, "val": 1, "test": 2}


@pytest.fixture(scope="module")
def plan() -> demo_plan.Plan:
    """A small quick clip with everything in it."""
    plan = demo_plan.plan_clip(0, "train", 0)
    return replace(filmed(plan, size=(192, 192)), seconds=1.0, constant=False, has_face=True, has_sound=True)


def filmed(plan: demo_plan.Plan, frames_per_second: int = 6, **changed) -> demo_plan.Plan:
    """The same clip by another camera; few frames are quick to render."""
    camera = replace(plan.subject.camera, frames_per_second=frames_per_second, **changed)
    return replace(plan, subject=replace(plan.subject, camera=camera))


def showing(plan: demo_plan.Plan, **intensities: float) -> demo_plan.Plan:
    truth = {emotion: intensities.get(emotion.replace("-", "_"), 0.0) for emotion in demo_plan.EMOTIONS}
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
        demo_clip.write_clip(plan, path)
    assert len({path.read_bytes() for path in files}) == 1
    assert demo_plan.plan_clip(0, "test", 7) == demo_plan.plan_clip(0, "test", 7)


def test_another_seed_split_or_index_is_another_clip():
    plans = [
        demo_plan.plan_clip(*which)
        for which in ((0, "train", 0), (1, "train", 0), (0, "test", 0), (0, "train", 1))
    ]
    assert len({tuple(plan.reported.values()) for plan in plans}) == 4
    assert len({plan.seconds for plan in plans}) == 4


# --- labels -------------------------------------------------------------------------------------


def test_labels_are_one_to_three_emotions_divided_by_their_maximum():
    plans = [demo_plan.plan_clip(0, "train", index) for index in range(300)]
    active = [sum(value > 0 for value in plan.truth.values()) for plan in plans]
    assert set(active) == {1, 2, 3}
    assert all(max(plan.truth.values()) == max(plan.reported.values()) == 1.0 for plan in plans)
    assert all(0.0 <= value <= 1.0 for plan in plans for value in plan.reported.values())


def test_self_report_is_noisy_by_a_tenth():
    plans = [demo_plan.plan_clip(0, "train", index) for index in range(300)]
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
    assert np.array_equal(demo_clip.render_sound(still), demo_clip.render_sound(moved))
    assert not np.array_equal(demo_clip.render_frames(still), demo_clip.render_frames(moved))


def test_emotions_of_the_voice_leave_the_picture_untouched(plan):
    quiet = showing(plan, Adoration=1.0)
    loud = showing(plan, Adoration=1.0, Amusement=0.7, Anxiety=1.0, Empathic_Pain=0.5)
    assert np.array_equal(demo_clip.render_frames(quiet), demo_clip.render_frames(loud))
    assert not np.array_equal(demo_clip.render_sound(quiet), demo_clip.render_sound(loud))


def test_every_emotion_shows_somewhere_and_fear_in_both(plan):
    rest = showing(plan)
    changes = {}
    for emotion in demo_plan.EMOTIONS:
        shown = showing(plan, **{emotion.replace("-", "_"): 1.0})
        in_face = not np.array_equal(demo_clip.render_frames(shown), demo_clip.render_frames(rest))
        in_voice = not np.array_equal(demo_clip.render_sound(shown), demo_clip.render_sound(rest))
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
    rest = demo_clip.render_frames(showing(plan)).astype(float)
    moved = [
        np.abs(demo_clip.render_frames(showing(plan, Surprise=s)).astype(float) - rest).mean()
        for s in (0.3, 0.6, 1.0)
    ]
    loud = [np.square(demo_clip.render_sound(showing(plan, Anxiety=s))).mean() for s in (0.0, 0.3, 0.6, 1.0)]
    assert moved == sorted(moved)
    assert moved[2] > 2 * moved[0]
    assert loud == sorted(loud)
    assert loud[3] > 2 * loud[1]


def test_warps_do_not_fold_the_face():
    """Along every row and column of the patch, neighbouring pixels are fetched from neighbours in order."""
    patch = demo_face.moving_patch()
    height, width = patch.edge.shape
    for emotion, parts in [*demo_plan.FACE.items(), ("none", {})]:
        amounts = torch.zeros(len(demo_face.ACTIONS))
        for action, amount in parts.items():
            amounts[demo_face.ACTIONS.index(action)] = amount * demo_plan.RANGES["warp_strength"][2][1]
        for action, amount in demo_face.REST.items():
            amounts[demo_face.ACTIONS.index(action)] += amount
        x, y = (patch.grid + torch.einsum("a,adp->dp", amounts, patch.displacement)).view(2, height, width)
        assert bool((x.diff(dim=1) > 0).all()), emotion
        assert bool((y.diff(dim=0) > 0).all()), emotion


# --- test clips are not training clips ----------------------------------------------------------


@pytest.mark.parametrize("name", some_of(sorted(demo_plan.RANGES), lambda index, _: index % 3 == 0))
def test_ranges_of_test_clips_lie_outside_those_of_training(name):
    def values(split: str) -> list[float]:
        plans = [demo_plan.plan_clip(0, split, index) for index in range(60)]
        return [plan.scene.get(name, getattr(plan.subject.speaker, name, None)) for plan in plans]

    low, high = demo_plan.RANGES[name][0]
    assert all(low <= value <= high for split in ("train", "val") for value in values(split))
    assert all(not low < value < high for value in values("test"))


def test_nobody_is_in_two_splits():
    subjects = [{demo_plan.plan_clip(0, split, i).subject for i in range(40)} for split in demo_plan.SPLITS]
    assert not set.intersection(*subjects)
    assert len({subject.name for subject in set.union(*subjects)}) == 3 * 40 / demo_plan.CLIPS_PER_SUBJECT


def test_one_clip_in_twenty_has_no_face_and_as_many_no_sound():
    plans = [demo_plan.plan_clip(0, "train", index) for index in range(1000)]
    assert 0.03 < np.mean([not plan.has_face for plan in plans]) < 0.07
    assert 0.03 < np.mean([not plan.has_sound for plan in plans]) < 0.07
    assert all(plan.has_face or plan.has_sound for plan in plans)


# --- people --------------------------------------------------------------------------------------


def test_a_subject_is_the_same_in_all_their_clips_and_unlike_the_next():
    plans = [demo_plan.plan_clip(0, "train", index) for index in range(3 * demo_plan.CLIPS_PER_SUBJECT)]
    people = [plan.subject for plan in plans]
    assert all(people[i] == people[i - i % demo_plan.CLIPS_PER_SUBJECT] for i in range(len(people)))
    ones = people[:: demo_plan.CLIPS_PER_SUBJECT]
    for trait in ("shape", "skin", "rest", "camera", "speaker", "clothes"):
        assert len({repr(getattr(one, trait)) for one in ones}) == 3


def test_a_face_at_rest_shows_who_it_is():
    """Two clips of a person differ less than one of each of two people, whatever camera and wall."""
    same = {"size": (128, 128), "gains": (1.0, 1.0, 1.0), "sharpness": 1.0, "frames_per_second": 1}
    faces = []
    for index in range(2 * 6 * demo_plan.CLIPS_PER_SUBJECT):
        if index % demo_plan.CLIPS_PER_SUBJECT < 2:
            plan = filmed(demo_plan.plan_clip(0, "test", index), **same)
            plan = replace(showing(plan), seconds=1.0, has_face=True)
            faces.append(demo_clip.render_frames(plan)[0, 32:96, 32:96].astype(float))
    pairs = np.array(faces).reshape(-1, 2, 64, 64, 3)
    within = np.abs(pairs[:, 0] - pairs[:, 1]).mean(axis=(1, 2, 3))
    between = np.abs(pairs[:, 0] - np.roll(pairs[:, 1], 1, axis=0)).mean(axis=(1, 2, 3))
    assert np.median(within) < 0.5 * np.median(between)


def test_a_shape_is_smooth_and_does_not_fold_the_face():
    for number in range(40):
        subject, _ = demo_plan.plan_subject(0, "test", number)
        dx, dy = demo_look.paint(subject).shape[0]
        (xy, xx), (yy, yx) = (torch.gradient(v, spacing=2.0) for v in (dx, dy))
        assert float(((1 + xx) * (1 + yy) - xy * yx).min()) > 0.1, subject.shape


def test_people_look_as_though_they_felt_something_at_rest(plan):
    neutral = replace(plan.subject, rest=dict.fromkeys(plan.subject.rest, 0.0))
    frowning = replace(neutral, rest={**neutral.rest, "brow_lower": 0.5})
    faces = [demo_clip.render_frames(showing(replace(plan, subject=who))) for who in (neutral, frowning)]
    assert not np.array_equal(*faces)
    assert demo.parameters_of(replace(plan, subject=frowning))["rest.brow_lower"] == 0.5


# --- the course of an expression -----------------------------------------------------------------


def test_a_third_of_the_clips_hold_their_expression():
    for count in (60, 300):
        plans = [demo_plan.plan_clip(0, "train", index) for index in range(count)]
        assert sum(plan.constant for plan in plans) == count / 3
    assert len({plan.truth["Fear"] for plan in plans if plan.constant}) > 10


def test_a_held_expression_does_not_change_and_others_come_and_go(plan):
    plan = replace(showing(plan, Surprise=1.0), seconds=2.0)
    seconds = np.linspace(0, 2.0, 40)
    moving = [name != "eye_close" for name in demo_face.ACTIONS]  # but eyes blink
    held, changing = (
        demo_clip.action_curves(np.random.default_rng(0), replace(plan, constant=constant), seconds)[:, moving]
        for constant in (True, False)
    )
    assert torch.equal(held, held[:1].expand_as(held))
    rest = torch.tensor([plan.subject.rest[name] for name in demo_face.ACTIONS if name != "eye_close"])
    ends = (changing[[0, -1]] - rest).abs().max()
    middle = (changing - held).abs().amax(1).min()
    assert float(ends) < 0.1
    assert float(middle) < 0.02


# --- sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [64, 160, 320, 640])
def test_every_size_has_sixty_people_and_at_160_forty_to_train_on(count):
    train = {demo_plan.plan_subject(0, "train", i // demo_plan.CLIPS_PER_SUBJECT)[0].name for i in range(count)}
    others = (60 + 160) / demo_plan.CLIPS_PER_SUBJECT
    assert len(train) + others >= 60
    assert len(train) >= (40 if count >= 160 else 16)


@pytest.mark.campaign
def test_the_first_clips_of_a_larger_corpus_are_the_smaller_one(corpus, tmp_path):
    demo.write_corpus(tmp_path / "larger", {"train": 3, "val": 0, "test": 0}, seed=3, num_workers=1)
    for name in ("10000", "10001"):
        files = [folder / "videos" / f"{name}.mp4" for folder in (corpus, tmp_path / "larger")]
        assert files[0].read_bytes() == files[1].read_bytes()
    rows = [
        list(csv.DictReader((folder / "parameters.csv").open())) for folder in (corpus, tmp_path / "larger")
    ]
    assert rows[0][:2] == rows[1][:2]


# --- files --------------------------------------------------------------------------------------


def test_clips_are_h264_and_aac_as_planned(plan, tmp_path):
    demo_clip.write_clip(plan, tmp_path / "clip.mp4")
    camera = plan.subject.camera
    with av.open(str(tmp_path / "clip.mp4")) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, audio.codec_context.name) == ("h264", "aac")
        assert (video.width, video.height) == camera.size
        assert video.average_rate == camera.frames_per_second
        assert (audio.rate, audio.channels) == (camera.sample_rate, camera.channels)
        assert sum(1 for _ in container.decode(video=0)) == 6
        assert float(audio.duration * audio.time_base) == pytest.approx(plan.seconds, abs=0.1)


def test_a_clip_without_sound_has_no_audio_stream(plan, tmp_path):
    demo_clip.write_clip(replace(plan, has_sound=False), tmp_path / "clip.mp4")
    with av.open(str(tmp_path / "clip.mp4")) as container:
        assert len(container.streams.audio) == 0


def test_the_corpus_is_hume_reactions_layout(corpus):
    rows = list(csv.DictReader((corpus / "labels.csv").open()))
    assert list(rows[0]) == ["File_ID", "Split", *demo_plan.EMOTIONS, "Subject"]
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
    plans = [demo_plan.plan_clip(0, split, i) for split, n in (("train", 320), ("test", 160)) for i in range(n)]
    tables = tmp_path / "parameters.csv", tmp_path / "labels.csv"
    demo.write_tables(tmp_path, plans)
    best = demo.ceiling(*tables)
    assert list(best) == [*demo_plan.EMOTIONS, "mean"]
    assert best["mean"] > 0.9
    assert min(best.values()) > 0.8
    floors = [demo.ceiling(*tables, permute_seed=seed)["mean"] for seed in range(5)]
    assert abs(np.mean(floors)) < 0.1


def test_parameters_say_nothing_about_what_is_not_shown(plan):
    row = demo.parameters_of(replace(showing(plan, Fear=1.0), has_face=False))
    assert all(value == 0 for name, value in row.items() if name.startswith("face."))
    assert row["voice.shriek"] > 0.8


# --- a face that a detector finds ---------------------------------------------------------------


@pytest.mark.slow
def test_mtcnn_finds_the_face_where_there_is_one_and_none_where_there_is_none():
    from facenet_pytorch import MTCNN

    detector = MTCNN(min_face_size=40)
    found = {True: [], False: []}
    for index in range(8):
        plan = filmed(demo_plan.plan_clip(1, "test", index * demo_plan.CLIPS_PER_SUBJECT), frames_per_second=2)
        for has_face in (True, False):
            frames = demo_clip.render_frames(replace(plan, has_face=has_face))
            boxes, probabilities = detector.detect(frames)
            found[has_face] += [
                b is not None and p[0] >= 0.9 for b, p in zip(boxes, probabilities, strict=True)
            ]
    assert np.mean(found[True]) >= 0.95
    assert not any(found[False])
