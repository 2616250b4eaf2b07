"""uncertainty.py: weights between tasks that are learned with the model, by how uncertain each task is."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from viper_e2e.tasks import Task

RATE, DECAYS, EPSILON = 0.01, (0.9, 0.999), 1e-8
"""Settings of Adam (Kingma and Ba 2015). Weights have a rate of their own: they are few and begin at 0."""
LARGEST = 6.0
"""Largest log-variance, either way: no task is ever weighted more than 400 times its first weight."""


class UncertaintyWeights(nn.Module):
    """A log-variance ``s`` per task: its loss L counts as ``exp(−s) L + s / 2`` (of numbers ``exp(−s) L / 2``).

    Source: Kendall et al. 2018, equations 7 and 10. The derivative by ``s`` is known in closed form, from the
    loss of the whole step over all processes: so the weights are no parameters of the model, every process
    makes the same step, and mixed precision does not reach them (float32). All of it is saved with the loss.
    """

    factors: Tensor
    log_variances: Tensor
    means: Tensor
    squares: Tensor
    num_steps: Tensor
    lost: Tensor
    counted: Tensor

    def __init__(self, tasks: Sequence[Task]):
        super().__init__()
        none = torch.zeros(len(tasks))
        factors = [1.0 if task.kind in ("class", "labels") else 0.5 for task in tasks]
        for name in ("log_variances", "means", "squares", "num_steps"):
            self.register_buffer(name, none.clone())
        self.register_buffer("factors", torch.tensor(factors), persistent=False)
        self.register_buffer("lost", none.clone(), persistent=False)
        self.register_buffer("counted", none.bool(), persistent=False)

    @property
    def weights(self) -> Float[Tensor, " T"]:
        """Factor of each task's loss now."""
        return self.factors * torch.exp(-self.log_variances)

    @torch.no_grad()
    def add(self, index: int, value: Float[Tensor, ""], total_weight: Float[Tensor, ""]) -> None:
        """A batch's part of the step's loss of one task, over all processes; its clips in the whole step."""
        self.lost[index] += value.detach().float()
        self.counted[index] |= total_weight > 0

    @torch.no_grad()
    def end_step(self, *, takes_effect: bool) -> None:
        """Follow the derivative, unless the step was left out; a task without clips in it stays as it is."""
        if takes_effect:
            slopes = 0.5 - self.weights * self.lost
            self.num_steps += self.counted
            self.means.copy_(torch.where(self.counted, _mixed(self.means, slopes, DECAYS[0]), self.means))
            self.squares.copy_(
                torch.where(self.counted, _mixed(self.squares, slopes**2, DECAYS[1]), self.squares)
            )
            age = self.num_steps.clamp_min(1)
            mean, square = (m / (1 - d**age) for m, d in zip((self.means, self.squares), DECAYS, strict=True))
            moved = self.log_variances - RATE * mean / (square.sqrt() + EPSILON)
            self.log_variances.copy_(
                torch.where(self.counted, moved, self.log_variances).clamp(-LARGEST, LARGEST)
            )
        self.lost.zero_()
        self.counted.zero_()


def _mixed(before: Tensor, new: Tensor, decay: float) -> Tensor:
    return decay * before + (1 - decay) * new
