"""hiding.py: modality dropout: which modalities a clip is trained without, drawn from its own seed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool
from torch import Tensor


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
