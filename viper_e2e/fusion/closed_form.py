"""closed_form.py: ridge regression in closed form, its penalty chosen by exact leave-one-out."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from viper_e2e.errors import ViperError

MIN_CLIPS = 3
"""Fewer leave nothing to choose a penalty by."""
RELATIVE_PENALTIES = tuple(10.0 ** (exponent / 4) for exponent in range(-16, 17))
"""Tried penalties, as multiples of the mean eigenvalue of the standardised features: 1e-4 … 1e4."""
MIN_RELATIVE_DEVIATION = 1e-6
"""Least standard deviation relative to a feature's magnitude. Below it, float32 cannot tell a feature from a
constant."""


class RidgeFit(NamedTuple):
    """A linear model on standardised features, float64 on the CPU: see `predict`."""

    means: Float[Tensor, " F"]
    """Means of the features, over the rows where they are known."""
    scales: Float[Tensor, " F"]
    """Their population standard deviations; 1 for constant features."""
    weights: Float[Tensor, "F E"]
    """Weights on standardised features; 0 for constant ones."""
    intercepts: Float[Tensor, " E"]
    """Predictions where every feature is at its mean, or unknown: the targets' means."""
    penalties: Float[Tensor, " E"]
    """The chosen one of each target, on standardised features: |y − Xw|² + penalty · |w|²."""
    loo_errors: Float[Tensor, " E"]
    """Mean squared leave-one-out error under the chosen penalty, with the features' scales left as they are."""


@torch.no_grad()
def fit_ridge(
    features: Float[Tensor, "N F"],
    targets: Float[Tensor, "N E"],
    known: Bool[Tensor, "N F"] | None = None,
    relative_penalties: tuple[float, ...] = RELATIVE_PENALTIES,
    magnitudes: Float[Tensor, " F"] | None = None,
) -> RidgeFit:
    """Fit each target by ridge with an intercept, on standardised features.

    ``known`` False: whatever is there is replaced by the feature's mean. ``relative_penalties``: as
    `RELATIVE_PENALTIES`; each target takes its own. ``magnitudes``: see `moments`. Raises `ViperError` for
    fewer than `MIN_CLIPS` rows.
    Hastie, Tibshirani, Friedman 2009, "The Elements of Statistical Learning", §3.4.1, and §7.10 for
    leave-one-out from the hat matrix.
    """
    check_rows(features)
    x, y = features.detach().cpu().double(), targets.detach().cpu().double()
    means, scales, varies = moments(x, None if known is None else known.cpu(), magnitudes)
    x = standardised(x, means, scales, None if known is None else known.cpu())
    x[:, ~varies] = 0.0
    intercepts = y.mean(0)
    y = y - intercepts
    basis = _Eigenbasis(x)
    grid = basis.mean_eigenvalue * torch.tensor(relative_penalties, dtype=torch.float64)
    errors = torch.stack([basis.loo_errors(y, penalty) for penalty in grid])
    best = errors.argmin(0)
    penalties = grid[best]
    weights = basis.weights(y, penalties)
    weights[~varies] = 0.0
    chosen = errors.gather(0, best[None])[0]
    return RidgeFit(means, scales, weights, intercepts, penalties, chosen)


def check_rows(features: Float[Tensor, "N F"]) -> None:
    """`ViperError` where there are too few to choose a penalty by."""
    if len(features) < MIN_CLIPS:
        raise ViperError(
            f"ridge: {len(features)} labelled clip(s) that can be read; at least {MIN_CLIPS} needed"
        )


@torch.no_grad()
def predict(
    fit: RidgeFit,
    features: Float[Tensor, "N F"],
    known: Bool[Tensor, "N F"] | None = None,
    max_deviations: float | None = None,
) -> Float[Tensor, "N E"]:
    """Targets of further rows, float64; features that are not known stand at their training mean.

    ``max_deviations``: as in `LinearPath`.
    """
    known = None if known is None else known.cpu()
    x = standardised(features.detach().cpu().double(), fit.means, fit.scales, known)
    if max_deviations is not None:
        x = x.clamp(-max_deviations, max_deviations)
    return x @ fit.weights + fit.intercepts


