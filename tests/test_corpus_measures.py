"""Measures of single corpora: blends as BLEMORE's authors decide them, sentiment in steps, tasks together."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as reference
from support.media import make_clip
from support.predictions import predictions_of

from viper_e2e.commands.cli import main
from viper_e2e.config.presets import micro
from viper_e2e.errors import ViperError
from viper_e2e.labels import LabelSet, union_of
from viper_e2e.model.viper import ViPER
from viper_e2e.report.tables import task_tables
from viper_e2e.scoring import compare, main_score, on_common_clips, split_best_by, task_scores, with_thresholds
from viper_e2e.scoring.corpus_measures import (
    DEFAULT_THRESHOLDS,
    THRESHOLDS,
    fitted_thresholds,
    labelled_blends,
    said_blends,
)
from viper_e2e.scoring.task_scores import rulers
from viper_e2e.shards import ShardError, ShardSet, ShardWriter
from viper_e2e.shards.index import labels_from_json, labels_to_json
from viper_e2e.tables.task_columns import TaskColumns, label_set, read_tasks
from viper_e2e.tasks import (
    BLENDS,
    FURTHER_MEASURES,
    CombinedMeasure,
    Task,
    combined_from_json,
    measure_title,
    measures_of,
    tasks_from_json,
    tasks_to_json,
)

EMOTIONS = ("anger", "disgust", "fear", "happiness", "sadness", "neutral")
BLEMORE = LabelSet(EMOTIONS, tasks=(Task("emotions", "intensities", 6, measures=BLENDS, alone=5),))
SENTIMENT = LabelSet(
    ("sentiment",),
    -3.0,
    3.0,
    tasks=(Task("sentiment", "number", 1, -3.0, 3.0, measures=FURTHER_MEASURES["number"]),),
)
MER = LabelSet(
    ("emotion glad", "emotion sad", "valence"),
    -10.0,
    10.0,
    tasks=(Task("emotion", "class", 2), Task("valence", "number", 1, -10.0, 10.0)),
    combined=(CombinedMeasure("f1_mse", (("emotion.weighted_f1", 1.0), ("valence.mse", -0.25))),),
)


def blended(**shares: float) -> list[float]:
    return [shares.get(emotion, 0.0) for emotion in EMOTIONS]


def decided(values: list[float], thresholds: tuple[float, float] = DEFAULT_THRESHOLDS) -> dict[str, int]:
    """Emotion → 50, 30, 70 or 100, clip by clip, as the rule is told in words."""
    two = sorted(zip(values, EMOTIONS, strict=True), key=lambda pair: -pair[0])[:2]
    (a, first), (b, second) = two
    if b < thresholds[0]:
        return {first: 100}
    if "neutral" in (first, second):
        other = first if second == "neutral" else second
        neutral = values[-1]
        return {other: 100} if values[EMOTIONS.index(other)] >= neutral else {"neutral": 100}
    if a - b <= thresholds[1]:
        return {first: 50, second: 50}
    return {first: 70, second: 30}


def saliences(values: np.ndarray, thresholds: tuple[float, float] = DEFAULT_THRESHOLDS) -> list[dict[str, int]]:
    """The same in the form of `decided`, from what is measured by."""
    found = said_blends(values, 5, thresholds)
    made = []
    for present, order in zip(found.present, found.order, strict=True):
        names = [emotion for emotion, there in zip(EMOTIONS, present, strict=True) if there]
        shares = {1: (100,), 2: {0: (50, 50), 1: (70, 30), -1: (30, 70)}[int(order)]}[len(names)]
        made.append(dict(zip(names, shares, strict=True)))
    return made


def test_blends_are_decided_as_the_authors_do():
    values = np.random.default_rng(0).random((400, 6)).round(1)
    for pair in ((0.1, 0.1), (0.5, 0.05), (0.95, 0.3)):
        assert saliences(values, pair) == [decided(list(row), pair) for row in values]


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        (blended(happiness=0.7, anger=0.3), {"anger": 30, "happiness": 70}),
        (blended(happiness=0.5, anger=0.45), {"anger": 50, "happiness": 50}),
        (blended(happiness=0.7, anger=0.09), {"happiness": 100}),
        (blended(happiness=0.05, anger=0.02), {"happiness": 100}),
        (blended(neutral=0.6, sadness=0.4), {"neutral": 100}),
        (blended(neutral=0.4, sadness=0.4), {"sadness": 100}),
        (blended(disgust=0.5, fear=0.4, sadness=0.3), {"disgust": 50, "fear": 50}),
    ],
)
def test_a_blend_is_of_two_emotions_and_never_with_neutral(said, wanted):
    assert saliences(np.array([said])) == [wanted]


def test_presence_is_the_whole_set_and_salience_its_order_among_blends_alone():
    true = np.array(
        [
            blended(anger=1),  # right
            blended(neutral=1),  # right
            blended(disgust=0.5, happiness=0.5),  # right
            blended(disgust=0.7, happiness=0.3),  # the set alone
            blended(anger=0.3, happiness=0.7),  # one is missing
            blended(fear=1),  # one too many
        ]
    )
    said = np.array(
        [
            blended(anger=0.9),
            blended(neutral=0.9, anger=0.05),
            blended(disgust=0.5, happiness=0.5),
            blended(disgust=0.2, happiness=0.8),
            blended(happiness=0.8),
            blended(fear=0.6, sadness=0.4),
        ]
    )
    scores = task_scores(predictions_of(said, true, BLEMORE), num_resamples=50)["emotions"]
    assert scores.values["presence"] == pytest.approx(4 / 6)
    assert scores.values["salience"] == pytest.approx(1 / 3)
    assert {"presence", "salience"} <= scores.intervals.keys()
    assert list(scores.values)[-2:] == ["presence", "salience"]
    only = task_scores(predictions_of(said[:2], true[:2], BLEMORE), num_resamples=0)["emotions"]
    assert np.isnan(only.values["salience"])


def some_blends(num_clips: int = 120, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    true = np.zeros((num_clips, 6))
    for row in true:
        if rng.random() < 0.45:
            row[rng.integers(6)] = 1.0
        else:
            row[rng.choice(5, 2, replace=False)] = ((0.5, 0.5), (0.3, 0.7), (0.7, 0.3))[rng.integers(3)]
    return (true * 0.6 + 0.3 * rng.random(true.shape)).clip(0, 1), true


def test_thresholds_are_the_best_of_the_authors_grid():
    said, true = some_blends()
    wanted = labelled_blends(true)

    def score(pair: tuple[float, float]) -> float:
        found = said_blends(said, 5, pair)
        right = (found.present == wanted.present).all(1)
        is_two = wanted.present.sum(1) == 2
        return right.mean() / 2 + (right & (found.order == wanted.order))[is_two].mean() / 2

    best = max(product(THRESHOLDS.tolist(), repeat=2), key=score)
    assert fitted_thresholds(said, true, 5) == best
    found = predictions_of(said, true, BLEMORE)
    fitted = replace(found, labels=with_thresholds(found))
    assert fitted.labels.tasks[0].thresholds == best
    scores, before = (task_scores(one, num_resamples=0)["emotions"] for one in (fitted, found))
    assert scores.values["presence"] + scores.values["salience"] == pytest.approx(2 * score(best))
    assert sum(scores.values[name] for name in BLENDS) > sum(before.values[name] for name in BLENDS)
    assert "fitted" in scores.notes
    assert "never fitted" in before.notes


def test_a_model_keeps_what_was_fitted_for_it(tmp_path):
    found = predictions_of(*some_blends(), BLEMORE)
    labels = with_thresholds(found)
    ViPER(micro(), labels).save_pretrained(tmp_path / "model")
    loaded = ViPER.from_pretrained(tmp_path / "model").labels
    assert loaded.tasks == labels.tasks
    assert loaded.tasks[0].thresholds is not None


def test_runs_are_compared_each_with_its_own_thresholds():
    said, true = some_blends()
    one = predictions_of(said, true, BLEMORE)
    runs = [replace(run, labels=with_thresholds(run)) for run in (one, replace(one, predicted=said**2))]
    assert runs[0].labels.tasks[0].thresholds != runs[1].labels.tasks[0].thresholds
    alone = [task_scores(run, num_resamples=0)["emotions"].values["salience"] for run in runs]
    (compared,) = compare(on_common_clips(runs, ["one", "two"])[0], num_resamples=20)
    assert [values["salience"] for values in compared.values] == pytest.approx(alone)


# --- numbers in steps -------------------------------------------------------------------------------


def test_steps_of_sentiment_equal_scikit_learns_on_the_same_classes():
    rng = np.random.default_rng(3)
    true = rng.choice([-3.0, -1.4, -0.7, -0.1, 0.0, 0.1, 0.4, 0.7, 1.0, 2.5, 3.0], 300)
    said = (true + rng.normal(0, 0.8, 300)).clip(-3.4, 3.4)
    said[:20] = np.float32(0.1), *[np.float32(x) for x in (-0.1, 0.7, -0.7, 0.0) * 4], 0.5, 1.5, -2.5
    values = task_scores(predictions_of(said[:, None], true[:, None], SENTIMENT), num_resamples=0)[
        "sentiment"
    ].values
    x, y = said.astype(np.float32), true.astype(np.float32)
    signed = y != 0

    def in_steps(z: np.ndarray, edges: list[float]) -> np.ndarray:
        return sum((z > np.float32(edge)).astype(int) for edge in edges)

    five = [-0.7, -0.1, 0.1, 0.7]
    wanted = {
        "acc2_has0": reference.accuracy_score(y >= 0, x >= 0),
        "f1_has0": reference.f1_score(y >= 0, x >= 0, average="weighted"),
        "acc2_non0": reference.accuracy_score(y[signed] > 0, x[signed] > 0),
        "f1_non0": reference.f1_score(y[signed] > 0, x[signed] > 0, average="weighted"),
        "acc5": np.mean(np.round(x.clip(-2, 2)) == np.round(y.clip(-2, 2))),
        "acc7": np.mean(np.round(x.clip(-3, 3)) == np.round(y.clip(-3, 3))),
        "acc2_steps": reference.accuracy_score(y > 0, x > 0),
        "f1_steps": reference.f1_score(y > 0, x > 0, average="weighted"),
        "acc3_steps": reference.accuracy_score(in_steps(y, [-0.1, 0.1]), in_steps(x, [-0.1, 0.1])),
        "acc5_steps": reference.accuracy_score(in_steps(y, five), in_steps(x, five)),
    }
    assert {name: values[name] for name in wanted} == pytest.approx(wanted, abs=1e-6)
    assert set(wanted) == set(FURTHER_MEASURES["number"])


def test_labels_are_measured_on_both_sides_as_scikit_learn_does():
    """Of CMU-MOSEI's six emotions: weighted accuracy and weighted F1 of each, and their means."""
    rng = np.random.default_rng(5)
    intensities = rng.choice([0, 1 / 3, 2 / 3, 1, 3], (400, 4), p=[0.6, 0.1, 0.1, 0.1, 0.1])
    intensities[:, 3] = 0  # one that is never there
    true = (intensities > 0).astype(float)
    said = (0.6 * true + rng.uniform(0, 0.7, true.shape)).clip(0, 1)
    titles = ("happy", "sad", "anger", "fear")
    task = Task("present", "labels", 4, measures=FURTHER_MEASURES["labels"])
    labels = LabelSet(tuple(f"present {title}" for title in titles), tasks=(task,))
    (scores,) = task_scores(predictions_of(said, true, labels), num_resamples=50).values()
    each = {
        title: {
            "f1": reference.f1_score(y, x, zero_division=np.nan),
            "accuracy": reference.accuracy_score(y, x),
            "weighted_f1": reference.f1_score(y, x, average="weighted"),
            "uar": reference.recall_score(y, x, average="macro") if y.any() else (~x).mean(),
        }
        for title, y, x in zip(titles, true.T == 1, said.T >= 0.5, strict=True)
    }
    for title, wanted in each.items():
        found = {name: scores.by_column[title][name] for name in wanted}
        assert found == pytest.approx({**wanted, "f1": 0.0} if title == "fear" else wanted, abs=1e-6)
    for name in ("accuracy", "weighted_f1", "uar"):
        assert scores.values[name] == pytest.approx(np.mean([one[name] for one in each.values()]), abs=1e-6)
    assert scores.intervals["weighted_f1"].low < scores.values["weighted_f1"]
    _, table = task_tables(scores)
    assert [column.header for column in table.columns[1:]] == [
        "recall", "precision", "F1", "UAR", "accuracy", "weighted F1", "clips",
    ]  # fmt: skip


