from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torchmetrics.functional import concordance_corrcoef, mean_squared_error, pearson_corrcoef

from viper_e2e.errors import ViperError
from viper_e2e.labels import HUME_REACTION
from viper_e2e.scoring.metrics import batch_sums, bootstrap, empty_sums, scores

NAMES = HUME_REACTION.names
E = len(NAMES)


def rows(number: int, seed: int = 0, noise: float = 0.5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    targets = torch.rand(number, E, generator=generator)
    return targets + noise * torch.rand(number, E, generator=generator), targets


def score(predictions, targets, weights=None):
    return scores(
        batch_sums(predictions, targets, torch.ones(len(targets)) if weights is None else weights), NAMES
    )


def test_scores_are_those_of_torchmetrics():
    predictions, targets = rows(4000)
    result = score(predictions, targets)
    np.testing.assert_allclose(result.pearson, pearson_corrcoef(predictions, targets), atol=1e-5)
    # Its CCC mixes n and n - 1: equal in the limit.
    np.testing.assert_allclose(result.ccc, concordance_corrcoef(predictions, targets), atol=1e-3)
    np.testing.assert_allclose(result.mse, mean_squared_error(predictions, targets, num_outputs=E), atol=1e-6)
    assert result.mean_pearson == pytest.approx(np.mean(result.pearson))
    assert result.mean_ccc == pytest.approx(np.mean(result.ccc))
    assert result.mean_mse == pytest.approx(np.mean(result.mse))
    assert (result.num_clips, result.note) == (4000, "")


def test_ccc_is_lins():
    predictions, targets = (t.double().numpy() for t in rows(30))
    result = score(torch.from_numpy(predictions), torch.from_numpy(targets))
    cov = ((predictions - predictions.mean(0)) * (targets - targets.mean(0))).mean(0)
    bias = (predictions.mean(0) - targets.mean(0)) ** 2
    np.testing.assert_allclose(result.ccc, 2 * cov / (predictions.var(0) + targets.var(0) + bias), rtol=1e-10)
    # Agreement, not only correlation: a shifted copy has r = 1 and a lower CCC.
    shifted = score(torch.from_numpy(targets + 0.5), torch.from_numpy(targets))
    assert shifted.mean_pearson == pytest.approx(1)
    assert shifted.mean_ccc < 0.6


def test_sums_of_batches_and_processes_add_up_to_the_set():
    predictions, targets = rows(101)
    weights = (torch.arange(101) % 5 != 0).float()
    total = empty_sums(E)
    for start in range(0, 101, 16):
        part = slice(start, start + 16)
        total += batch_sums(predictions[part], targets[part], weights[part])
    keep = weights > 0
    whole, parts = score(predictions[keep], targets[keep]), scores(total, NAMES)
    np.testing.assert_allclose(parts.pearson, whole.pearson, rtol=1e-12)
    np.testing.assert_allclose(parts.mse, whole.mse, rtol=1e-12)
    assert parts.num_clips == int(keep.sum())


def test_rows_of_weight_0_may_hold_anything():
    predictions, targets = rows(20)
    weights = torch.ones(20)
    weights[3] = 0
    dirty, unlabelled = predictions.clone(), targets.clone()
    dirty[3], unlabelled[3] = float("inf"), float("nan")
    clean = score(predictions, targets, weights)
    assert score(dirty, unlabelled, weights) == score(dirty, targets, weights) == clean


def test_half_precision_outputs_lose_nothing_more_in_the_sums():
    predictions, targets = rows(50)
    half = predictions.bfloat16()
    assert score(half, targets) == score(half.double(), targets)


def test_labels_that_do_not_vary_are_left_out_and_said_so():
    predictions, targets = rows(50)
    targets[:, 4] = 0.1
    result = score(predictions, targets)
    assert math.isnan(result.pearson[4])
    assert math.isnan(result.ccc[4])
    rest = [r for i, r in enumerate(result.pearson) if i != 4]
    assert result.mean_pearson == pytest.approx(np.mean(rest))
    assert result.constant_labels == ("empathic_pain",)
    assert "left out of the means: empathic_pain" in result.note
    assert not math.isnan(result.mean_mse)


def test_giving_up_on_an_emotion_does_not_pay():
    predictions, targets = rows(50, noise=3.0)
    honest = score(predictions, targets)
    predictions[:, 1:] = 0.2
    lazy = score(predictions, targets)
    assert math.isnan(lazy.pearson[1])
    assert lazy.mean_pearson == pytest.approx(lazy.pearson[0] / E)
    assert lazy.mean_pearson < honest.mean_pearson
    assert lazy.constant_predictions == NAMES[1:]
    assert "counted as 0: amusement" in lazy.note


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("number", [0, 1])
def test_too_few_clips_give_nan_and_no_warning(number):
    result = score(*rows(number))
    assert math.isnan(result.mean_pearson)
    assert all(math.isnan(r) for r in result.pearson)
    assert result.num_clips == number
    assert math.isnan(result.mean_mse) == (number == 0)


def test_constants_are_recognised_however_large():
    predictions, targets = rows(5000)
    targets[:, 0] = 1e4 / 3
    assert score(predictions, targets).constant_labels == (NAMES[0],)


def test_intervals_hold_the_score_narrow_with_rows_and_follow_the_seed():
    few = [t.numpy() for t in rows(60, noise=2.0)]
    many = [t.numpy() for t in rows(2000, noise=2.0)]
    point, wide, narrow = (
        score(*map(torch.from_numpy, few)),
        bootstrap(*few),
        bootstrap(*many, num_resamples=200),
    )
    assert wide.mean_pearson.low < point.mean_pearson < wide.mean_pearson.high
    assert all(i.low < r < i.high for i, r in zip(wide.pearson, point.pearson, strict=True))
    assert all(i.low < m < i.high for i, m in zip(wide.mse, point.mse, strict=True))
    width = wide.mean_pearson.high - wide.mean_pearson.low
    assert narrow.mean_pearson.high - narrow.mean_pearson.low < width / 3
    assert bootstrap(*few) == wide
    assert bootstrap(*few, seed=1) != wide


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    covered = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        targets = rng.standard_normal((80, 1))
        predictions = targets + rng.standard_normal((80, 1))
        interval = bootstrap(predictions, targets, num_resamples=200, seed=seed).mean_pearson
        covered += interval.low < math.sqrt(0.5) < interval.high
    assert 86 <= covered <= 100


@pytest.mark.filterwarnings("error")
def test_intervals_of_a_constant_column_are_nan_without_a_warning():
    predictions, targets = (t.numpy() for t in rows(30))
    targets[:, 2] = 0
    intervals = bootstrap(predictions, targets, num_resamples=50)
    assert math.isnan(intervals.pearson[2].low)
    assert not math.isnan(intervals.mean_pearson.low)


def test_intervals_of_one_clip_are_an_error():
    with pytest.raises(ViperError, match="at least 2"):
        bootstrap(*(t.numpy() for t in rows(1)))


def test_intervals_over_subjects_are_those_of_their_clips_taken_once():
    rng = np.random.default_rng(3)
    x, y = rng.random((30, 2)), rng.random((30, 2))
    each = bootstrap(x, y, num_resamples=200)
    rows = np.repeat(np.arange(30), 4)
    subjects = [f"s{row:02}" for row in rows]
    by_subject = bootstrap(x[rows], y[rows], num_resamples=200, subjects=subjects)
    assert by_subject.mean_pearson.low == pytest.approx(each.mean_pearson.low)
    by_clip = bootstrap(x[rows], y[rows], num_resamples=200, subjects=[None, *subjects[1:]])
    assert by_clip == bootstrap(x[rows], y[rows], num_resamples=200)
    assert by_clip.mean_pearson.high < by_subject.mean_pearson.high
