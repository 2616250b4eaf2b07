"""losses.py: training losses over the global batch: MSE, and correlation steadied by a memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from viper_e2e.config import LOSS_TERMS
from viper_e2e.fusion import LabelScale

MIN_STD = 1e-4
"""A column whose standard deviation is not above this has no variance to correlate with. Labels and outputs
are of order 1, in units of `LabelScale` if need be; the gradient of a correlation grows as 1 / std."""


class LossOutput(NamedTuple):
    """Loss of a step."""

    loss: Float[Tensor, ""]
    """The tensor to call `backward` on: the value × number of processes, because DDP averages gradients."""
    value: Float[Tensor, ""]
    """The loss of the global batch, detached, the same number on every process."""
    terms: dict[str, Tensor]
    """Each term before its weight, detached scalars."""


class IntensityLoss(nn.Module):
    """Weighted sum of MSE, 1 - Pearson and 1 - CCC, means over the columns, in float32 (or float64, if given).

    Correlations of a small batch are mostly noise (at 4 rows a quarter of Hume-like columns do not vary at
    all), so they are taken over the global batch joined with the last ``memory_rows`` rows of earlier steps,
    detached. The memory is there for the statistics only: gradients of the rows at hand are scaled by
    (all rows / rows at hand), which makes them those of a correlation over a large set, as strong beside the
    MSE with a full memory as with an empty one. In evaluation mode the memory is neither read nor written.

    The memory is a buffer: `state_dict` carries it, so a resumed run continues exactly. It is the same on every
    process.
    """

    memory_predictions: Tensor
    memory_targets: Tensor
    memory_weights: Tensor

    def __init__(
        self,
        weights: dict[str, float],
        num_outputs: int,
        memory_rows: int = 256,
        scale: LabelScale | None = None,
        num_networks: int = 1,
    ):
        """``scale``: of labels outside of [0, 1], in whose units everything is computed. ``num_networks``: how
        many answer for themselves; the loss is the mean of theirs."""
        super().__init__()
        assert set(weights) <= set(LOSS_TERMS), weights
        self.weights = dict(weights)
        self.scale = scale
        self.num_networks = num_networks
        num_columns = num_networks * num_outputs
        self.register_buffer("memory_predictions", torch.zeros(memory_rows, num_columns))
        self.register_buffer("memory_targets", torch.zeros(memory_rows, num_columns))
        self.register_buffer("memory_weights", torch.zeros(memory_rows))

    def forward(
        self,
        predictions: Float[Tensor, "B *K E"],
        targets: Float[Tensor, "B E"],
        weights: Float[Tensor, "B"],
        total_weight: Float[Tensor, "*_"] | None = None,
        gather: Callable[[Tensor], Tensor] | None = None,
        rank: int = 0,
    ) -> LossOutput:
        """The loss of this (micro-)batch and its share of the optimizer step's.

        ``predictions``: of each network, if there are several. ``weights``: 0 for padding, unreadable and
        unlabelled clips (their rows may hold anything). ``total_weight``: sum of weights over all processes
        and accumulation steps of the optimizer step; None: this call is all there is. ``gather``: joins the
        processes' rows, ``B K`` → ``(P·B) K`` in the order of ranks, without gradient, B equal everywhere
        (accelerate's `gather`); None: one process.

        Sum the losses of accumulation steps. `Accelerator.backward` divides by their number:
        multiply first.
        """
        if gather is None:
            gather = _alone
        if self.scale is not None:
            predictions, targets = (
                self.scale.to_units(_at_least_float32(predictions)),
                self.scale.to_units(_at_least_float32(targets)),
            )
        # A column for each emotion of each network: every term is a mean over columns.
        predictions, targets = predictions.flatten(1), targets.repeat(1, self.num_networks)
        predictions, targets, weights, num_processes = _global_rows(predictions, targets, weights, gather, rank)
        count = weights.sum()
        total = count if total_weight is None else total_weight.to(count).sum()
        # A step in which no clip could be read is worth 0, not 0 / 0, and still has a graph for DDP.
        share = count / torch.where(total > 0, total, 1.0)

        terms = {"mse": (weights[:, None] * (predictions - targets).square()).sum(0).mean() / _or_one(count)}
        if self.weights.keys() & {"pearson", "ccc"}:
            terms |= self._correlations(predictions, targets, weights)
        if self.training:
            self._remember(predictions.detach(), targets, weights)
        value = share * sum(weight * terms[name] for name, weight in self.weights.items())
        used = {name: terms[name].detach() for name in self.weights}
        return LossOutput(value * num_processes, value.detach(), used)

    def _correlations(
        self, predictions: Float[Tensor, "N E"], targets: Float[Tensor, "N E"], weights: Float[Tensor, "N"]
    ) -> dict[str, Tensor]:
        if self.training:
            joined = torch.cat([self.memory_weights, weights])
            scale = joined.sum() / _or_one(weights.sum())
            # The value stays, the gradient is multiplied.
            fresh = predictions.detach() + scale * (predictions - predictions.detach())
            predictions = torch.cat([self.memory_predictions, fresh])
            targets = torch.cat([self.memory_targets, targets])
            weights = joined
        pearson, ccc, varies, targets_vary = _agreement(predictions, targets, weights)
        return {"pearson": _mean_over(1 - pearson, varies), "ccc": _mean_over(1 - ccc, targets_vary)}

    @torch.no_grad()
    def _remember(
        self, predictions: Float[Tensor, "N E"], targets: Float[Tensor, "N E"], weights: Float[Tensor, "N"]
    ) -> None:
        # A step that came out non-finite will be thrown away; one such row here would spoil the next 256.
        finite = predictions.isfinite().all(1)
        predictions = torch.where(finite[:, None], predictions, 0.0)
        weights = torch.where(finite, weights, 0.0)
        weights = torch.cat([self.memory_weights, weights])
        # A stable sort brings rows that count to the end in order of arrival, without a wait for the device.
        last = (weights > 0).to(torch.uint8).argsort(stable=True)[-len(self.memory_weights) :]
        self.memory_predictions.copy_(torch.cat([self.memory_predictions, predictions])[last])
        self.memory_targets.copy_(torch.cat([self.memory_targets, targets])[last])
        self.memory_weights.copy_(weights[last])


def _alone(rows: Tensor) -> Tensor:
    return rows


def _global_rows(
    predictions: Float[Tensor, "B E"],
    targets: Float[Tensor, "B E"],
    weights: Float[Tensor, "B"],
    gather: Callable[[Tensor], Tensor],
    rank: int,
) -> tuple[Float[Tensor, "N E"], Float[Tensor, "N E"], Float[Tensor, "N"], int]:
    """Rows of all processes, at least in float32; only this process's predictions carry a gradient.

    So each process differentiates the global loss by its own rows, and the sum over processes is the whole
    gradient: nothing has to travel in the backward pass.
    """
    counts = (weights > 0)[:, None]
    # Zeros, not just weight 0: rows without a label may be NaN, and 0 × NaN is NaN.
    predictions = torch.where(counts, _at_least_float32(predictions), 0.0)
    targets = torch.where(counts, targets, 0.0).to(predictions)
    num_rows, num_outputs = predictions.shape
    rows = gather(torch.cat([predictions.detach(), targets, weights.to(predictions)[:, None]], 1))
    assert len(rows) % num_rows == 0, "processes hand in batches of one size"
    theirs, targets, weights = rows[:, :num_outputs], rows[:, num_outputs:-1], rows[:, -1]
    before, after = rank * num_rows, (rank + 1) * num_rows
    return (
        torch.cat([theirs[:before], predictions, theirs[after:]]),
        targets,
        weights,
        len(rows) // num_rows,
    )


def _agreement(
    x: Float[Tensor, "N E"], y: Float[Tensor, "N E"], weights: Float[Tensor, "N"]
) -> tuple[Float[Tensor, "E"], Float[Tensor, "E"], Bool[Tensor, "E"], Bool[Tensor, "E"]]:
    """Weighted Pearson and concordance correlation (Lin 1989) per column; whether both sides vary, and y."""
    w = weights[:, None] / _or_one(weights.sum())
    mean_x, mean_y = (w * x).sum(0), (w * y).sum(0)
    dx, dy = x - mean_x, y - mean_y
    var_x, var_y, cov = (w * dx * dx).sum(0), (w * dy * dy).sum(0), (w * dx * dy).sum(0)
    y_varies = var_y > MIN_STD**2
    varies = (var_x > MIN_STD**2) & y_varies
    # Both branches of a `where` are differentiated: the one not taken must be finite too.
    pearson = cov / torch.where(varies, var_x * var_y, 1.0).sqrt()
    ccc = 2 * cov / torch.where(y_varies, var_x + var_y + (mean_x - mean_y).square(), 1.0)
    return pearson, ccc, varies, y_varies


def _mean_over(values: Float[Tensor, "E"], columns: Bool[Tensor, "E"]) -> Float[Tensor, ""]:
    """Mean over the chosen columns; 0, with a graph, where there is none."""
    return torch.where(columns, values, 0.0).sum() / columns.sum().clamp_min(1)


def _at_least_float32(values: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _or_one(count: Float[Tensor, ""]) -> Float[Tensor, ""]:
    return torch.where(count > 0, count, 1.0)