def test_a_label_on_an_edge_belongs_to_the_class_below():
    true = np.array([[0.1], [-0.1], [0.0]])
    values = task_scores(predictions_of(np.zeros((3, 1)), true, SENTIMENT), num_resamples=0)["sentiment"].values
    assert values["acc3_steps"] == pytest.approx(2 / 3)  # −0.1 is the first step's


# --- several tasks in one ---------------------------------------------------------------------------


def mer(num_clips: int = 60, seed: int = 0):
    rng = np.random.default_rng(seed)
    glad = rng.random(num_clips) < 0.5
    true = np.column_stack([glad, ~glad, rng.uniform(-2, 2, num_clips)]).astype(float)
    said = true + rng.normal(0, 0.6, true.shape)
    true[3, :2], true[7, 2] = np.nan, np.nan
    found = predictions_of(said, true, MER)
    return replace(found, subjects=[f"s{i // 4}" for i in range(num_clips)])


def test_a_combined_measure_is_the_weighted_sum_of_what_its_tasks_have():
    scores = task_scores(mer(), num_resamples=200)
    f1, mse = scores["emotion"].values["weighted_f1"], scores["valence"].values["mse"]
    overall = scores["overall"]
    assert overall.values == pytest.approx({"f1_mse": f1 - 0.25 * mse})
    assert overall.intervals["f1_mse"].low < overall.values["f1_mse"] < overall.intervals["f1_mse"].high
    assert overall.notes == "f1_mse = emotion.weighted_f1 − 0.25 · valence.mse"
    assert main_score(scores, "overall.f1_mse") == overall.values["f1_mse"]
    without = task_scores(replace(mer(), labels=replace(MER, combined=())), num_resamples=0)
    assert main_score(scores) == main_score(without)


