"""Folds: no subject is in two, all are alike in size and labels, and the same seed makes the same ones."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support.shard_sets import MOODS, mood, write_shards

from viper_e2e.commands.parsing import parse_train
from viper_e2e.config import TrainConfig
from viper_e2e.errors import ViperError
from viper_e2e.experiments.folding import Folding
from viper_e2e.labels import LabelSet
from viper_e2e.splits.folds import Folds, folds_from, inner_split, make_folds, notes_on, read_folds
from viper_e2e.splits.stratifying import dealt_groups, strata_of
from viper_e2e.tasks import Task
from viper_e2e.training.data import open_splits


def drawn_groups(seed: int, num_groups: int, num_classes: int = 3) -> tuple[list[str], np.ndarray]:
    """Groups of 1 to 12 clips, each with a leaning of its own, as people have."""
    rng = np.random.default_rng(seed)
    groups, strata = [], []
    for group in range(num_groups):
        size = int(rng.integers(1, 13))
        leaning = rng.dirichlet(np.ones(num_classes))
        groups += [f"s{group}"] * size
        strata += list(np.eye(num_classes)[rng.choice(num_classes, size, p=leaning)])
    return groups, np.array(strata)


@pytest.mark.parametrize("num_folds", [2, 5, 10])
@pytest.mark.parametrize("seed", range(4))
def test_groups_stay_whole_no_fold_is_empty_and_shares_are_even(num_folds, seed):
    groups, strata = drawn_groups(seed, 60)
    dealt = dealt_groups(groups, strata, num_folds, seed)
    assert set(dealt) == set(groups)
    folds = np.array([dealt[group] for group in groups])
    assert set(folds) == set(range(num_folds))
    sizes = np.bincount(folds, minlength=num_folds) / len(folds)
    assert np.abs(sizes - 1 / num_folds).max() < 0.35 / num_folds
    by_class = np.array([strata[folds == fold].sum(0) for fold in range(num_folds)]) / strata.sum(0)
    assert np.abs(by_class - 1 / num_folds).max() < 0.6 / num_folds


@pytest.mark.parametrize("seed", range(3))
def test_shares_are_as_even_as_those_of_scikit_learn(seed):
    sklearn = pytest.importorskip("sklearn.model_selection")
    groups, strata = drawn_groups(seed, 80)
    dealt = dealt_groups(groups, strata, 5, seed)
    theirs = np.zeros(len(groups), int)
    splitter = sklearn.StratifiedGroupKFold(5, shuffle=True, random_state=seed)
    for fold, (_, held_out) in enumerate(splitter.split(groups, strata.argmax(1), groups)):
        theirs[held_out] = fold

    def unevenness(folds: np.ndarray) -> float:
        return float(np.std([strata[folds == fold].sum(0) / strata.sum(0) for fold in range(5)], axis=0).sum())

    ours = np.array([dealt[group] for group in groups])
    assert unevenness(ours) <= 1.25 * unevenness(theirs)


def test_the_seed_decides_and_the_order_of_clips_does_not():
    groups, strata = drawn_groups(1, 30)
    order = np.random.default_rng(0).permutation(len(groups))
    moved = dealt_groups([groups[i] for i in order], strata[order], 5, 7)
    assert dealt_groups(groups, strata, 5, 7) == moved
    assert any(dealt_groups(groups, strata, 5, seed) != moved for seed in range(3))


def test_as_many_folds_as_groups_leave_one_group_out_each():
    groups, strata = ["a"] * 9 + ["b"] * 9 + ["c", "d", "e"], np.zeros((21, 0))
    assert sorted(dealt_groups(groups, strata, 5, 0).values()) == [0, 1, 2, 3, 4]
    with pytest.raises(ViperError, match="6 folds of 5 groups"):
        dealt_groups(groups, strata, 6, 0)


def rows(num_subjects: int = 6, clips: int = 3, **meta: str) -> list:
    return [
        (f"c{subject:02}_{clip}", mood((subject + clip) % 3), f"s{subject}", dict(meta) or None)
        for subject in range(num_subjects)
        for clip in range(clips)
    ]


def test_made_folds_are_written_and_read_back_and_share_no_subject(tmp_path):
    shards = write_shards(tmp_path / "shards", rows())
    made = make_folds(shards, 3, by="Subject", seed=2)
    made.write(tmp_path / "folds.json")
    read = read_folds(tmp_path / "folds.json")
    assert (dict(read.of_clips), read.by) == (dict(made.of_clips), "Subject")
    assert made.names == ("1", "2", "3")
    assert made.made == {"by": "Subject", "stratified_by": "mood", "num_folds": 3, "seed": 2}
    seen = []
    for fold in made.names:
        train, held_out = read.held_out(shards, fold)
        subjects = [{one.entry(i).subject for i in range(len(one))} for one in (train, held_out)]
        assert not subjects[0] & subjects[1]
        assert len(train) + len(held_out) == len(shards)
        seen += [held_out.entry(i).key for i in range(len(held_out))]
    assert sorted(seen) == sorted(shards.entry(i).key for i in range(len(shards)))


def test_a_planted_leak_is_found_and_named(tmp_path):
    clips = [(f"c{i}", mood(i % 3), f"s{i // 2}", {"Fold": str(i % 2 + 1)}) for i in range(4)]
    clips += [("c8", mood(0), "s8", {"Fold": "1"}), ("c9", mood(1), "s9", {"Fold": "2"})]
    shards = write_shards(tmp_path, clips)
    with pytest.raises(ViperError, match=r"Subject in more than one fold.*: s0 \(1, 2\), s1 \(1, 2\)$"):
        folds_from(shards, "Fold")
    made = make_folds(shards, 2, by="Subject")
    leaking = Folds({**made.of_clips, "c0": "1", "c1": "2"}, made.by, made.made)
    leaking.write(tmp_path / "folds.json")
    with pytest.raises(ViperError, match=r": s0 \(1, 2\)$"):
        folds_from(shards, str(tmp_path / "folds.json"))


def test_folds_come_from_what_was_packed_and_are_named_as_there(tmp_path):
    clips = [(f"c{i}", mood(i % 3), f"s{i}", {"Session": f"Ses{i % 11}"}) for i in range(22)]
    shards = write_shards(tmp_path, clips)
    folds = folds_from(shards, "Session")
    assert folds.names == tuple(f"Ses{i}" for i in range(11))
    train, held_out = folds.held_out(shards, "Ses10")
    assert [held_out.entry(i).key for i in range(len(held_out))] == ["c10", "c21"]
    assert len(train) == 20
    # Leave one subject out.
    assert len(folds_from(shards, "subject").names) == 22


def test_subjects_that_other_groups_tear_apart_are_told(tmp_path):
    clips = [(f"c{i}", mood(i % 3), f"s{i % 2}", {"Session": f"Ses{i // 2}"}) for i in range(8)]
    shards = write_shards(tmp_path, clips)
    for made in (make_folds(shards, 2, by="Session"), make_folds(shards, 4, by="clip")):
        (note,) = notes_on(shards, made)
        assert note.startswith(f"2 subjects are in more than one fold (--by {made.by})")
        assert "s0 (1, 2" in note
    with pytest.raises(ViperError, match="Subject in more than one fold"):
        folds_from(shards, "Session")
    assert len(folds_from(shards, "Session", by="Session").names) == 4


def test_validation_whose_people_may_be_in_training_says_so(tmp_path):
    named = [(f"c{i}", mood(i % 3), f"s{i}", None) for i in range(6)]
    nobody = [(f"d{i}", mood(i % 3), None if i else "x", None) for i in range(4)]
    write_shards(tmp_path / "named", named)
    write_shards(tmp_path / "nobody", nobody)
    write_shards(tmp_path / "others", [(f"e{i}", mood(i % 3), f"t{i}", None) for i in range(4)])
    told = {}
    for name in ("nobody", "others"):
        config = TrainConfig(train_shards=f"{tmp_path}/named/*.tar", val_shards=f"{tmp_path}/{name}/*.tar")
        told[name] = [line for line in open_splits(config)[1].problems if "subject" in line]
    assert told["others"] == []
    (line,) = told["nobody"]
    assert line.startswith("--val-shards: 3 of 4 clips of validation have no subject, so nobody can tell")


def test_a_class_that_one_fold_alone_has_is_told(tmp_path):
    clips = [(f"c{i}", mood(2 if i in (4, 6) else i % 4 // 2), f"s{i}", {"Fold": str(i % 2)}) for i in range(8)]
    shards = write_shards(tmp_path, clips)
    (note,) = notes_on(shards, folds_from(shards, "Fold"))
    assert note.startswith("mood sad: all clips that have it are in fold 0")
    others = write_shards(tmp_path / "without", [(key, None, *more) for key, _, *more in clips])
    assert list(notes_on(others, folds_from(others, "Fold"))) == []


def folding(folder, fold_with_valence: str | None, *words: str) -> Folding:
    """Of six clips in two folds, of which one alone may have labels of the task valence."""
    labels = LabelSet(
        ("valence", *MOODS.columns), tasks=(Task("valence", "number", 1), Task("mood", "class", 3))
    )
    write_shards(
        folder,
        [
            (
                f"c{i}",
                (0.5 if str(i % 2) == fold_with_valence else np.nan, *mood(i % 3)),
                f"s{i}",
                {"Fold": str(i % 2)},
            )
            for i in range(6)
        ],
        labels,
    )
    given = ["--preset=micro", f"--train-shards={folder}/all-*.tar", f"--run-dir={folder}/run", *words]
    return Folding(parse_train(given, "viper cv"), source="Fold", by="", stratify="")


def test_a_fold_whose_model_could_not_learn_a_task_is_refused_before_any_is_trained(tmp_path):
    with pytest.raises(ViperError, match=r"where fold 1 is held out, no clip to train on has .* 'valence'"):
        folding(tmp_path, "1")
    with pytest.raises(ViperError, match="2 clips to train on where fold 0 is held out; --head ridge needs 3"):
        folding(tmp_path / "few", "1", "--head=ridge", "--inner-val=0.3")


def test_clips_without_a_group_or_a_fold_are_counted_named_and_in_no_fold(tmp_path):
    clips = [
        (f"c{i}", mood(i % 3), f"s{i}" if i > 1 else None, {"Fold": str(i % 2)} if i < 7 else None)
        for i in range(8)
    ]
    shards = write_shards(tmp_path, clips)
    made = make_folds(shards, 2, by="Subject")
    assert set(made.of_clips) == {f"c{i}" for i in range(2, 8)}
    assert made.notes == (
        "2 of 8 clips have no Subject and are left out of all folds: c0, c1; "
        "--by clip takes each clip on its own",
    )
    given = folds_from(shards, "Fold")
    assert given.notes == ("1 of 8 clips are in no fold and are left out: c7",)
    train, held_out = given.held_out(shards, "1")
    assert len(train) + len(held_out) == 7


def test_what_cannot_be_folded_is_refused_in_one_line(tmp_path):
    shards = write_shards(tmp_path / "shards", rows())
    alone = write_shards(tmp_path / "alone", [(f"c{i}", mood(i % 3), None, {"Fold": "1"}) for i in range(5)])
    file = tmp_path / "folds.json"
    for what, message in (
        (lambda: make_folds(shards, 7, by="Subject"), "only 6 different values of Subject"),
        (lambda: make_folds(shards, 19, by="clip"), "only 18 clips"),
        (lambda: make_folds(shards, 1, by="Subject"), "at least 2 are needed"),
        (lambda: make_folds(shards, 2, by="Session"), "--by Session: no clip has it; there are subject, split"),
        (lambda: make_folds(shards, 2, by="Subject", stratify="age"), "no such task; there are mood, and none"),
        (lambda: make_folds(alone, 2, by="Subject"), "no clip has a subject .* or add --by clip"),
        (lambda: folds_from(shards, "Fold"), "--folds Fold: no clip has it"),
        (lambda: folds_from(alone, "Fold"), "at least two folds with labelled clips are needed, there are: 1"),
        (lambda: make_folds(shards, 3, by="Subject").held_out(shards, "4"), "--fold 4: no clip .* are 1, 2, 3"),
        (lambda: folds_from(shards, str(tmp_path / "none.json")), "no such file"),
    ):
        with pytest.raises((ViperError, OSError), match=message):
            what()
    for text, message in (
        ("{", "not valid JSON"),
        ("[1]", "a JSON object is expected"),
        ('{"schema": "other/3"}', "schema 'other/3'"),
        ('{"c": [1]}', "each clip's is a word or a number"),
    ):
        file.write_text(text)
        with pytest.raises(ViperError, match=message):
            read_folds(file)


def test_a_plain_object_of_clips_is_a_file_of_folds(tmp_path):
    shards = write_shards(tmp_path / "shards", rows())
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({f"c{s:02}_{c}": s % 2 for s in range(6) for c in range(3)}))
    assert folds_from(shards, str(file)).names == ("0", "1")


def test_without_subjects_it_is_said_that_no_leak_could_be_found(tmp_path):
    shards = write_shards(tmp_path, [(f"c{i}", mood(i % 3), None, {"Fold": str(i % 2)}) for i in range(6)])
    for folds in (
        folds_from(shards, "Fold"),
        make_folds(shards, 2, by="clip"),
        make_folds(shards, 2, by="Fold"),
    ):
        (note,) = notes_on(shards, folds)
        assert note.startswith("no clip has a subject, so it cannot be checked whether people are in several")


@pytest.mark.parametrize("stratify", ["", "mood", "valence", "traits", "none"])
def test_each_kind_of_task_is_shared_out_evenly_with_labels_missing(tmp_path, stratify):
    tasks = (Task("valence", "number", 1, -1.0, 1.0), Task("mood", "class", 3), Task("traits", "labels", 2))
    labels = LabelSet(("valence", *MOODS.columns, "traits shy", "traits loud"), -1.0, 1.0, tasks=tasks)
    rng = np.random.default_rng(0)
    clips = []
    for i in range(90):
        values = [rng.uniform(-1, 1), *mood(int(rng.integers(3))), *rng.integers(0, 2, 2).astype(float)]
        if i % 9 == 0:
            values[1:4] = [np.nan] * 3
        clips.append((f"c{i}", tuple(map(float, values)), f"s{i // 3}", None))
    shards = write_shards(tmp_path, clips, labels)
    strata, how = strata_of(shards, range(90), stratify)
    assert how == {"": "mood", "valence": "fifths of valence"}.get(stratify, stratify)
    made = make_folds(shards, 3, by="Subject", stratify=stratify)
    folds = np.array([int(made.of_clips[f"c{i}"]) for i in range(90)])
    assert np.bincount(folds)[1:].tolist() == [30, 30, 30]
    for column in strata.T:
        share = np.array([column[folds == fold].sum() for fold in (1, 2, 3)]) / column.sum()
        assert np.abs(share - 1 / 3).max() < 0.1
    if stratify in ("", "mood"):
        assert strata.sum() == 80


def test_an_inner_validation_split_has_subjects_of_its_own(tmp_path):
    shards = write_shards(tmp_path / "known", rows(num_subjects=20))
    train, inner, note = inner_split(shards, 0.1, "Subject")
    assert (len(train), len(inner)) == (54, 6)
    subjects = [{one.entry(i).subject for i in range(len(one))} for one in (train, inner)]
    assert not subjects[0] & subjects[1]
    assert note == "validated on 6 of 60 training clips (--inner-val), each Subject in one of the two"
    unknown = write_shards(tmp_path / "unknown", [(f"c{i}", mood(i % 3), None, None) for i in range(20)])
    train, inner, note = inner_split(unknown, 0.25, "Subject")
    assert (len(train), len(inner)) == (15, 5)
    assert "(--inner-val), clip by clip; 20 of 20 clips have no subject, so people may be in both" in note
    some = [(f"c{i}", mood(i % 3), f"S{i}" if i else None, None) for i in range(20)]
    train, inner, note = inner_split(write_shards(tmp_path / "some", some), 0.1, "Subject")
    assert "each Subject in one of the two; 1 of 20 clips have no subject" in note
    assert "c0" in {train.entry(i).key for i in range(len(train))}
    one = write_shards(tmp_path / "one", rows(num_subjects=1))
    with pytest.raises(ViperError, match="all clips have the same Subject"):
        inner_split(one, 0.1, "Subject")


def test_inner_validation_is_on_the_same_clips_whatever_the_seed(tmp_path):
    write_shards(tmp_path, rows(num_subjects=20))
    configs = [TrainConfig(train_shards=f"{tmp_path}/*.tar", inner_val=0.2, seed=seed) for seed in range(4)]
    both = [[shards.content_id() for shards in open_splits(config)] for config in configs]
    assert both == both[:1] * 4
