"""Scores as JSON: the keys that every file of ours has."""

from __future__ import annotations

import json

import numpy as np
from support.predictions import predictions_of

from viper_e2e.labels import HUME_REACTION, LabelSet
from viper_e2e.scoring import scores_of, scores_record
from viper_e2e.tasks import Task

NAMES = HUME_REACTION.names


def rows() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    true = rng.random((40, 7))
    predicted = true + 0.3 * rng.random((40, 7))
    predicted[:, 6] = 0.4
    return predicted, true


def record_of(labels: LabelSet = HUME_REACTION, num_resamples: int = 20) -> dict:
    record = scores_record(scores_of(predictions_of(*rows(), labels), num_resamples=num_resamples))
    return json.loads(json.dumps(record, allow_nan=False))


def test_scores_and_intervals_become_plain_json():
    scores, record = scores_of(predictions_of(*rows()), num_resamples=20).whole, record_of()
    assert list(record["pearson"]) == list(record["intervals_95"]["mse"]) == list(NAMES)
    assert record["mean_ccc"] == scores.values["ccc"]
    assert record["pearson"]["surprise"] is None
    assert record["intervals_95"]["pearson"]["surprise"] is None
    span = scores.column_intervals["fear"]["pearson"]
    assert record["intervals_95"]["pearson"]["fear"] == [span.low, span.high]
    assert record["intervals_95"]["mean_mse"] == [scores.intervals["mse"].low, scores.intervals["mse"].high]
    assert (record["intervals_over"], record["num_clips"]) == ("clips", 40)
    assert (record["constant_labels"], record["constant_predictions"]) == ([], ["surprise"])


def test_without_resamples_there_are_no_intervals():
    assert "intervals_95" not in record_of(num_resamples=0)


def test_intensities_are_a_task_whether_it_has_a_name_or_not():
    named = LabelSet(HUME_REACTION.columns, tasks=(Task("reactions", "intensities", 7),))
    record, own = record_of(), record_of(named)
    assert record.pop("tasks") == {"intensities": own.pop("tasks")["reactions"]}
    assert record == own


def test_columns_of_all_tasks_are_measured_as_numbers():
    tasks = (Task("mood", "class", 3), Task("reactions", "intensities", 4))
    titles = [f"{'mood' if i < 3 else 'reactions'} {name}" for i, name in enumerate(HUME_REACTION.columns)]
    labels = LabelSet(tuple(titles), tasks=tasks)
    record = record_of(labels)
    assert list(record["pearson"]) == list(labels.names)
    assert [*record["pearson"].values()] == [*record_of()["pearson"].values()]
    assert list(record["tasks"]["mood"]["by_class"]) == ["adoration", "amusement", "anxiety"]
    assert "by_class" not in record["tasks"]["reactions"]