def test_a_combined_measure_is_drawn_by_subject_and_compared():
    run = mer()
    alone = replace(run, subjects=None)
    by_subject, by_clip = (task_scores(one)["overall"].intervals["f1_mse"] for one in (run, alone))
    assert by_subject != by_clip
    better = replace(run, predicted=0.2 * run.predicted + 0.8 * np.nan_to_num(run.true))
    compared = compare([run, better], num_resamples=300)[-1]
    assert compared.task.name == "overall"
    assert compared.differences[0]["f1_mse"].value > 0
    assert dict(compared.values[0]) == pytest.approx(dict(task_scores(run)["overall"].values))


def test_a_task_that_nobody_labelled_leaves_the_sum_undefined():
    run = mer()
    run.true[:, 2] = np.nan
    assert np.isnan(task_scores(run, num_resamples=10)["overall"].values["f1_mse"])


# --- how measures travel ----------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [BLEMORE, SENTIMENT, MER])
def test_shards_carry_what_their_corpus_is_measured_by(labels, tmp_path):
    found = shards_of(labels, tmp_path).known_labels
    assert (found.tasks, found.combined) == (labels.tasks, labels.combined)
    # A model that was trained before is measured by them too, once it meets these shards.
    plain = LabelSet(labels.columns, labels.minimum, labels.maximum, tasks=tuple(map(_plain, labels.tasks)))
    met = plain.measured_as(found)
    assert (met.tasks, met.combined) == (labels.tasks, labels.combined)
    as_before = ShardSet(str(tmp_path / "*.tar")).labelled_as(plain, "a model").known_labels
    assert (as_before.tasks, as_before.combined) == (labels.tasks, labels.combined)


