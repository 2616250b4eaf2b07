"""released_heads.py: checkpoints as the authors' training script writes them, small."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from transformers import PerceiverConfig, PerceiverModel
from transformers.models.perceiver.modeling_perceiver import PerceiverClassificationDecoder

SMALL = {
    "num_latents": 4,
    "d_latents": 16,
    "num_self_attends_per_block": 2,
    "num_self_attention_heads": 4,
    "num_cross_attention_heads": 4,
}


def perceiver(width: int = 1280, num_labels: int = 7, residual: bool = True, **changes) -> PerceiverModel:
    """A head as the authors' training script makes it, small."""
    torch.manual_seed(0)
    config = PerceiverConfig(d_model=width, num_labels=num_labels, **(SMALL | changes))
    positions = {"num_channels": config.d_latents, "index_dims": 1}
    decoder = PerceiverClassificationDecoder(
        config,
        num_channels=config.d_latents,
        trainable_position_encoding_kwargs=positions,
        use_query_residual=residual,
    )
    return PerceiverModel(config, decoder=decoder)


def released(
    tmp_path: Path, model: nn.Module | None = None, name: str = "perceiver_2.model", **options
) -> Path:
    path = tmp_path / name
    torch.save(perceiver() if model is None else model, path, **options)
    return path
