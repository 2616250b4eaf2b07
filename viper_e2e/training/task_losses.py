"""task_losses.py: the loss of a run: of each task on the clips that have its label."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from viper_e2e.config import TrainConfig
from viper_e2e.errors import ViperError
from viper_e2e.fusion import LabelScale
from viper_e2e.labels import LabelSet
from viper_e2e.shards import ShardSet
from viper_e2e.tasks import LEAST_PROBABILITY, Task
from viper_e2e.training.losses import IntensityLoss, LossOutput
from viper_e2e.training.uncertainty import UncertaintyWeights


@dataclass(frozen=True)
class TaskLossSettings:
    """Settings of the loss of tasks; terms of `IntensityLoss` are for intensities and numbers."""

    terms: Mapping[str, float]
    class_weights: str = "none"
    """`balanced`: clips of a class weigh as much together as those of any other."""
    label_smoothing: float = 0.0
    focal_gamma: float = 0.0
    """Gamma of the focal loss (Lin et al. 2017, eq. 4); 0: cross-entropy."""
    task_weights: Mapping[str, float] = field(default_factory=dict)
    """Weights by task; 1 for others."""
    learned_weights: bool = False
    """These are learned instead, by the tasks' uncertainty."""


class ClassLoss(nn.Module):
    """Cross-entropy of one class of several, or of labels that hold or not, in float32; a mean over clips.

    A class may be shares of raters (soft labels). Weighted classes are not normalised by the weights of a
    batch, so that accumulation and processes change nothing.
    """

    class_weights: Tensor

    def __init__(
        self,
        task: Task,
        class_weights: Float[Tensor, " C"] | None = None,
        label_smoothing: float = 0.0,
        focal_gamma: float = 0.0,
    ):
        super().__init__()
        self.one_of_several = task.kind == "class"
        self.label_smoothing, self.focal_gamma = label_smoothing, focal_gamma
        weights = torch.ones(task.size) if class_weights is None else class_weights
        self.register_buffer("class_weights", weights, persistent=False)

    def forward(
        self,
        predictions: Float[Tensor, "B K C"],
        targets: Float[Tensor, "B C"],
        weights: Float[Tensor, "B"],
        total_weight: Float[Tensor, ""],
        gather: Callable[[Tensor], Tensor] | None = None,
        rank: int = 0,
    ) -> LossOutput:
        """Arguments as for `IntensityLoss`; ``predictions``: probabilities of each of K networks."""
        dtype = torch.promote_types(predictions.dtype, torch.float32)
        counts = (weights > 0)[:, None]
        # An even guess, not just weight 0: rows that do not count may have NaN.
        guesses = torch.where(counts[..., None], predictions.to(dtype), 1 / predictions.shape[-1])
        wanted = torch.where(counts, targets.to(dtype), 0.0)[:, None]
        lost = self._of_several(guesses, wanted) if self.one_of_several else self._of_each(guesses, wanted)
        own = (weights.to(dtype) * lost.mean(1)).sum()
        rows = own.detach()[None, None]
        everywhere = rows if gather is None else gather(rows)
        total = torch.where(total_weight > 0, total_weight, 1.0).to(dtype)
        value = everywhere.sum() / total
        return LossOutput(len(everywhere) * own / total, value, {})

    def _of_several(
        self, guesses: Float[Tensor, "B K C"], wanted: Float[Tensor, "B 1 C"]
    ) -> Float[Tensor, "B K"]:
        smoothed = wanted + self.label_smoothing * (1 / wanted.shape[-1] - wanted)
        focus = (1 - guesses) ** self.focal_gamma if self.focal_gamma else 1.0
        # A clip weighs what its class weighs, smoothed or not.
        clip_weights = (wanted * self.class_weights).sum(-1)
        return -clip_weights * (smoothed * focus * _log(guesses)).sum(-1)

    def _of_each(self, guesses: Float[Tensor, "B K C"], wanted: Float[Tensor, "B 1 C"]) -> Float[Tensor, "B K"]:
        smoothed = wanted + self.label_smoothing * (0.5 - wanted)
        holds, does_not = smoothed * _log(guesses), (1 - smoothed) * _log(1 - guesses)
        if self.focal_gamma:
            holds, does_not = holds * (1 - guesses) ** self.focal_gamma, does_not * guesses**self.focal_gamma
        # Of a label that holds, its weight; of one that does not, 1.
        return -(self.class_weights * holds + does_not).mean(-1)