class LinearPath(nn.Module):
    """The same in a network, to be trained on or not: standardise, then one product. Starts at zero."""

    means: Tensor
    scales: Tensor

    def __init__(self, num_features: int, num_outputs: int, max_deviations: float | None = None):
        """``max_deviations``: standardised features are cut off there."""
        super().__init__()
        self.max_deviations = max_deviations
        self.register_buffer("means", torch.zeros(num_features))
        self.register_buffer("scales", torch.ones(num_features))
        self.weight = nn.Parameter(torch.zeros(num_features, num_outputs))
        self.bias = nn.Parameter(torch.zeros(num_outputs))

    @torch.no_grad()
    def take(self, fit: RidgeFit) -> None:
        """Begin with what was fitted; rounded to float32."""
        self.means.copy_(fit.means)
        self.scales.copy_(fit.scales)
        self.weight.copy_(fit.weights)
        self.bias.copy_(fit.intercepts)

    def forward(self, features: Float[Tensor, "B F"], known: Bool[Tensor, "B F"]) -> Float[Tensor, "B E"]:
        """Float32 also under autocast; what is not known reaches neither values nor gradients."""
        with torch.autocast(features.device.type, enabled=False):
            features = torch.where(known, features, self.means).to(self.weight.dtype)
            deviations = (features - self.means) / self.scales
            if self.max_deviations is not None:
                deviations = deviations.clamp(-self.max_deviations, self.max_deviations)
            return deviations @ self.weight + self.bias


class _Eigenbasis:
    """Standardised rows in the eigenbasis of their Gram or covariance matrix, whichever is smaller."""

    def __init__(self, x: Float[Tensor, "N F"]):
        self.x = x
        self.is_gram = x.shape[0] <= x.shape[1]
        eigenvalues, self.vectors = torch.linalg.eigh(x @ x.T if self.is_gram else x.T @ x)
        self.eigenvalues = eigenvalues.clamp_min(0.0)
        # Scores on the principal axes: their squares sum to the eigenvalues.
        self.scores = self.vectors * self.eigenvalues.sqrt() if self.is_gram else x @ self.vectors
        self.projected: Tensor | None = None

    @property
    def mean_eigenvalue(self) -> Tensor:
        """Mean eigenvalue of the smaller matrix; 1 where no feature varies, as a penalty of 0 divides by 0."""
        mean = self.eigenvalues.mean()
        return torch.where(mean > 0, mean, 1.0)

    def loo_errors(self, y: Float[Tensor, "N E"], penalty: Tensor) -> Float[Tensor, " E"]:
        """Mean square of y − what is predicted for a row by the fit to all others, intercept included."""
        if self.projected is None:
            self.projected = self.scores.T @ y
        inverse = 1 / (self.eigenvalues + penalty)
        residuals = y - self.scores @ (inverse[:, None] * self.projected)
        # 1/N: the intercept's own part of the hat matrix.
        leverage = 1 / len(y) + self.scores.square() @ inverse
        return (residuals / (1 - leverage).clamp_min(1e-12)[:, None]).square().mean(0)

    def weights(self, y: Float[Tensor, "N E"], penalties: Float[Tensor, " E"]) -> Float[Tensor, "F E"]:
        inverse = 1 / (self.eigenvalues[:, None] + penalties)
        if self.is_gram:
            return self.x.T @ (self.vectors @ (inverse * (self.vectors.T @ y)))
        return self.vectors @ (inverse * (self.scores.T @ y))


def moments(
    x: Float[Tensor, "N F"],
    known: Bool[Tensor, "N F"] | None,
    magnitudes: Float[Tensor, " F"] | None = None,
) -> tuple[Float[Tensor, " F"], Float[Tensor, " F"], Bool[Tensor, " F"]]:
    """Mean and scale of each feature where it is known, and whether it varies at all.

    ``magnitudes``: of the numbers that each feature is a difference of: what rounding leaves of them does not
    count as varying.
    """
    if known is None:
        known = torch.ones_like(x, dtype=torch.bool)
    count = known.sum(0).clamp_min(1)
    x = torch.where(known, x, 0.0)
    means = x.sum(0) / count
    deviations = (torch.where(known, x - means, 0.0).square().sum(0) / count).sqrt()
    largest = x.abs().amax(0)
    if magnitudes is not None:
        largest = torch.maximum(largest, magnitudes.cpu())
    varies = deviations > MIN_RELATIVE_DEVIATION * largest
    return means, torch.where(varies, deviations, 1.0), varies


def standardised(
    x: Float[Tensor, "N F"],
    means: Float[Tensor, " F"],
    scales: Float[Tensor, " F"],
    known: Bool[Tensor, "N F"] | None,
) -> Float[Tensor, "N F"]:
    """Features as distances from their means, in units of their scales; 0 where unknown."""
    x = (x - means) / scales
    return x if known is None else torch.where(known, x, 0.0)
