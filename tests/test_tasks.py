"""Tasks: classes, labels, numbers and intensities of one corpus, some of them missing, in one label set."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn import metrics as reference
from support.predictions import predictions_of

from viper_e2e.config import with_settings
from viper_e2e.config.presets import micro
from viper_e2e.errors import ViperError
from viper_e2e.fusion.closed_form import fit_ridge, predict
from viper_e2e.fusion.missing_labels import fit_known
from viper_e2e.fusion.scale import LabelScale
from viper_e2e.labels import LabelSet
from viper_e2e.model.predictions import Predictions
from viper_e2e.model.viper import ViPER
from viper_e2e.scoring.groups import groups_of, score_groups
from viper_e2e.scoring.task_scores import main_score, task_scores
from viper_e2e.shards import ShardSet, ShardWriter
from viper_e2e.shards.sources import ShardError
from viper_e2e.tables.column_choices import ColumnChoices
from viper_e2e.tables.table import read_labels
from viper_e2e.tasks import Task, tasks_from_json, tasks_to_json
from viper_e2e.training.losses import IntensityLoss
from viper_e2e.training.task_losses import TaskLoss, TaskLossSettings, balanced, label_weights

TASKS = (
    Task("emotion", "class", 3),
    Task("valence", "number", 1, -1.0, 1.0),
    Task("units", "labels", 2),
    Task("reactions", "intensities", 2),
)
LABELS = LabelSet(
    ("emotion Anger", "emotion Fear", "emotion Joy", "valence", "units AU1", "units AU2", "Amusement", "Awe"),
    -1.0,
    1.0,
    tasks=TASKS,
)
nan = float("nan")


def rows(num_rows: int, seed: int = 0, missing: float = 0.3) -> np.ndarray:
    """Labels of all tasks, each task missing in a share of the clips."""
    rng = np.random.default_rng(seed)
    made = np.concatenate(
        [
            np.eye(3)[rng.integers(0, 3, num_rows)],
            rng.uniform(-1, 1, (num_rows, 1)),
            rng.integers(0, 2, (num_rows, 2)),
            rng.random((num_rows, 2)),
        ],
        1,
    )
    for _, columns in LABELS.parts:
        made[rng.random(num_rows) < missing, columns] = np.nan
    return made


def predictions(true: np.ndarray, seed: int = 1, subjects: list[str] | None = None) -> Predictions:
    guesses = np.random.default_rng(seed).random(true.shape) + 0.4 * np.nan_to_num(true)
    keys = [f"c{i}" for i in range(len(true))]
    return replace(predictions_of(guesses, true, LABELS), modalities=("audio",), keys=keys, subjects=subjects)


# --- measures ---------------------------------------------------------------------------------------


def test_measures_equal_scikit_learns_on_the_clips_that_have_the_label():
    found = predictions(rows(300))
    scores = task_scores(found, num_resamples=0)
    known = ~np.isnan(found.true[:, 0])
    true, said = found.true[known, :3].argmax(1), found.predicted[known, :3].argmax(1)
    wanted = {
        "uar": reference.balanced_accuracy_score(true, said),
        "war": reference.accuracy_score(true, said),
        "weighted_f1": reference.f1_score(true, said, average="weighted"),
        "macro_f1": reference.f1_score(true, said, average="macro"),
    }
    assert scores["emotion"].values == pytest.approx(wanted, abs=1e-6)
    assert scores["emotion"].num_clips == known.sum()
    assert (np.array(scores["emotion"].confusion) == reference.confusion_matrix(true, said)).all()
    each = reference.precision_recall_fscore_support(true, said)
    for place, row in enumerate(scores["emotion"].by_column.values()):
        assert [row[name] for name in ("precision", "recall", "f1", "num_clips")] == pytest.approx(
            [column[place] for column in each], abs=1e-6
        )
    known = ~np.isnan(found.true[:, 4])
    true, said = found.true[known, 4:6] >= 0.5, found.predicted[known, 4:6] >= 0.5
    assert scores["units"].values == pytest.approx(
        {
            "macro_f1": reference.f1_score(true, said, average="macro"),
            "micro_f1": reference.f1_score(true, said, average="micro"),
            "uar": np.mean([reference.balanced_accuracy_score(true[:, i], said[:, i]) for i in (0, 1)]),
            "accuracy": (true == said).mean(),
        },
        abs=1e-6,
    )
    known = ~np.isnan(found.true[:, 3])
    x, y = found.predicted[known, 3], found.true[known, 3]
    values = scores["valence"].values
    assert values["pearson"] == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-6)
    wanted_ccc = 2 * np.cov(x, y, bias=True)[0, 1] / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)
    assert values["ccc"] == pytest.approx(wanted_ccc, abs=1e-6)
    assert values["rmse"] == pytest.approx(reference.mean_squared_error(y, x) ** 0.5, abs=1e-6)
    assert values["mae"] == pytest.approx(reference.mean_absolute_error(y, x), abs=1e-6)


def test_a_class_that_nobody_has_counts_in_no_recall_and_is_named_all_the_same():
    true = rows(60, missing=0.0)
    true[:, :3] = np.eye(3)[np.arange(60) % 2]
    scores = task_scores(predictions(true), num_resamples=50)["emotion"]
    said = predictions(true).predicted[:, :3].argmax(1)
    recalls = [(said[true[:, i] == 1] == i).mean() for i in (0, 1)]
    assert scores.values["uar"] == pytest.approx(np.mean(recalls))
    assert np.isnan(scores.by_column["joy"]["recall"])
    assert scores.intervals["uar"].low <= scores.values["uar"] <= scores.intervals["uar"].high


def test_intervals_draw_subjects_where_all_are_known():
    """Ten clips of each subject are one draw, not ten: intervals are wider."""
    true = np.repeat(rows(12, missing=0.0), 10, 0)
    clips = predictions(true, subjects=None)
    clips = replace(clips, predicted=np.repeat(clips.predicted[::10], 10, 0))
    people = replace(clips, subjects=[f"s{i // 10}" for i in range(120)])
    by_clip, by_subject = (task_scores(one)["emotion"].intervals["war"] for one in (clips, people))
    assert by_subject.high - by_subject.low > 2 * (by_clip.high - by_clip.low)


@pytest.mark.parametrize(
    ("best_by", "told"), [("emotion.f2", "emotion.{uar,war"), ("mood.uar", "valence.{"), ("uar", "emotion.{")]
)
def test_a_checkpoint_is_chosen_by_what_is_measured_alone(best_by, told):
    scores = task_scores(predictions(rows(50)), num_resamples=0)
    assert main_score(scores, "emotion.war") == scores["emotion"].values["war"]
    assert main_score(scores, "valence.rmse") == -scores["valence"].values["rmse"]
    mains = [("emotion", "uar"), ("valence", "ccc"), ("units", "macro_f1"), ("reactions", "pearson")]
    assert main_score(scores) == pytest.approx(np.mean([scores[task].values[name] for task, name in mains]))
    with pytest.raises(ViperError, match=r"not measured") as caught:
        main_score(scores, best_by)
    assert told in str(caught.value)


# --- losses -----------------------------------------------------------------------------------------


def losses(**settings) -> TaskLoss:
    return TaskLoss(LABELS, rows(100), TaskLossSettings({"mse": 1.0}, **settings), memory_rows=4)


def batch(num_rows: int = 6, seed: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(num_rows, len(LABELS), generator=generator, requires_grad=True)
    targets = torch.tensor(rows(num_rows, seed), dtype=torch.float32)
    return logits, targets, torch.ones(num_rows)


def guesses(logits: torch.Tensor) -> torch.Tensor:
    scale = LabelScale.of(LABELS)
    assert scale is not None
    return scale.to_labels(logits, logits)


def test_each_task_has_torchs_loss_over_the_clips_that_have_its_label():
    logits, targets, weights = batch(40)
    total = torch.tensor(label_weights(LABELS, targets, weights))
    lost = losses(task_weights={"valence": 0.5})(guesses(logits), targets, weights, total)
    has = ~targets.isnan()
    emotion = torch.nn.functional.cross_entropy(logits[has[:, 0], :3], targets[has[:, 0], :3])
    units = torch.nn.functional.binary_cross_entropy_with_logits(
        logits[has[:, 4], 4:6], targets[has[:, 4], 4:6]
    )
    valence = (logits[has[:, 3], 3] - targets[has[:, 3], 3]).square().mean()
    shown = logits[has[:, 6], 6:].sigmoid()
    reactions = (shown - targets[has[:, 6], 6:]).square().mean()
    torch.testing.assert_close(lost.value, (emotion + 0.5 * valence + units + reactions).detach())
    assert set(lost.terms) == {"emotion", "valence", "units", "reactions"}


def test_a_missing_label_reaches_no_gradient_and_a_batch_without_any_is_worth_0():
    logits, targets, weights = batch()
    targets[0] = nan
    targets[1, :3] = nan
    lost = losses()(guesses(logits), targets, weights, torch.tensor(label_weights(LABELS, targets, weights)))
    lost.loss.backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert not logits.grad[0].any()
    assert not logits.grad[1, :3].any()
    none = losses()(guesses(logits), torch.full_like(targets, nan), weights, torch.zeros(4))
    assert none.value == 0
    none.loss.backward()


def test_gradients_of_two_halves_of_a_step_are_those_of_the_whole():
    logits, targets, weights = batch(8)
    total = torch.tensor(label_weights(LABELS, targets, weights))
    losses()(guesses(logits), targets, weights, total).loss.backward()
    whole, logits.grad = logits.grad, None
    loss = losses()
    for half in (slice(0, 4), slice(4, 8)):
        loss(guesses(logits[half]), targets[half], weights[half], total).loss.backward()
    torch.testing.assert_close(logits.grad, whole)


def test_balanced_classes_weigh_the_same_together_and_a_focus_lowers_what_is_easy():
    true = np.repeat(np.eye(3), [10, 2, 1], 0)
    weights = balanced(TASKS[0], true)
    assert torch.allclose(torch.tensor([10.0, 2.0, 1.0]) * weights, torch.full((3,), 13 / 3))
    assert (
        balanced(TASKS[2], np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])) == torch.tensor([2.0, 1.0])
    ).all()
    logits, targets, weights = batch(20)
    total = torch.tensor(label_weights(LABELS, targets, weights))
    values = [losses(focal_gamma=g)(guesses(logits), targets, weights, total).terms for g in (0.0, 2.0)]
    assert values[1]["emotion"] < values[0]["emotion"]
    assert values[1]["units"] < values[0]["units"]
    smoothed = losses(label_smoothing=0.1)(guesses(logits), targets, weights, total).terms["emotion"]
    has = ~targets.isnan()
    wanted = torch.nn.functional.cross_entropy(
        logits[has[:, 0], :3], targets[has[:, 0], :3], label_smoothing=0.1
    )
    torch.testing.assert_close(smoothed, wanted.detach())


def test_one_task_of_intensities_has_the_loss_that_intensities_have():
    labels = LabelSet(("Joy", "Awe"), tasks=(Task("reactions", "intensities", 2),))
    settings = TaskLossSettings({"mse": 1.0, "pearson": 0.5})
    generator = torch.Generator().manual_seed(0)
    said, targets = torch.rand(2, 8, 2, generator=generator)
    plain = IntensityLoss({"mse": 1.0, "pearson": 0.5}, 2)
    own = TaskLoss(labels, targets.double().numpy(), settings)
    for _ in range(3):
        assert (
            own(said, targets, torch.ones(8), torch.tensor([8.0])).value
            == plain(said, targets, torch.ones(8), torch.tensor(8.0)).value
        )


def test_the_memory_that_earlier_versions_saved_of_intensities_alone_goes_on():
    terms, weights = {"mse": 1.0, "pearson": 0.5}, torch.ones(8)
    plain, own = (
        IntensityLoss(terms, 2),
        TaskLoss(LabelSet(("Joy", "Awe")), np.empty((0, 2)), TaskLossSettings(terms)),
    )
    generator = torch.Generator().manual_seed(0)
    said, targets = torch.rand(2, 8, 2, generator=generator)
    plain(said, targets, weights)
    own.load_state_dict(plain.state_dict())
    saved = own.state_dict()
    assert all(torch.equal(saved[f"losses.0.{name}"], value) for name, value in plain.state_dict().items())
    assert own(targets, said, weights, torch.tensor([8.0])).value == plain(targets, said, weights).value


# --- heads ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tokens", "ensemble", "concat", "ridge"])
def test_classes_are_shares_of_1_and_labels_lie_in_0_to_1_under_every_head(kind):
    torch.manual_seed(0)
    config = with_settings(micro(), {"fusion.kind": kind})
    model = ViPER(config, LABELS).eval()
    said = model([None, None]).intensities
    torch.testing.assert_close(said[:, :3].sum(1), torch.ones(2))
    assert (said[:, 4:] >= 0).all()
    assert (said[:, 4:] <= 1).all()


def test_a_ridge_in_the_ensemble_leaves_shares_of_1():
    scale = LabelScale.of(LABELS)
    assert scale is not None
    line = torch.tensor([[0.5, -0.2, 1.2, -3.0, 1.5, -0.5, 0.4, 2.0], [-1.0] * 8])
    kept = scale.within(line)
    torch.testing.assert_close(kept[0], torch.tensor([0.5 / 1.5, 0.0, 1 / 1.5, -3.0, 1.0, 0.0, 0.4, 1.0]))
    torch.testing.assert_close(kept[1, :3], torch.full((3,), 1 / 3))


def test_a_ridge_of_tasks_predicts_what_one_of_each_task_would_on_its_own_clips():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(60, 5, generator=generator)
    known = torch.rand(60, 5, generator=generator) > 0.2
    targets = torch.tensor(rows(60), dtype=torch.float32)
    joined = fit_known(fit_ridge, features, targets, known)
    for _, columns in LABELS.parts:
        has = ~targets[:, columns].isnan().any(1)
        own = fit_ridge(features[has], targets[has][:, columns], known[has])
        everything = torch.ones(7, 5, dtype=torch.bool)
        new = torch.randn(7, 5, generator=generator)
        torch.testing.assert_close(predict(joined, new, everything)[:, columns], predict(own, new, everything))


def test_a_task_with_too_few_labels_is_predicted_as_their_mean():
    features, targets = torch.randn(6, 3), torch.rand(6, 2)
    targets[1:, 1] = nan
    fit = fit_known(fit_ridge, features, targets, torch.ones(6, 3, dtype=torch.bool))
    assert not fit.weights[:, 1].any()
    assert fit.intercepts[1] == pytest.approx(float(targets[0, 1]))


# --- in shards --------------------------------------------------------------------------------------


def packed(folder, labels: LabelSet, values: list[tuple[float, ...] | None]) -> ShardSet:
    folder.mkdir()
    with ShardWriter(folder, "train", labels, shard_size=10**9) as writer:
        for i, row in enumerate(values):
            writer.add(f"c{i}", {"mp4": bytes([i])}, file_id=f"c{i}", intensities=row)
    return ShardSet(str(folder / "train-*.tar"))


def test_shards_keep_tasks_and_missing_labels(tmp_path):
    values = [tuple(row) for row in rows(5)]
    shards = packed(tmp_path / "shards", LABELS, [*values, None])
    assert shards.known_labels.tasks == TASKS
    for i, row in enumerate(values):
        np.testing.assert_array_equal(shards.entry(i).intensities, row)
    assert shards.entry(5).intensities is None
    assert '"viper_e2e.shard/2"' in (tmp_path / "shards/train-000000.index.json").read_text()


def test_intensities_alone_are_still_packed_as_they_were(tmp_path):
    packed(tmp_path / "shards", LabelSet(("Joy",)), [(0.5,)])
    index = json.loads((tmp_path / "shards/train-000000.index.json").read_text())
    assert index["schema"] == "viper_e2e.shard/1"
    assert set(index["labels"]) == {"columns", "minimum", "maximum"}


def test_tasks_meet_by_name_in_any_order_and_other_tasks_are_refused(tmp_path):
    turned = LabelSet(
        ("valence", "emotion Joy", "emotion Anger", "emotion Fear"),
        -1.0,
        1.0,
        tasks=(Task("valence", "number", 1, -1.0, 1.0), Task("emotion", "class", 3)),
    )
    wanted = LabelSet(("emotion Anger", "emotion Fear", "emotion Joy", "valence"), -1.0, 1.0, tasks=TASKS[:2])
    shards = packed(tmp_path / "turned", turned, [(0.3, 0.0, 1.0, 0.0), (nan, 1.0, 0.0, 0.0)])
    same = shards.labelled_as(wanted, "the model")
    np.testing.assert_array_equal(same.entry(0).intensities, (1.0, 0.0, 0.0, 0.3))
    np.testing.assert_array_equal(same.entry(1).intensities, (0.0, 0.0, 1.0, nan))
    assert same.known_labels.tasks == wanted.tasks
    several = replace(wanted, tasks=(Task("emotion", "labels", 3), TASKS[1]))
    with pytest.raises(ShardError, match=r"emotion \(class\); the model has emotion \(labels\)"):
        shards.labelled_as(several, "the model")


@pytest.mark.parametrize(
    "change",
    [{"kind": "mood"}, {"size": 2.0}, {"size": 1}, {"minimum": 0.5}, {"name": 3}, {"name": "valence"}],
)
def test_tasks_that_nobody_would_write_are_refused(change):
    listed = tasks_to_json(TASKS)
    listed[0] |= change
    with pytest.raises(ValueError, match=r"task|size|name"):
        tasks_from_json(listed, len(LABELS))
    assert tasks_from_json(tasks_to_json(TASKS), len(LABELS)) == TASKS


def test_without_their_index_labels_of_tasks_are_not_taken_for_intensities(tmp_path):
    packed(tmp_path / "shards", LABELS, [tuple(row) for row in rows(2)])
    (tmp_path / "shards/train-000000.index.json").unlink()
    shards = ShardSet(str(tmp_path / "shards/train-*.tar"))
    assert shards.entry(0).intensities is None
    assert any("the shard's index says" in problem for problem in shards.problems)


# --- groups -----------------------------------------------------------------------------------------


def test_groups_are_scored_apart_and_the_largest_gap_is_told(tmp_path):
    true = rows(40, missing=0.0)
    folder = tmp_path / "shards"
    folder.mkdir()
    with ShardWriter(folder, "val", LABELS, shard_size=10**9) as writer:
        for i, row in enumerate(true):
            meta = {"Gender": "fm"[i % 2]} if i < 38 else {}
            writer.add(f"c{i:02}", {"mp4": bytes([i])}, file_id="", intensities=tuple(row), meta=meta)
    shards = ShardSet(str(folder / "*.tar"))
    found = predictions(true)
    (scores,) = score_groups(found, groups_of(shards, ["Gender"]))
    assert {name: one["emotion"].num_clips for name, one in scores.groups.items()} == {
        "(unknown)": 2,
        "f": 19,
        "m": 19,
    }
    own = task_scores(found.only(np.arange(40) % 2 + 2 * (np.arange(40) >= 38) == 0))
    assert scores.groups["f"]["emotion"].values == own["emotion"].values
    values = [scores.groups[name]["emotion"].values["uar"] for name in ("f", "m")]
    assert scores.gap("emotion") == max(values) - min(values)  # of known groups alone
    with pytest.raises(ViperError, match=r"--by Age: no clip has it; there are split, shard, Gender"):
        groups_of(shards, ["Age"])


def test_many_numbers_are_grouped_in_ranges_and_single_clips_make_no_gap(tmp_path):
    with ShardWriter(tmp_path, "val", LABELS, shard_size=10**9) as writer:
        for i, row in enumerate(rows(40, missing=0.0)):
            meta = {"Age": str(5 + i), "Speaker": str(i), "Site": str(min(i, 1))} if i else {}
            meta |= {"actorNr": str(i), "Take": f"{i:02}", "Part": f"1_{i}"}
            writer.add(f"c{i:02}", {"mp4": bytes([i])}, file_id="", intensities=tuple(row), meta=meta)
    shards = ShardSet(str(tmp_path / "*.tar"))
    names = ["actorNr", "Take", "Part"]
    found = groups_of(shards, ["age", "Speaker", "Site", *names])
    assert [len(set(found[name])) for name in names] == [40, 40, 40]  # numbers, but names
    counts = {group: found["age"].count(group) for group in sorted(set(found["age"]))}
    assert counts == {"6 to 15": 10, "16 to 25": 10, "26 to 34": 9, "35 to 44": 10, "(unknown)": 1}
    assert len(set(found["Speaker"])) == 40  # a number, but a name
    single, by_age = score_groups(predictions(rows(40, missing=0.0)), {"x": found["Site"], "y": found["age"]})
    assert single.gap("emotion") is None
    assert list(by_age.groups) == ["6 to 15", "16 to 25", "26 to 34", "35 to 44", "(unknown)"]


def test_columns_that_are_kept_with_a_clip_are_no_labels(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("File_ID,Split,Joy,Age,Gender\na,train,0.5,31,f\nb,val,0.2,,m\n")
    found = read_labels(path, ColumnChoices(meta=("age", "Gender")))
    assert found.labels.columns == ("Joy",)
    assert [row.meta for row in found.rows] == [{"Age": "31", "Gender": "f"}, {"Gender": "m"}]