def shards_of(labels: LabelSet, folder: Path) -> ShardSet:
    with ShardWriter(folder, "train", labels, shard_size=10**9) as writer:
        writer.add("one", {"mp4": b"one"}, file_id="one", intensities=(0.0,) * len(labels))
    return ShardSet(str(folder / "*.tar"))


def _plain(task: Task) -> Task:
    return Task(task.name, task.kind, task.size, task.minimum, task.maximum)


def test_labels_without_further_measures_are_written_as_before():
    plain = LabelSet(SENTIMENT.columns, -3.0, 3.0, tasks=(_plain(SENTIMENT.tasks[0]),))
    told = {"name": "sentiment", "kind": "number", "size": 1, "minimum": -3.0, "maximum": 3.0}
    assert labels_to_json(plain) == {
        "columns": ["sentiment"],
        "minimum": -3.0,
        "maximum": 3.0,
        "tasks": [told],
    }
    for labels in (plain, BLEMORE, SENTIMENT, MER):
        assert labels_from_json(json.loads(json.dumps(labels_to_json(labels)))) == labels
    assert tasks_from_json(tasks_to_json(BLEMORE.tasks), 6) == BLEMORE.tasks


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"measures": ["presence"]}, "no measure 'presence' of number; there are acc2_has0"),
        ({"measures": "acc7"}, "measures 'acc7' are not a list"),
        ({"measures": [["acc7"]]}, "are not a list of names"),
        ({"kind": "combined", "size": 0}, "no kind 'combined'"),
        ({"alone": 4}, "no column 4 of 1"),
        ({"alone": True}, "no column to stand alone"),
        ({"thresholds": [0.1]}, "are not two numbers"),
        ({"thresholds": [0.1, float("nan")]}, "is nan, not a finite number"),
    ],
)
def test_what_a_strangers_file_says_of_measures_is_checked(change, told):
    task = tasks_to_json(SENTIMENT.tasks)[0] | change
    with pytest.raises(ValueError, match=told):
        tasks_from_json([task], task["size"])


