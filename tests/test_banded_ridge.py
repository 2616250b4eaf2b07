"""Ridge with a penalty per block of features: exact for the penalties it takes, and it takes sensible ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from viper_e2e.errors import ViperError
from viper_e2e.fusion import banded_ridge
from viper_e2e.fusion.banded_ridge import choose_scales, fit_banded_ridge
from viper_e2e.fusion.closed_form import fit_ridge, predict

SIZES = [6, 20, 9]


def data(num_rows: int = 50, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """One target told by the first block, one by the last; the second tells nothing."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(num_rows, sum(SIZES)))
    told = np.stack([x[:, :6].sum(1), x[:, -9:].sum(1)], 1)
    y = 3.0 + told + rng.normal(size=told.shape) * [0.3, 3.0]
    return torch.from_numpy(20.0 * x + 5.0), torch.from_numpy(y)


def scaled(x: torch.Tensor, factors: torch.Tensor) -> np.ndarray:
    """Standardised, each block times the root of its factor."""
    per_feature = factors.repeat_interleave(torch.tensor(SIZES)).sqrt()
    return ((x - x.mean(0)) / x.std(0, correction=0) * per_feature).numpy()


def chosen(x, y):
    return choose_scales(((x - x.mean(0)) / x.std(0, correction=0)).split(SIZES, 1), y - y.mean(0))


def test_a_fit_is_that_of_scikit_learn_on_features_so_scaled():
    x, y = data()
    fit, scales = fit_banded_ridge(x, y, SIZES), chosen(x, y)
    more, _ = data(seed=1)
    for e in range(2):
        theirs = Ridge(alpha=scales.penalties[e].item(), tol=1e-12).fit(scaled(x, scales.factors[e]), y[:, e])
        per_feature = scales.factors[e].repeat_interleave(torch.tensor(SIZES)).sqrt()
        rows = ((more - x.mean(0)) / x.std(0, correction=0) * per_feature).numpy()
        np.testing.assert_allclose(predict(fit, more)[:, e].numpy(), theirs.predict(rows), rtol=1e-8)


def test_errors_are_those_of_fits_without_each_row():
    x, y = data(num_rows=25)
    scales = chosen(x, y)
    for e in range(2):
        rows, errors = scaled(x, scales.factors[e]), []
        for i in range(len(x)):
            rest = np.arange(len(x)) != i
            model = Ridge(alpha=scales.penalties[e].item()).fit(rows[rest], y[rest, e])
            errors.append((model.predict(rows[i : i + 1])[0] - y[i, e].item()) ** 2)
        assert scales.loo_errors[e].item() == pytest.approx(np.mean(errors), rel=1e-8)


def test_each_target_reads_the_block_that_tells_it_and_is_predicted_better():
    x, y = data(num_rows=40)
    first, last = chosen(x, y).factors
    assert first[0] > 10 * max(first[1], first[2])
    assert last[2] > 3 * max(last[0], last[1])
    more, truth = data(num_rows=400, seed=1)
    errors = [
        (predict(fit, more) - truth).square().mean(0)
        for fit in (fit_banded_ridge(x, y, SIZES), fit_ridge(x, y))
    ]
    assert (errors[0] < errors[1]).all()


def test_the_unit_of_a_target_changes_nothing_but_its_unit():
    x, y = data()
    one, other = fit_banded_ridge(x, y, SIZES), fit_banded_ridge(x, y * torch.tensor([1e-4, 100.0]), SIZES)
    torch.testing.assert_close(one.weights * torch.tensor([1e-4, 100.0]), other.weights, rtol=1e-6, atol=1e-12)


def test_what_is_not_known_stands_at_the_mean_whatever_is_there():
    x, y = data()
    known = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) > 0.3
    means = torch.where(known, x, 0.0).sum(0) / known.sum(0)
    poisoned = torch.where(known, x, torch.nan)
    fit = fit_banded_ridge(poisoned, y, SIZES, known)
    torch.testing.assert_close(fit.means, means)
    assert torch.equal(fit.weights, fit_banded_ridge(torch.where(known, x, 7.0), y, SIZES, known).weights)


@pytest.mark.parametrize("num_rows", [3, 4])
def test_few_rows_constant_features_and_constant_targets_give_finite_fits(num_rows):
    x, y = data(num_rows)
    x[:, :10] = 2.0
    y[:, 1] = 0.25
    fit = fit_banded_ridge(x, y, SIZES)
    assert fit.weights.isfinite().all()
    assert not fit.weights[:10].any()
    torch.testing.assert_close(predict(fit, x)[:, 1], y[:, 1])
    nothing = fit_banded_ridge(torch.ones(num_rows, sum(SIZES)), y, SIZES)
    torch.testing.assert_close(predict(nothing, x), y.mean(0).expand_as(y))


def test_of_many_rows_all_are_fitted_though_some_are_searched_on(monkeypatch):
    x, y = data(60)
    monkeypatch.setattr(banded_ridge, "MAX_ROWS", 20)
    scales = chosen(x, y)
    rows = scaled(x, scales.factors[0])
    theirs = Ridge(alpha=scales.penalties[0].item()).fit(rows, y[:, 0])
    fit = fit_banded_ridge(x, y, SIZES)
    np.testing.assert_allclose(predict(fit, x)[:, 0].numpy(), theirs.predict(rows), rtol=1e-8)


def test_too_few_rows_are_an_error():
    with pytest.raises(ViperError, match="at least 3"):
        fit_banded_ridge(*data(2), SIZES)