class TaskLoss(nn.Module):
    """Sum over tasks of each one's loss × its weight; clips without a task's label do not count for it."""

    def __init__(
        self,
        labels: LabelSet,
        rows: Float[np.ndarray, "N E"],
        settings: TaskLossSettings,
        memory_rows: int = 256,
        scale: LabelScale | None = None,
        num_networks: int = 1,
    ):
        """``rows``: all labels that are trained on, NaN where one is missing. ``scale``, ``num_networks``: as
        for `IntensityLoss`. Raises `ViperError` for weights of unknown tasks."""
        super().__init__()
        if unknown := settings.task_weights.keys() - {task.name for task, _ in labels.parts}:
            there = ", ".join(task.name for task, _ in labels.parts)
            raise ViperError(f"--task-weights: no task {', '.join(sorted(unknown))}; there are {there}")
        self.parts = labels.parts
        self.task_weights = [settings.task_weights.get(task.name, 1.0) for task, _ in self.parts]
        tasks = [task for task, _ in self.parts]
        self.uncertainty = UncertaintyWeights(tasks) if settings.learned_weights else None
        self.losses = nn.ModuleList()
        for task, columns in self.parts:
            if task.kind in ("class", "labels"):
                weights = balanced(task, rows[:, columns]) if settings.class_weights == "balanced" else None
                loss: nn.Module = ClassLoss(task, weights, settings.label_smoothing, settings.focal_gamma)
            else:
                own = None if scale is None else scale.of_columns(columns)
                loss = IntensityLoss(dict(settings.terms), task.size, memory_rows, own, num_networks)
            self.losses.append(loss)
        self.register_load_state_dict_pre_hook(_with_a_part)

    @property
    def learned_weights(self) -> dict[str, float]:
        """Learned weights by task, as they are now; empty if none are learned."""
        if self.uncertainty is None:
            return {}
        weights = self.uncertainty.weights.tolist()
        return {task.name: weight for (task, _), weight in zip(self.parts, weights, strict=True)}

    def end_step(self, *, takes_effect: bool) -> None:
        """A step of the learned weights' own, where the model has made one."""
        if self.uncertainty is not None:
            self.uncertainty.end_step(takes_effect=takes_effect)

    def forward(
        self,
        predictions: Float[Tensor, "B *K E"],
        targets: Float[Tensor, "B E"],
        weights: Float[Tensor, "B"],
        total_weight: Float[Tensor, " T"],
        gather: Callable[[Tensor], Tensor] | None = None,
        rank: int = 0,
    ) -> LossOutput:
        """See `IntensityLoss`; ``total_weight`` is of each task. ``terms``: each task's loss, by name."""
        by_network = predictions if predictions.ndim == 3 else predictions[:, None]
        total, value, terms = predictions.new_zeros(()), predictions.new_zeros(()), {}
        for index, (task, columns) in enumerate(self.parts):
            own = targets[:, columns]
            guesses = by_network[..., columns]
            lost = self.losses[index](guesses, own, weights * has_label(own), total_weight[index], gather, rank)
            if self.uncertainty is None:
                weight: float | Tensor = self.task_weights[index]
            else:
                weight = self.uncertainty.weights[index]
                self.uncertainty.add(index, lost.value, total_weight[index])
            total, value = total + weight * lost.loss, value + weight * lost.value
            terms[task.name] = lost.value
        return LossOutput(total, value, terms)


def _with_a_part(module: nn.Module, state: dict[str, Any], prefix: str, *_: object) -> None:
    """A state in which versions before 0.6 saved the loss of intensities alone, as that of the one part."""
    for name in [name for name in state if name.startswith(f"{prefix}memory_")]:
        state[f"{prefix}losses.0.{name.removeprefix(prefix)}"] = state.pop(name)


def build_loss(labels: LabelSet, shards: ShardSet, config: TrainConfig, num_networks: int) -> TaskLoss:
    """The loss of the training shards' tasks. `ViperError` for settings that none of these tasks reads."""
    scale = LabelScale.of(labels)
    if not any(task.kind in ("class", "labels") for task, _ in labels.parts):
        given = {"--class-weights": config.class_weights != "none", "--label-smoothing": config.label_smoothing}
        given |= {"--focal-gamma": config.focal_gamma}
        if useless := [option for option, is_given in given.items() if is_given]:
            raise ViperError(
                f"{useless[0]}: the training clips have no task of classes or labels, so it has no effect"
            )
    if config.task_weights and not labels.names_tasks:
        raise ViperError("--task-weights: the training clips have no tasks, only intensities")
    settings = TaskLossSettings(
        config.loss.weights,
        config.class_weights,
        config.label_smoothing,
        config.focal_gamma,
        dict(config.task_weights.weights),
        config.task_weights.learned,
    )
    # Nothing else looks at all labels.
    rows = shards.label_rows() if config.class_weights == "balanced" else np.empty((0, len(labels)))
    return TaskLoss(labels, rows, settings, scale=scale, num_networks=num_networks)


def has_label(targets: Float[Tensor, "B C"]) -> Bool[Tensor, "B"]:
    """Clips with all of a task's numbers."""
    return ~targets.isnan().any(1)


def label_weights(labels: LabelSet, targets: Float[Tensor, "B E"], weights: Float[Tensor, "B"]) -> list[float]:
    """Number of clips in a batch that count for each task."""
    return [float((weights * has_label(targets[:, columns])).sum()) for _, columns in labels.parts]


def balanced(task: Task, rows: Float[np.ndarray, "N C"]) -> Float[Tensor, " C"]:
    """A weight per class that makes all weigh the same over the training clips; 1 for one that never occurs."""
    known = rows[~np.isnan(rows).any(1)]
    occurs = known.sum(0)
    if task.kind == "class":
        even = len(known) / max(int(np.count_nonzero(occurs)), 1) if len(known) else 1.0
        weights = np.where(occurs > 0, even / np.where(occurs > 0, occurs, 1.0), 1.0)
    else:
        weights = np.where(occurs > 0, (len(known) - occurs) / np.where(occurs > 0, occurs, 1.0), 1.0)
    return torch.tensor(weights, dtype=torch.float32)


def _log(probabilities: Tensor) -> Tensor:
    return probabilities.clamp_min(LEAST_PROBABILITY).log()
