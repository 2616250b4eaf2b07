"""Lines of ``metrics.jsonl`` become values and the same lines again; those of earlier versions are read too."""

from __future__ import annotations

import json

import pytest

from viper_e2e.report import EpochRecord, RunLog, main_measure_of
from viper_e2e.runtime import plain_json
from viper_e2e.training.tables import epoch_line

MEANS = {"mean_pearson": 0.25, "mean_ccc": None, "mean_mse": 0.5}
PLAIN = {"num_clips": 4, "pearson": {"joy": 0.25, "fear": None}, **MEANS, "constant_labels": ["fear"]}
MOOD = {"kind": "class", "num_clips": 4, "uar": 0.5, "war": 0.25, "intervals_95": {}}
VALENCE = {"kind": "number", "num_clips": 4, "ccc": -0.125, "rmse": 0.75, "intervals_95": {}}
ALONE = {"kind": "intensities", "num_clips": 4, "pearson": 0.25, "ccc": None, "mse": 0.5}
ONE_TASK = PLAIN | {"tasks": {"mood": MOOD}, "judged_by": "mood UAR", "best_by": 0.5}
TASKS = PLAIN | {"tasks": {"mood": MOOD, "valence": VALENCE}, "judged_by": "valence.rmse", "best_by": -0.75}
UNNAMED = PLAIN | {"tasks": {"intensities": ALONE}, "judged_by": "mean Pearson", "best_by": 0.25}
LINES = {
    "nothing was trained on": {"epoch": 0, "step": 0, "train_loss": None},
    "no tasks": {"val": UNNAMED, "yardstick": {"num_train_clips": 8, "num_features": 96, **UNNAMED}},
    "a task": {
        "val": ONE_TASK,
        "yardstick": {"num_train_clips": 8, "num_features": 96, "of_clips": 9, **ONE_TASK},
    },
    "tasks": {"task_weights": {"mood": 1.5, "valence": 0.5}, "val": TASKS | {"weights": "average"}},
    "corpora": {
        "train": {"a": {"mood": {"cross_entropy": 1.5, "num_clips": 8}}, "b": {}},
        "val": TASKS | {"corpora": {"a": {"mood": MOOD}}, "num_left_out": 2, "without_number": ["x"]},
    },
    "no yardstick": {"yardstick": {"reason": "there are none", "num_train_clips": 6, "of_clips": 8}},
}


@pytest.mark.parametrize("given", LINES.values(), ids=LINES)
def test_a_line_is_the_same_again_to_the_letter(given):
    line = {"epoch": 3, "step": 12, "train_loss": 0.1} | given
    record = EpochRecord.from_json(json.loads(json.dumps(line)))
    assert plain_json.dumps(record.to_json()) == plain_json.dumps(line)
    assert EpochRecord.from_json(record.to_json()) == record
    assert RunLog.from_json([line], "mood.war").epochs == (record,)


def before(val: dict) -> dict:
    """As versions before 0.6 wrote it."""
    return {name: value for name, value in val.items() if name != "judged_by"}


def judged(val: dict, best_by: str = "") -> tuple[str, float | None, float | None]:
    line = {"epoch": 0, "step": 1, "train_loss": 0.1, "val": val}
    judgement = RunLog.from_json([line], best_by).best.scores.judgement
    return judgement.measure, judgement.score, judgement.value


def test_what_is_judged_by_is_told_with_its_own_sign():
    assert judged(UNNAMED) == ("mean Pearson", 0.25, 0.25)
    assert judged(TASKS) == ("valence.rmse", -0.75, 0.75)
    assert judged(TASKS | {"best_by": None}) == ("valence.rmse", None, None)


def test_a_line_of_an_earlier_version_is_judged_by_what_its_run_was():
    assert judged(before(ONE_TASK)) == ("mood UAR", 0.5, 0.5)
    assert judged(before(TASKS))[0] == "mean of the tasks' main measures"
    assert judged(before(TASKS), "valence.rmse") == ("valence.rmse", -0.75, 0.75)


def test_a_line_of_a_version_that_knew_the_mean_pearson_alone_is_judged_by_it():
    assert judged(PLAIN, "valence.rmse") == ("mean Pearson", 0.25, 0.25)
    assert judged({"mean_pearson": 0.5}) == ("mean Pearson", 0.5, 0.5)
    (one,) = RunLog.from_json([{"epoch": 0, "step": 1, "train_loss": 0.1, "val": PLAIN}]).validated
    assert one.scores.tasks == {
        "intensities": {"kind": "intensities", "pearson": 0.25, "ccc": None, "mse": 0.5}
    }


def test_a_task_of_classes_may_be_called_intensities():
    assert main_measure_of({"intensities": "intensities"}) == "mean Pearson"
    assert main_measure_of({"intensities": "class"}) == "intensities UAR"
    named = RunLog.from_json(
        [{"epoch": 0, "step": 1, "train_loss": 0.1, "val": UNNAMED | {"tasks": {"intensities": MOOD}}}]
    )
    assert "intensities UAR 0.5000" in epoch_line(named.epochs[0])


def test_the_best_epoch_is_the_one_of_the_least_error_where_nothing_else_is_defined():
    undefined = PLAIN | {"mean_pearson": None}
    lines = [
        {"epoch": epoch, "step": epoch, "train_loss": None, "val": undefined | {"mean_mse": mse}}
        for epoch, mse in enumerate([0.5, 0.25, None])
    ]
    assert RunLog.from_json(lines).best.epoch.epoch == 1
    assert (
        RunLog.from_json([*lines, {"epoch": 3, "step": 3, "train_loss": 0.1, "val": PLAIN}]).best.epoch.epoch
        == 3
    )
    assert RunLog.from_json(lines[:0]).best is None
