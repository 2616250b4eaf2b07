"""scale.py: the head's numbers <-> units of the labels, so that labels of any range are learned alike."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from viper_e2e.labels import LabelSet


class LabelScale(nn.Module):
    """Per emotion ``label = centre + width × unit``; a width of 0: labels are the head's numbers themselves.

    Labels of 0 to 100, of −1 to 1 or around 50 then ask of the head, the loss and the learning rate what labels
    in [0, 1] do. Nothing of it is in a `state_dict`: it stands with the labels in ``config.json``.
    """

    centres: Tensor
    widths: Tensor

    def __init__(self, centres: tuple[float, ...], widths: tuple[float, ...], *, bounded: bool = False):
        """``bounded``: a sigmoid spans the width, and no line as steep as its middle goes beyond it."""
        super().__init__()
        assert len(centres) == len(widths)
        self.bounded = bounded
        self.register_buffer("centres", torch.tensor(centres, dtype=torch.float32), persistent=False)
        self.register_buffer("widths", torch.tensor(widths, dtype=torch.float32), persistent=False)

    @classmethod
    def of(cls, labels: LabelSet, *, bounded: bool = False) -> LabelScale | None:
        """Of a label set; ``None`` where it has none, as in [0, 1]."""
        if labels.centres is None or labels.widths is None:
            return None
        return cls(labels.centres, labels.widths, bounded=bounded)

    def to_labels(
        self, logits: Float[Tensor, "*B E"], otherwise: Float[Tensor, "*B E"]
    ) -> Float[Tensor, "*B E"]:
        """What the head says in units of the labels; ``otherwise`` where the width is 0."""
        units = logits.sigmoid() - 0.5 if self.bounded else logits / 4
        scaled = self.centres.to(logits.dtype) + self.widths.to(logits.dtype) * units
        return torch.where(self.widths > 0, scaled, otherwise)

    def to_units(self, values: Float[Tensor, "*B E"]) -> Float[Tensor, "*B E"]:
        """Labels or predictions in units of their width."""
        is_scaled = self.widths > 0
        centres, widths = self.centres.to(values.dtype), self.widths.to(values.dtype)
        return torch.where(is_scaled, (values - centres) / torch.where(is_scaled, widths, 1.0), values)