@pytest.mark.parametrize(
    ("combined", "told"),
    [
        ([], "must be an object"),
        ({"a": 3}, "a weight for each"),
        ({"a": {}}, "a weight for each"),
        ({"a": {"valence": 1}}, "a weight for each"),
        ({"a": {"valence.mse": "1"}}, "a weight for each"),
        ({"a": {"valence.mse": float("inf")}}, "a weight for each"),
        ({"a": {"valence.uar": 1}}, "no valence.uar; valence has pearson"),
        ({"a": {"mood.uar": 1}}, "there is no task 'mood'"),
    ],
)
def test_a_combined_measure_of_a_strangers_file_is_checked(combined, told):
    with pytest.raises(ValueError, match=told):
        replace(MER, combined=combined_from_json(combined))


def test_a_shard_with_a_measure_that_nobody_knows_is_refused_in_one_line(tmp_path):
    shards_of(BLEMORE, tmp_path)
    (index,) = tmp_path.glob("*.json")
    index.write_text(index.read_text().replace('"salience"', '"sway"'))
    told = r"no measure 'sway' of intensities; there are presence, salience"
    with pytest.raises(ShardError, match=told) as caught:
        ShardSet(str(tmp_path / "*.tar"))
    assert "\n" not in str(caught.value)


def test_a_file_of_tasks_names_further_measures(tmp_path):
    path = tmp_path / "tasks.yaml"
    path.write_text("sentiment: {kind: number, range: [-3, 3], measures: [acc7, acc2_has0]}\n")
    (task,) = read_tasks(str(path)).columns
    labels = label_set([task], [(1.0,), (-2.0,)])
    assert labels.tasks[0].measures == ("acc7", "acc2_has0")
    path.write_text("sentiment: {kind: number, measures: [acc9]}\n")
    with pytest.raises(ViperError, match="no measure acc9 beside those of number; there are acc2_has0"):
        read_tasks(str(path))


