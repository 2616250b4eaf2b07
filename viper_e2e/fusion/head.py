"""head.py: the contract of a fusion head, from token streams to intensities, and what all heads share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from viper_e2e.config import FusionConfig
from viper_e2e.encoders import Stream
from viper_e2e.errors import ViperError
from viper_e2e.fusion.scale import LabelScale


class FusionHead(nn.Module, ABC):
    """Turn streams of the modalities it was built for into intensities of each clip.

    What is absent or hidden reaches neither outputs nor gradients, whatever is in its slots.
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
        """Number of networks that answer for themselves in training mode."""
        return 1

    def compile_targets(self, device: torch.device) -> list[nn.Module]:
        """Modules worth compiling: their inputs keep their shapes. Not the head itself: its hooks would be
        compiled as well."""
        return []


def to_intensities(
    logits: Float[Tensor, "B E"], sigmoid: bool, rescale: bool, scale: LabelScale | None
) -> Float[Tensor, "B E"]:
    """Logits -> float32 in units of the labels.

    ``sigmoid``: of labels in [0, 1]. ``rescale``: as `rescaled`. ``scale``: of other labels.
    """
    # float64 stays: gradients are checked numerically in it.
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    intensities = logits.sigmoid() if sigmoid else logits
    if scale is not None:
        intensities = scale.to_labels(logits, intensities)
    return rescaled(intensities) if rescale else intensities


def rescaled(intensities: Float[Tensor, "*B E"]) -> Float[Tensor, "*B E"]:
    """Each row divided by its maximum, a constant to the gradient (published option); one ≤ 0 leaves it."""
    top = intensities.detach().amax(dim=-1, keepdim=True)
    return intensities / torch.where(top > 0, top, torch.ones_like(top))


def check_streams(streams: dict[str, Stream], modalities: tuple[str, ...]) -> None:
    """The modalities a head was built for, in its order."""
    assert tuple(streams) == modalities, (tuple(streams), modalities)


def check_heads(config: FusionConfig, width: int, *names: str) -> None:
    """`ViperError` where a number of attention heads does not divide the width they share."""
    for name in names:
        heads = getattr(config, name)
        if heads < 1 or width % heads:
            raise ViperError(
                f"fusion.{name}={heads} does not divide the width {width} it splits: choose a divisor"
            )


def sample_hidden(present: Bool[Tensor, "B M"], p: float, seeds: Sequence[int]) -> Bool[Tensor, "B M"]:
    """Modality dropout: which present modalities to hide from each clip, each with probability ``p``.

    One seed per clip and nothing else decides, so a clip's draw does not depend on its batch, process or
    worker. If all that is present would go, the one with the highest draw stays.
    """
    assert len(seeds) == len(present), (len(seeds), len(present))
    num_modalities = present.shape[1]
    draws = torch.stack(
        [torch.rand(num_modalities, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    ).to(present.device)
    # The highest draw among the present is the last to be hidden, so sparing it only matters when all go.
    spared = torch.where(present, draws, -1.0).argmax(1, keepdim=True)
    return ((draws < p) & present).scatter(1, spared, False)
