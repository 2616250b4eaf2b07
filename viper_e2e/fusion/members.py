"""members.py: heads of one kind, trained separately: their mean predicts, their spread is the uncertainty."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from viper_e2e.config import FusionConfig
from viper_e2e.encoders import Stream
from viper_e2e.fusion.head import FusionHead
from viper_e2e.fusion.scale import LabelScale


class MembersFusion(FusionHead):
    """Answers with all of its members; who asks takes their mean and their spread.

    Lakshminarayanan et al. 2017, "Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles".
    """

    def __init__(
        self,
        kind: type[FusionHead],
        config: FusionConfig,
        widths: Mapping[str, int],
        num_outputs: int,
        sigmoid: bool,
        scale: LabelScale | None = None,
    ):
        super().__init__(config, widths, num_outputs, sigmoid, scale)
        own = replace(config, members=1)
        self.members = nn.ModuleList(
            kind(own, widths, num_outputs, sigmoid, scale) for _ in range(config.members)
        )
        self.spreads_frames = kind.spreads_frames

    @property
    def num_networks(self) -> int:
        return sum(member.num_networks for member in self.members if isinstance(member, FusionHead))

    def compile_targets(self, device: torch.device) -> list[nn.Module]:
        heads = [member for member in self.members if isinstance(member, FusionHead)]
        return [target for head in heads for target in head.compile_targets(device)]

    def forward(
        self,
        streams: dict[str, Stream],
        face_found: Bool[Tensor, "B T"],
        duration_seconds: Float[Tensor, "B"],
        hidden: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B *K E"]:
        """Intensities from each member (in training mode from each of its networks); see `TokenFusion`."""
        answers = [member(streams, face_found, duration_seconds, hidden) for member in self.members]
        return torch.cat([one if one.ndim == 3 else one[:, None] for one in answers], 1)
