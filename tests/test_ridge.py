from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge, RidgeCV

from viper_e2e.errors import ViperError
from viper_e2e.fusion.closed_form import RELATIVE_PENALTIES, LinearPath, fit_ridge, predict

E = 3
SHAPES = pytest.mark.parametrize("shape", [(40, 7), (12, 30), (20, 20), (60, 200)], ids=str)


def data(num_rows: int, num_features: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of unlike scales and offsets, and targets each with its own share of noise."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(num_rows, num_features))
    noise = rng.normal(size=(num_rows, E)) * [0.1, 1.0, 10.0]
    y = 3.0 + x @ rng.normal(size=(num_features, E)) / num_features**0.5 + noise
    x = x * rng.uniform(0.1, 50, num_features) + rng.uniform(-100, 100, num_features)
    return torch.from_numpy(x), torch.from_numpy(y)


def standardised(x: torch.Tensor) -> np.ndarray:
    return ((x - x.mean(0)) / x.std(0, correction=0)).numpy()


@SHAPES
def test_a_fit_is_that_of_scikit_learn(shape):
    x, y = data(*shape)
    fit = fit_ridge(x, y)
    theirs = Ridge(alpha=fit.penalties.numpy()).fit(standardised(x), y.numpy())
    np.testing.assert_allclose(fit.weights.numpy(), theirs.coef_.T, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(fit.intercepts.numpy(), theirs.intercept_, atol=1e-5, rtol=1e-5)
    more, _ = data(*shape, seed=1)
    at = ((more - x.mean(0)) / x.std(0, correction=0)).numpy()
    np.testing.assert_allclose(predict(fit, more).numpy(), theirs.predict(at), atol=1e-5, rtol=1e-5)


@SHAPES
def test_penalties_are_those_scikit_learn_chooses_by_leave_one_out(shape):
    x, y = data(*shape)
    fit = fit_ridge(x, y)
    at = standardised(x)
    grid = at.size / min(shape) * np.array(RELATIVE_PENALTIES)
    theirs = RidgeCV(alphas=grid, alpha_per_target=True, store_cv_results=True).fit(at, y.numpy())
    np.testing.assert_allclose(fit.penalties.numpy(), theirs.alpha_, rtol=1e-9)
    assert len(set(theirs.alpha_)) > 1, "targets that differ in noise should differ in penalty"
    errors = theirs.cv_results_.mean(0).min(1)
    np.testing.assert_allclose(fit.loo_errors.numpy(), errors, rtol=1e-5)


@pytest.mark.parametrize("shape", [(9, 4), (7, 12)], ids=str)
def test_the_leave_one_out_error_is_that_of_leaving_each_row_out(shape):
    x, y = data(*shape)
    fit = fit_ridge(x, y, relative_penalties=(0.3,))
    at, errors = standardised(x), []
    for row in range(len(at)):
        rest = np.arange(len(at)) != row
        model = Ridge(alpha=fit.penalties.numpy()).fit(at[rest], y.numpy()[rest])
        errors.append((y.numpy()[row] - model.predict(at[row : row + 1])[0]) ** 2)
    np.testing.assert_allclose(fit.loo_errors.numpy(), np.mean(errors, 0), rtol=1e-9)


def test_both_ways_to_the_eigenvalues_give_the_same_fit():
    x, y = data(12, 12)
    more = torch.cat([x, torch.zeros(12, 1, dtype=torch.float64)], 1)  # a constant feature makes it the wider
    narrow, wide = fit_ridge(x, y, relative_penalties=(1.0,)), fit_ridge(more, y, relative_penalties=(1.0,))
    torch.testing.assert_close(wide.weights[:12], narrow.weights)
    tall = fit_ridge(torch.cat([x, x]), torch.cat([y, y]), relative_penalties=(1.0,))
    torch.testing.assert_close(tall.weights, narrow.weights)


def test_constant_features_weigh_nothing_wherever_they_move_later():
    x, y = data(20, 6)
    x[:, 2] = 0.1
    x[:, 4] = torch.tensor(0.1).double() * (1 + 1e-8 * torch.arange(20))  # as float32 rounds
    fit = fit_ridge(x, y)
    assert (fit.weights[[2, 4]] == 0).all()
    moved = x.clone()
    moved[:, 2] = 1e6
    torch.testing.assert_close(predict(fit, moved), predict(fit, x))


def test_what_is_not_known_stands_at_the_mean_of_what_is():
    x, y = data(20, 6)
    known = torch.ones(20, 6, dtype=torch.bool)
    known[3:9, :3] = False
    spoiled = torch.where(known, x, float("nan"))
    fit = fit_ridge(spoiled, y, known)
    filled = torch.where(known, x, torch.nanmean(spoiled, 0))
    torch.testing.assert_close(fit.means, filled.mean(0))
    at = (filled - fit.means) / fit.scales
    theirs = Ridge(alpha=fit.penalties.numpy()).fit(at.numpy(), y.numpy())
    np.testing.assert_allclose(fit.weights.numpy(), theirs.coef_.T, atol=1e-9)
    torch.testing.assert_close(predict(fit, spoiled, known), predict(fit, filled))
    torch.testing.assert_close(predict(fit, spoiled, torch.zeros_like(known))[0], y.mean(0))


def test_a_feature_never_known_weighs_nothing():
    x, y = data(20, 6)
    known = torch.ones(20, 6, dtype=torch.bool)
    known[:, 1] = False
    fit = fit_ridge(torch.where(known, x, float("nan")), y, known)
    assert torch.isfinite(fit.weights).all()
    assert (fit.weights[1] == 0).all()


def test_targets_that_do_not_vary_and_features_that_do_not_give_the_mean():
    x, y = data(10, 4)
    y[:, 1] = 2.5
    assert torch.allclose(predict(fit_ridge(x, y), x)[:, 1], torch.tensor(2.5).double())
    nothing = fit_ridge(torch.ones(10, 4), y)
    torch.testing.assert_close(predict(nothing, x), y.mean(0).expand(10, -1))


def test_the_order_of_rows_does_not_matter():
    x, y = data(25, 40)
    order = torch.randperm(25, generator=torch.Generator().manual_seed(0))
    one, other = fit_ridge(x, y), fit_ridge(x[order], y[order])
    torch.testing.assert_close(one.weights, other.weights, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(one.penalties, other.penalties)


def test_noise_is_answered_by_the_largest_penalty():
    x, _ = data(30, 90)
    y = torch.from_numpy(np.random.default_rng(5).normal(size=(30, 1)))
    fit = fit_ridge(x, y)
    assert fit.penalties[0] >= 30 * 90 / 30 * 0.3
    assert predict(fit, x).std() < y.std()


def test_too_few_clips_are_told_in_a_line():
    with pytest.raises(ViperError, match=r"ridge: 2 labelled clip\(s\) that can be read; at least 3 needed"):
        fit_ridge(torch.randn(2, 4), torch.randn(2, 1))


def test_a_linear_path_says_what_the_fit_says():
    x, y = data(20, 6)
    known = torch.ones(20, 6, dtype=torch.bool)
    known[3:9, :3] = False
    fit = fit_ridge(x, y, known)
    path = LinearPath(6, E)
    assert (path(x.float(), known) == 0).all(), "it starts at zero"
    path.take(fit)
    spoiled = torch.where(known, x, float("nan")).float().requires_grad_()
    said = path(spoiled, known)
    torch.testing.assert_close(said.double(), predict(fit, x, known), atol=1e-4, rtol=1e-5)
    said.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in path.parameters())
    assert (spoiled.grad[~known] == 0).all()
    assert torch.isfinite(spoiled.grad).all()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(path(spoiled, known), said)
