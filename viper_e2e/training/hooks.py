"""hooks.py: hooks of a caller before and after each step and each saving of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from viper_e2e.loading import ClipBatch

if TYPE_CHECKING:
    from viper_e2e.training.trainer import Trainer


def _nothing(*_: object) -> None:
    pass


@dataclass(frozen=True)
class TrainerHooks:
    """Called in every process of a run, with its `Trainer`; what they raise ends the run."""

    before_step: Callable[[Trainer, Sequence[ClipBatch]], None] = _nothing
    """The batches of an optimizer step are there; `trainer.state.step` is its number."""
    after_step: Callable[[Trainer, Sequence[ClipBatch]], None] = _nothing
    """The step is made, and counted in `trainer.state.step`; its batches are those passed to `before_step`."""
    before_save: Callable[[Trainer], None] = _nothing
    """`checkpoints/last` is about to be written."""
    after_save: Callable[[Trainer], None] = _nothing
