"""optimizer.py: learning rates of all parameters over a run."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from viper_e2e.config import TrainConfig
from viper_e2e.model import ViPER


def build_optimizer(model: ViPER, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019) over the trainable parameters alone."""
    return torch.optim.AdamW(parameter_groups(model, config))


def parameter_groups(model: ViPER, config: TrainConfig) -> list[dict[str, Any]]:
    """Groups named ``fusion``, ``visual block 3``, …; what must not decay in a group of its own.

    The head learns at ``lr``. What follows a backbone's last block learns at ``backbone_lr``, each block
    nearer to the input slower by ``layer_decay`` (Clark et al. 2020, ELECTRA).
    """
    plain = _without_decay(model)
    learned = [parameter for parameter in model.fusion.parameters() if parameter.requires_grad]
    groups = _split("fusion", learned, plain, config.lr, config)
    for backbone in model.backbones.values():
        for group in backbone.depth_groups():
            lr = config.backbone_lr * config.layer_decay**group.layers_from_top
            groups += _split(f"{group.backbone} {group.part}", group.parameters, plain, lr, config)
    return groups


def _split(
    name: str, parameters: list[nn.Parameter], plain: set[int], lr: float, config: TrainConfig
) -> list[dict[str, Any]]:
    halves = (
        (name, [p for p in parameters if id(p) not in plain], config.weight_decay),
        (f"{name}, no decay", [p for p in parameters if id(p) in plain], 0.0),
    )
    return [
        {"name": label, "params": members, "lr": lr, "weight_decay": decay}
        for label, members, decay in halves
        if members
    ]


def _without_decay(model: ViPER) -> set[int]:
    """Norms, biases, embeddings, learned tokens and latents: everything that is no matrix of a layer.

    Attention to relative positions is learned as biases too (BEiT's tables, WavLM's gates, Conformer's rows).
    """
    words = ("embed", "missing", "latents", "no_face", "token", "probe", "pos_const", "bias", "position")
    # A patch embedding is a convolution, whatever its name says.
    layers = {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d)}
    return {
        id(parameter)
        for name, parameter in model.named_parameters()
        if parameter.ndim <= 1 or (id(parameter) not in layers and any(word in name for word in words))
    }


def can_step(optimizer: torch.optim.Optimizer) -> bool:
    """Whether weights could hold the next step of AdamW: torch refuses one that is too large for float32 in its
    middle, when some weights have moved already."""
    largest = torch.finfo(torch.float32).max
    return all(group["lr"] / (1 - group["betas"][0]) < largest for group in optimizer.param_groups)


FIRST_STEP = "first_step"
"""Key of an optimizer's group, saved with it: the step at which it began to train, if later than the run."""

Factors = Callable[[int], Callable[[int], float]]
"""The first step of a group → its rate's factor, by the step of the run; see :func:`schedule_factor`."""


def build_schedule(optimizer: torch.optim.Optimizer, factors: Factors) -> torch.optim.lr_scheduler.LambdaLR:
    """The schedule of all groups, each from its own first step."""
    return torch.optim.lr_scheduler.LambdaLR(optimizer, _of_groups(optimizer, factors))


def recount(
    optimizer: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LambdaLR, factors: Factors
) -> None:
    """Take other factors from the current step of the schedule on, with the peak rates that it has."""
    schedule.lr_lambdas = _of_groups(optimizer, factors)
    for group, lr, factor in zip(optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True):
        group["lr"] = lr * factor(schedule.last_epoch)


def _of_groups(optimizer: torch.optim.Optimizer, factors: Factors) -> list[Callable[[int], float]]:
    return [factors(group.get(FIRST_STEP, 0)) for group in optimizer.param_groups]


def schedule_factor(
    config: TrainConfig, steps_per_epoch: int, total_steps: int, first_step: int = 0
) -> Callable[[int], float]:
    """The learning rate's factor, a function of the step alone.

    What begins to train at ``first_step`` is scheduled as in a run that begins there: it warms up first, and
    ends where the run ends.
    """
    num_steps = total_steps - first_step
    warmup = max(1, round(config.warmup_fraction * num_steps))

    def cosine(step: int) -> float:
        done = step - first_step
        if done < warmup:
            return (done + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (done - warmup) / max(1, num_steps - warmup)))

    def halve(step: int) -> float:
        return 0.5 ** ((step - first_step) // max(1, steps_per_epoch) // config.halve_epochs)

    return {"cosine": cosine, "halve": halve, "constant": lambda step: 1.0}[config.schedule]
