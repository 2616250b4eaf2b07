"""scale.py: the head's numbers <-> labels of any range and kind, so that all are learned in the same way."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from viper_e2e.labels import LabelSet
from viper_e2e.tasks import Task, parts


class LabelScale(nn.Module):
    """Per emotion ``label = centre + width × unit``; a width of 0: labels are the head's numbers themselves.

    Labels of 0 to 100, of −1 to 1 or around 50 then ask of the head, the loss and the learning rate what labels
    in [0, 1] do. Where there are tasks, classes come of a softmax over their columns, and what lies in [0, 1]
    of a sigmoid. Nothing of it is in a `state_dict`: it is saved with the labels in ``config.json``.
    """

    centres: Tensor
    widths: Tensor
    is_unit: Tensor

    def __init__(
        self,
        centres: tuple[float, ...],
        widths: tuple[float, ...],
        *,
        bounded: bool = False,
        tasks: tuple[Task, ...] = (),
    ):
        """``bounded``: a sigmoid spans the width, and no line as steep as its middle goes beyond it. ``tasks``:
        whose columns these are; without, all are intensities."""
        super().__init__()
        assert len(centres) == len(widths)
        self.bounded = bounded
        self.classes = tuple(columns for task, columns in parts(tasks) if task.kind == "class")
        is_unit = [task.in_unit_interval for task, columns in parts(tasks) for _ in range(task.size)]
        is_unit = is_unit or [False] * len(widths)
        self.register_buffer("is_unit", torch.tensor(is_unit), persistent=False)
        self.register_buffer("centres", torch.tensor(centres, dtype=torch.float32), persistent=False)
        self.register_buffer("widths", torch.tensor(widths, dtype=torch.float32), persistent=False)

    @classmethod
    def of(cls, labels: LabelSet, *, bounded: bool = False) -> LabelScale | None:
        """The scale of a label set; ``None`` where it has none, as for intensities in [0, 1]."""
        if labels.centres is None or labels.widths is None:
            if not labels.tasks:
                return None
            none = (0.0,) * len(labels)
            return cls(none, none, bounded=bounded, tasks=labels.tasks)
        return cls(labels.centres, labels.widths, bounded=bounded, tasks=labels.tasks)

    def to_labels(
        self, logits: Float[Tensor, "*B E"], otherwise: Float[Tensor, "*B E"]
    ) -> Float[Tensor, "*B E"]:
        """The head's output in units of the labels; ``otherwise`` for columns of width 0 without a task."""
        units = logits.sigmoid() - 0.5 if self.bounded else logits / 4
        scaled = self.centres.to(logits.dtype) + self.widths.to(logits.dtype) * units
        labels = torch.where(self.widths > 0, scaled, torch.where(self.is_unit, logits.sigmoid(), otherwise))
        for columns in self.classes:
            labels[..., columns] = logits[..., columns].softmax(-1)
        return labels

    def within(self, labels: Float[Tensor, "*B E"]) -> Float[Tensor, "*B E"]:
        """A linear prediction brought into the range of such labels: [0, 1], and classes as shares of 1."""
        labels = torch.where(self.is_unit & (self.widths == 0), labels.clamp(0.0, 1.0), labels)
        for columns in self.classes:
            total = labels[..., columns].sum(-1, keepdim=True)
            even = torch.full_like(total, 1 / labels[..., columns].shape[-1])
            shares = labels[..., columns] / torch.where(total > 0, total, 1.0)
            labels[..., columns] = torch.where(total > 0, shares, even)
        return labels

    def of_columns(self, columns: slice) -> LabelScale:
        """The scale of some columns alone, for a task that is not a class."""
        centres, widths = (tuple(row[columns].tolist()) for row in (self.centres, self.widths))
        return LabelScale(centres, widths, bounded=self.bounded)

    def to_units(self, values: Float[Tensor, "*B E"]) -> Float[Tensor, "*B E"]:
        """Labels or predictions in units of their width."""
        is_scaled = self.widths > 0
        centres, widths = self.centres.to(values.dtype), self.widths.to(values.dtype)
        return torch.where(is_scaled, (values - centres) / torch.where(is_scaled, widths, 1.0), values)
