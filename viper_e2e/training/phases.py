"""phases.py: backbones that begin to train at later epochs (`--unfreeze-at`), and the optimizer that grows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from viper_e2e.config import All, Blocks, Depth, Frozen, LaterDepths, LoRA, Phase, TrainConfig
from viper_e2e.errors import ViperError
from viper_e2e.model import ViPER
from viper_e2e.training.optimizer import FIRST_STEP, Factors, parameter_groups


class Phases:
    """Depths that grow at the boundaries of epochs, in the order of their epochs."""

    def __init__(self, later: LaterDepths, module: ViPER, num_epochs: int):
        """`ViperError` where it makes no sense for this model, which is still in full precision."""
        self.module = module
        self._backbones = module.backbones
        self._phases = later.phases
        self._check(num_epochs)
        for _, backbone, depth in self._phases:
            self._backbones[backbone].expect_training_depth(depth)
        self._num_entered = 0

    def __bool__(self) -> bool:
        return bool(self._phases)

    def enter(
        self,
        epoch: int,
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LambdaLR,
        config: TrainConfig,
        factors: Factors,
    ) -> list[Phase]:
        """Train what this epoch trains; the phases that began by it.

        Each phase appends its own groups to the optimizer, so that their order is the same in a run that is
        resumed later and enters several at once; at which step each began comes with the saved optimizer then.
        """
        due = [phase for phase in self._phases if phase.epoch <= epoch]
        if len(due) < self._num_entered:
            raise ViperError(f"epoch {epoch} trains less than this run does by now; start again with --resume")
        new = due[self._num_entered :]
        for phase in new:
            self._backbones[phase.backbone].set_training_depth(phase.depth)
            _grow(optimizer, schedule, self.module, config, factors)
        self._num_entered = len(due)
        return new

    @contextmanager
    def deepest(self) -> Iterator[None]:
        """All phases at once, to see whether they are possible and fit; undone afterwards."""
        with ExitStack() as stack:
            for phase in self._phases[self._num_entered :]:
                stack.enter_context(self._backbones[phase.backbone].trying_depth(phase.depth))
            yield

    def _check(self, num_epochs: int) -> None:
        depths = {name: backbone.depth for name, backbone in self._backbones.items()}
        for phase in self._phases:
            epoch, name, depth = phase
            word = f"--unfreeze-at {phase}"
            if name not in depths:
                raise ViperError(f"{word}: this model has {', '.join(depths)}")
            if not 1 <= epoch < num_epochs:
                raise ViperError(f"{word}: allowed are epochs 1 to {num_epochs - 1} (--epochs {num_epochs})")
            if _rank(depth) <= _rank(depths[name]):
                raise ViperError(
                    f"{word}: {name} trains {depths[name]} by then; a later epoch can only add to that"
                )
            depths[name] = depth
        self._num_entered = 0
        with self.deepest():
            pass


def _grow(
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LambdaLR,
    module: ViPER,
    config: TrainConfig,
    factors: Factors,
) -> None:
    """Append groups for what trains now and did not before; their schedule begins with them."""
    first_step = schedule.last_epoch
    factor = factors(first_step)
    known = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    for group in parameter_groups(module, config):
        if id(group["params"][0]) in known:
            continue
        base = group["lr"]
        own = {"initial_lr": base, "lr": base * factor(first_step), FIRST_STEP: first_step}
        optimizer.add_param_group({**group, **own})
        schedule.base_lrs.append(base)
        schedule.lr_lambdas.append(factor)


def _rank(depth: Depth) -> float:
    if isinstance(depth, Blocks):
        return float(depth.number)
    # Adapters and weights never train in one backbone, so that their order does not matter.
    return {Frozen(): 0.0, LoRA(): 1.0, All(): math.inf}[depth]
