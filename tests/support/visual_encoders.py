"""visual_encoders.py: micro configurations of visual backbones, a ViT as a folder, and a step of training."""

from __future__ import annotations

import json

import torch

from viper_e2e.config import BackboneConfig, VisualConfig
from viper_e2e.config.presets import micro
from viper_e2e.encoders.base import Encoder
from viper_e2e.encoders.visual import VisualEncoder

SMALL = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


def random_config(kind: str, **options) -> VisualConfig:
    return VisualConfig(BackboneConfig(config={"model_type": kind, **SMALL}), **options)


PIXELS = torch.randn(3, 3, 32, 32)


def write_vit(folder):
    encoder = VisualEncoder.build(micro().visual)
    encoder.backbone.model.save_pretrained(folder)
    preprocessor = {
        "size": {"height": 32, "width": 32},
        "resample": 2,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


def state(encoder: Encoder) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in encoder.state_dict().items()}


def one_step(encoder: VisualEncoder) -> set[str]:
    """Names of the tensors that a training step changes."""
    before = state(encoder)
    encoder.train()
    trained = [p for p in encoder.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1)
    encoder.embed(PIXELS).square().sum().backward()
    assert all(p.grad is not None for p in trained), "a trained parameter that no forward pass reads"
    optimizer.step()
    return {name for name, tensor in state(encoder).items() if not torch.equal(tensor, before[name])}
