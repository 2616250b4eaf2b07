"""Agreement of numbers: Pearson, CCC, MSE of each column and as means, with their bootstrap intervals."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.predictions import predictions_of
from torchmetrics.functional import concordance_corrcoef, mean_squared_error, pearson_corrcoef

from viper_e2e.labels import HUME_REACTION, LabelSet
from viper_e2e.report.tables import notes_on_constants
from viper_e2e.scoring.task_scores import TaskScores, scores_of
from viper_e2e.tasks import Task

NAMES = HUME_REACTION.names
E = len(NAMES)


def rows(number: int, seed: int = 0, noise: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    targets = rng.random((number, E))
    return targets + noise * rng.random((number, E)), targets


def score(predictions, targets, labels=HUME_REACTION, *, num_resamples=0, subjects=None, **given) -> TaskScores:
    found = replace(predictions_of(predictions, targets, labels, **given), subjects=subjects)
    return scores_of(found, num_resamples=num_resamples).whole


def each(scores: TaskScores, measure: str) -> list[float]:
    return [row[measure] for row in scores.by_column.values()]


def test_scores_are_those_of_torchmetrics():
    x, y = rows(4000)
    result, given = score(x, y), (torch.from_numpy(x), torch.from_numpy(y))
    np.testing.assert_allclose(each(result, "pearson"), pearson_corrcoef(*given), atol=1e-5)
    # Its CCC mixes n and n - 1: equal in the limit.
    np.testing.assert_allclose(each(result, "ccc"), concordance_corrcoef(*given), atol=1e-3)
    np.testing.assert_allclose(each(result, "mse"), mean_squared_error(*given, num_outputs=E), atol=1e-6)
    for measure in ("pearson", "ccc", "mse"):
        assert result.values[measure] == pytest.approx(np.mean(each(result, measure)))
    assert (result.num_clips, notes_on_constants(result)) == (4000, [])


def test_ccc_is_lins():
    x, y = rows(30)
    cov = ((x - x.mean(0)) * (y - y.mean(0))).mean(0)
    bias = (x.mean(0) - y.mean(0)) ** 2
    np.testing.assert_allclose(each(score(x, y), "ccc"), 2 * cov / (x.var(0) + y.var(0) + bias), rtol=1e-10)
    # Agreement, not only correlation: a shifted copy has r = 1 and a lower CCC.
    shifted = score(y + 0.5, y)
    assert shifted.values["pearson"] == pytest.approx(1)
    assert shifted.values["ccc"] < 0.6


def test_clips_that_could_not_be_read_may_hold_anything():
    x, y = rows(20)
    valid = np.arange(20) != 3
    dirty, unlabelled = x.copy(), y.copy()
    dirty[3], unlabelled[3] = np.inf, np.nan
    assert score(dirty, unlabelled, valid=valid) == score(x, y, valid=valid) == score(x[valid], y[valid])


def test_an_emotion_is_measured_on_the_clips_that_have_its_label():
    x, y = rows(60)
    lacking = y.copy()
    lacking[:30, 0] = np.nan
    result = score(x, lacking)
    assert result.num_clips == 60
    assert [row["num_clips"] for row in result.by_column.values()] == [30, *[60] * (E - 1)]
    assert each(result, "pearson")[0] == pytest.approx(np.corrcoef(x[30:, 0], y[30:, 0])[0, 1])
    assert each(result, "pearson")[1:] == pytest.approx(each(score(x, y), "pearson")[1:])
    assert result.values["mae"] == pytest.approx(np.mean(np.nanmean(np.abs(x - lacking), 0)))


def test_an_emotion_without_any_label_is_in_no_mean():
    x, y = rows(60)
    lacking = y.copy()
    lacking[:, 0] = np.nan
    result, rest = score(x, lacking), score(x[:, 1:], y[:, 1:], LabelSet(HUME_REACTION.columns[1:]))
    assert result.values == pytest.approx(rest.values)
    assert result.constant_labels == NAMES[:1]


def test_intensities_have_the_scores_that_they_have_as_a_task():
    x, y = rows(50)
    named = LabelSet(HUME_REACTION.columns, tasks=(Task("reactions", "intensities", E),))
    found = scores_of(predictions_of(x, y, named), num_resamples=50)
    alone = score(x, y, num_resamples=50)
    assert found.tasks["reactions"].values == found.whole.values == alone.values
    assert found.tasks["reactions"].column_intervals == found.whole.column_intervals == alone.column_intervals
    assert not found.of_one_task


def test_labels_that_do_not_vary_are_left_out_and_said_so():
    x, y = rows(50)
    y[:, 4] = 0.1
    result = score(x, y)
    assert math.isnan(each(result, "pearson")[4])
    assert math.isnan(each(result, "ccc")[4])
    rest = [r for i, r in enumerate(each(result, "pearson")) if i != 4]
    assert result.values["pearson"] == pytest.approx(np.mean(rest))
    assert result.constant_labels == ("empathic_pain",)
    assert "left out of the means: empathic_pain" in notes_on_constants(result)[0]
    assert result.values["mse"] == pytest.approx(np.mean(each(result, "mse")))


def test_giving_up_on_an_emotion_does_not_pay():
    x, y = rows(50, noise=3.0)
    honest = score(x, y)
    x[:, 1:] = 0.2
    lazy = score(x, y)
    assert math.isnan(each(lazy, "pearson")[1])
    assert lazy.values["pearson"] == pytest.approx(each(lazy, "pearson")[0] / E)
    assert lazy.values["pearson"] < honest.values["pearson"]
    assert lazy.constant_predictions == NAMES[1:]
    assert "counted as 0: amusement" in notes_on_constants(lazy)[0]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("number", [0, 1])
def test_too_few_clips_give_nan_and_no_warning(number):
    result = score(*rows(number), num_resamples=10)
    assert math.isnan(result.values["pearson"])
    assert all(math.isnan(r) for r in each(result, "pearson"))
    assert result.num_clips == number
    assert math.isnan(result.values["mse"]) == (number == 0)
    assert not result.intervals


def test_constants_are_recognised_however_large():
    x, y = rows(5000)
    y[:, 0] = np.float32(1e4 / 3)
    assert score(x, y).constant_labels == (NAMES[0],)


def test_intervals_hold_the_score_narrow_with_rows_and_follow_the_seed():
    few, many = rows(60, noise=2.0), rows(2000, noise=2.0)
    wide, narrow = score(*few, num_resamples=1000), score(*many, num_resamples=200)
    for measure in ("pearson", "ccc", "mse"):
        assert wide.intervals[measure].low < wide.values[measure] < wide.intervals[measure].high
        for name, row in wide.by_column.items():
            assert wide.column_intervals[name][measure].low < row[measure]
            assert row[measure] < wide.column_intervals[name][measure].high
    widths = [one.intervals["pearson"].high - one.intervals["pearson"].low for one in (wide, narrow)]
    assert widths[1] < widths[0] / 3
    assert score(*few, num_resamples=1000) == wide
    assert scores_of(predictions_of(*few), seed=1).whole.intervals != wide.intervals


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    covered = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        targets = rng.standard_normal((80, 1))
        found = predictions_of(targets + rng.standard_normal((80, 1)), targets, LabelSet(("joy",)))
        interval = scores_of(found, num_resamples=200, seed=seed).whole.intervals["pearson"]
        covered += interval.low < math.sqrt(0.5) < interval.high
    assert 86 <= covered <= 100


@pytest.mark.filterwarnings("error")
def test_intervals_of_a_constant_column_are_nan_without_a_warning():
    x, y = rows(30)
    y[:, 2] = 0
    result = score(x, y, num_resamples=50)
    assert math.isnan(result.column_intervals[NAMES[2]]["pearson"].low)
    assert not math.isnan(result.intervals["pearson"].low)


def test_intervals_over_subjects_are_those_of_their_clips_taken_once():
    rng = np.random.default_rng(3)
    labels = LabelSet(("joy", "fear"))
    x, y = rng.random((30, 2)), rng.random((30, 2))
    alone = score(x, y, labels, num_resamples=200)
    people = np.repeat(np.arange(30), 4)
    subjects = [f"s{person:02}" for person in people]
    several = x[people], y[people], labels
    by_subject = score(*several, num_resamples=200, subjects=subjects)
    assert by_subject.intervals["pearson"].low == pytest.approx(alone.intervals["pearson"].low)
    by_clip = score(*several, num_resamples=200, subjects=[None, *subjects[1:]])
    assert replace(by_clip, caution="") == score(*several, num_resamples=200)
    assert by_clip.intervals["pearson"].high < by_subject.intervals["pearson"].high