def test_the_neutral_emotion_is_found_by_its_name():
    task = TaskColumns("emotions", "intensities", ("Neutral", "anger"), measures=BLENDS)
    assert label_set([task], [(0.0, 1.0)]).tasks[0].alone == 0


def test_a_mixture_is_measured_by_what_each_corpus_is():
    whole = union_of({"a": MER, "b": SENTIMENT})
    assert whole.combined == MER.combined
    assert "acc7" in whole.tasks[-1].measures
    other = replace(MER, combined=(CombinedMeasure("f1_mse", (("valence.mse", -1.0),)),))
    with pytest.raises(ValueError, match="the combined measure 'f1_mse' of b differs from an earlier one"):
        union_of({"a": MER, "b": other})


def test_every_measure_has_a_title_and_is_one_that_a_checkpoint_can_be_chosen_by():
    for labels in (BLEMORE, SENTIMENT, MER):
        for name, scores in task_scores(predictions_of(*[np.zeros((2, len(labels)))] * 2, labels)).items():
            task = scores.task
            assert set(scores.values) == set(measures_of(task))
            for measure in scores.values:
                assert split_best_by(f"{name}.{measure}", [one.task for one in rulers(labels)]) == (
                    name,
                    measure,
                )
                assert measure_title(measure)
            assert len(task_tables(scores)[0].rows) == len(scores.values)


TWO_TASKS = "emotion: {kind: class, classes: [sad, glad]}\nValence: {kind: number, range: [-1, 1]}\n"


def test_a_file_of_tasks_asks_for_what_is_measured_of_several_together(tmp_path):
    path = tmp_path / "tasks.yaml"
    path.write_text(TWO_TASKS + "overall: {f1_mse: {emotion.weighted_f1: 1, Valence.mse: -0.25}}\n")
    assert read_tasks(str(path)).combined == MER.combined
    assert [task.name for task in read_tasks(str(path)).columns] == ["emotion", "Valence"]
    (tmp_path / "videos").mkdir()
    for name in "ab":
        make_clip(tmp_path / f"videos/{name}.mp4", num_frames=4, sound=None)
    (tmp_path / "labels.csv").write_text("File_ID,Split,emotion,Valence\na,val,sad,.5\nb,val,glad,-.5\n")
    words = [f"--videos={tmp_path}/videos", f"--labels={tmp_path}/labels.csv", f"--out={tmp_path}/shards"]
    assert main(["pack", *words, f"--tasks={path}"]) == 0
    assert ShardSet(f"{tmp_path}/shards/val-*.tar").labels.combined == MER.combined


@pytest.mark.parametrize(
    ("overall", "told"),
    [
        ("{mean: {valence.ccc: 0.5, arousal.ccc: 0.5}}", "no arousal.ccc; there is no task 'arousal'"),
        ("{mean: {valence.uar: 0.5}}", "no valence.uar; valence has pearson"),
        ("{mean: [valence.ccc]}", "give a weight for each TASK.MEASURE, such as f1_mse: {emotion"),
        ("{mean: {valence: 1}}", "give a weight for each TASK.MEASURE"),
    ],
)
def test_a_file_of_tasks_with_a_measure_that_no_task_has_is_refused(tmp_path, overall, told):
    path = tmp_path / "tasks.yaml"
    path.write_text(f"{TWO_TASKS}overall: {overall}\n")
    with pytest.raises(ViperError, match=rf"--tasks: overall: .*{told}"):
        read_tasks(str(path))


def test_a_task_may_be_called_overall(tmp_path):
    path = tmp_path / "tasks.yaml"
    path.write_text("overall: {kind: number}\n")
    assert read_tasks(str(path)).combined == ()
    assert [task.name for task in read_tasks(str(path)).columns] == ["overall"]
