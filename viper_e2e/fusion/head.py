"""head.py: the contract of a fusion head: one signature, from token streams to intensities."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from viper_e2e.config import FusionConfig
from viper_e2e.encoders import Stream
from viper_e2e.fusion.scale import LabelScale


class FusionHead(nn.Module, ABC):
    """From streams of the modalities it was built for to intensities of each clip.

    What is absent or hidden reaches neither outputs nor gradients, whatever stands in its slots.
    """

    spreads_frames = False
    """Whether a clip with fewer frames than slots has to fill all of them; else it leaves some unused."""

    def __init__(
        self,
        config: FusionConfig,
        widths: Mapping[str, int],
        num_outputs: int,
        sigmoid: bool,
        scale: LabelScale | None = None,
    ):
        """``widths``: modality → D of its tokens, in the order of the streams. ``sigmoid``: labels lie in
        [0, 1]. ``scale``: of other labels."""
        super().__init__()
        self.modalities = tuple(widths)
        self.sigmoid, self.rescale = sigmoid, config.rescale
        self.scale = scale

    @abstractmethod
    def forward(
        self,
        streams: dict[str, Stream],
        face_found: Bool[Tensor, "B T"],
        duration_seconds: Float[Tensor, "B"],
        hidden: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B *K E"]:
        """Intensities, float32 also under autocast; of K > 1 networks in training mode, each its own.

        ``face_found``: of the frames' slots. ``hidden``: modalities kept from a clip (dropout in training,
        ablation in evaluation), which are treated exactly as absent ones.
        """

    @property
    def num_networks(self) -> int:
        """How many answer for themselves in training mode."""
        return 1

    def compile_targets(self, device: torch.device) -> list[nn.Module]:
        """What gets inputs of equal shapes again and again; not the head itself, whose hooks would become part
        of what is compiled."""
        return []
