"""learner.py: the contract between the training loop and a way to learn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from viper_e2e.loading import ClipBatch
from viper_e2e.training.state import TrainingState
from viper_e2e.training.yardstick import Yardstick


@runtime_checkable
class Learner(Protocol):
    """Turns the batches of a run into weights of its model.

    `Trainer` has the loop: it reads clips, agrees on signals, validates, saves and resumes. All processes make
    the same calls in the same order.
    """

    yardstick: Yardstick
    """Rows of the clips that have passed."""

    @property
    def lr(self) -> float | None:
        """Learning rate of the head in the next step; None if nothing is learned by steps."""

    def task_weights(self) -> dict[str, float]:
        """Learned weight of each task so far; empty if none are learned."""

    def enter(self, epoch: int) -> None:
        """Train what this epoch trains, before anything of it is saved or loaded."""

    def measure(self, group: list[ClipBatch]) -> None:
        """Before the first step: `ViperError` where a step takes more memory than there is."""

    def step(self, group: list[ClipBatch], total_weight: Tensor, state: TrainingState) -> float | None:
        """Learn from the batches of one step; the loss, None where there is none.

        ``total_weight``: of each task, the clips of all processes. ``state``: that of the run, in which steps
        that go wrong are counted.
        """

    def end_epoch(self) -> None:
        """Before the validation."""

    def gather(self) -> None:
        """Before saving."""

    def parts(self) -> Mapping[str, Any]:
        """All that is saved beside the model, by name: each has ``state_dict`` and ``load_state_dict``."""

    def resume(self, total_steps: int) -> None:
        """Go on with the restored parts, but with the settings as they are now."""
