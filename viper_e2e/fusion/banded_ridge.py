"""banded_ridge.py: ridge regression with a penalty per block of features, chosen by leave-one-out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from viper_e2e.fusion.closed_form import RidgeFit, check_rows, moments, standardised

MAX_ROWS = 512
"""Evenly spaced rows that penalties are chosen on: a step of the search inverts a matrix of that side."""
NUM_STEPS, LEARNING_RATE = 30, 0.3
"""Steps and learning rate of Adam on the logarithms of scales and penalty."""
PRIOR = 0.003
"""Per mean squared log-scale, beside an error of order 1: keeps blocks that make no difference in the fit."""


@torch.no_grad()
def fit_banded_ridge(
    features: Float[Tensor, "N F"],
    targets: Float[Tensor, "N E"],
    block_sizes: Sequence[int],
    known: Bool[Tensor, "N F"] | None = None,
    magnitudes: Float[Tensor, " F"] | None = None,
) -> RidgeFit:
    """Fit as `fit_ridge` does, but with a factor per target and block of standardised features.

    What tells one emotion stands in the voice, another's in how the face moves: under one penalty for all,
    blocks that tell nothing are fitted as closely as those that do. ``block_sizes``: of neighbouring features,
    Σ = F. ``magnitudes``: see `closed_form.moments`. Raises `ViperError` for fewer than `ridge.MIN_CLIPS` rows.
    Nunez-Elizalde et al. 2019, "Voxelwise encoding models with non-spherical multivariate normal priors";
    la Tour et al. 2022, "Feature-space selection with banded ridge regression".
    """
    assert sum(block_sizes) == features.shape[1], (list(block_sizes), features.shape)
    check_rows(features)
    known = None if known is None else known.cpu()
    x, y = features.detach().cpu().double(), targets.detach().cpu().double()
    means, scales, varies = moments(x, known, magnitudes)
    x = standardised(x, means, scales, known)
    x[:, ~varies] = 0.0
    intercepts = y.mean(0)
    y = y - intercepts
    blocks = x.split(list(block_sizes), 1)
    chosen = choose_scales(blocks, y)
    grams = torch.zeros(y.shape[1], len(x), len(x), dtype=x.dtype)
    for block, factors in zip(blocks, chosen.factors.T, strict=True):
        grams += factors[:, None, None] * (block @ block.T)
    grams.diagonal(dim1=1, dim2=2).add_(chosen.penalties[:, None])
    duals = torch.cholesky_solve(y.T[:, :, None], torch.linalg.cholesky(grams))[:, :, 0]
    parts = [block.T @ (factors * duals.T) for block, factors in zip(blocks, chosen.factors.T, strict=True)]
    return RidgeFit(means, scales, torch.cat(parts), intercepts, chosen.penalties, chosen.loo_errors)


class BlockScales(NamedTuple):
    """Result of a search, float64."""

    factors: Float[Tensor, "E K"]
    """Factor of each block's Gram matrix: the square of its features' factor."""
    penalties: Float[Tensor, " E"]
    """Penalty on the multiplied features."""
    loo_errors: Float[Tensor, " E"]
    """Mean squared leave-one-out error over the rows searched on."""


def choose_scales(blocks: Sequence[Float[Tensor, "N _"]], targets: Float[Tensor, "N E"]) -> BlockScales:
    """Factors and penalty of each target with the least leave-one-out error, by gradient descent from 1.

    ``blocks``: standardised features. Of more than `MAX_ROWS` rows evenly spaced ones are searched on.
    """
    rows = torch.linspace(0, len(targets) - 1, min(MAX_ROWS, len(targets))).round().long()
    y = targets[rows] - targets[rows].mean(0)
    variances = y.square().mean(0)
    variances = torch.where(variances > 0, variances, 1.0)
    y = y / variances.sqrt()
    centred = [block[rows] - block[rows].mean(0) for block in blocks]
    grams = torch.stack([block @ block.T for block in centred])
    unit = grams.sum(0).diagonal().mean()
    # No feature varies: any penalty above 0 does.
    unit = torch.where(unit > 0, unit, 1.0)
    found = _descend(grams / unit, y)
    return BlockScales(found.factors, found.penalties * unit, found.loo_errors * variances)


@torch.enable_grad()
def _descend(grams: Float[Tensor, "K N N"], y: Float[Tensor, "N E"]) -> BlockScales:
    """Each target goes its own way: Adam treats every number by itself."""
    logs = torch.zeros(y.shape[1], len(grams) + 1, dtype=grams.dtype, requires_grad=True)
    optimizer = torch.optim.Adam([logs], lr=LEARNING_RATE)
    best = torch.full_like(y[0], torch.inf)
    best_logs, best_errors = logs.detach().clone(), best.clone()
    for _ in range(NUM_STEPS):
        errors = _loo_errors(torch.einsum("ek,kij->eij", logs[:, :-1].exp(), grams), logs[:, -1].exp(), y)
        losses = errors + PRIOR * logs[:, :-1].square().mean(1)
        is_better = losses.detach() < best
        best = torch.where(is_better, losses.detach(), best)
        best_errors = torch.where(is_better, errors.detach(), best_errors)
        best_logs = torch.where(is_better[:, None], logs.detach(), best_logs)
        optimizer.zero_grad()
        losses.sum().backward()
        optimizer.step()
    scales = best_logs.exp()
    return BlockScales(scales[:, :-1], scales[:, -1], best_errors)


def _loo_errors(
    grams: Float[Tensor, "E N N"], penalties: Float[Tensor, " E"], y: Float[Tensor, "N E"]
) -> Float[Tensor, " E"]:
    """Mean squared error of each row as the others predict it; centred rows, the intercept counted in.

    The hat matrix is 1/N + I − penalty · (Gram + penalty · I)⁻¹.
    """
    penalty = penalties[:, None]
    identity = torch.eye(len(y), dtype=y.dtype)
    inverse = torch.linalg.inv(grams + penalty[:, :, None] * identity)
    residuals = penalty * torch.einsum("eij,je->ei", inverse, y)
    remaining = penalty * inverse.diagonal(dim1=1, dim2=2) - 1 / len(y)
    return (residuals / remaining.clamp_min(1e-12)).square().mean(1)
