"""outputs.py: what all fusion heads share: from logits to intensities, and what they are checked for."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from viper_e2e.config import FusionConfig
from viper_e2e.encoders import Stream
from viper_e2e.errors import ViperError
from viper_e2e.fusion.scale import LabelScale


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
