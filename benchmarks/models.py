"""models.py: the preset `base` with weights that need no download: random ones, of the published sizes."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save_model

from viper_e2e.config import PRESETS, BackboneConfig, ModelConfig, with_settings
from viper_e2e.model import ViPER

PREPROCESSORS = {
    "visual": {"size": {"height": 224, "width": 224}, "resample": 2},
    "audio": {"sampling_rate": 16_000, "do_normalize": False},
}

CLIP_VIT_B_32 = {
    "embed_dim": 512,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12},
}


def base_sized() -> ModelConfig:
    """ViT-B/16, WavLM-base, CLIP ViT-B/32 (whose own text tower embeds the sentences), frozen; our fusion."""
    # What transformers builds from a bare model_type is of the size of "base".
    return with_settings(
        PRESETS["base"](),
        {
            "visual.backbone": BackboneConfig(config={"model_type": "vit"}),
            "audio.backbone": BackboneConfig(config={"model_type": "wavlm"}),
            "textual.image_text": BackboneConfig(config=CLIP_VIT_B_32),
            "textual.sentence_encoder": None,
        },
    )


def tiny_frozen() -> ModelConfig:
    """The preset `tiny` with its encoders frozen, as they are."""
    return PRESETS["tiny"]()


def sized(name: str) -> ModelConfig:
    """`base` or `tiny`, frozen and without a download."""
    return {"base": base_sized, "tiny": tiny_frozen}[name]()


def write_backbones(config: ModelConfig, folder: Path) -> None:
    """Each random backbone as a folder, as a pretrained one comes from the hub.

    Of a pretrained, frozen backbone a checkpoint keeps the hash; a random one it must keep whole.
    """
    for encoder in ViPER(config).encoders.values():
        encoder.save_assets(folder)
        for name, backbone in encoder.backbones().items():
            save_model(backbone.model, str(folder / name / "model.safetensors"), metadata={"format": "pt"})
            if name in PREPROCESSORS:
                (folder / name / "preprocessor_config.json").write_text(json.dumps(PREPROCESSORS[name]))


def from_folders(config: ModelConfig, folder: Path) -> ModelConfig:
    """`config` with its backbones loaded from what `write_backbones` wrote."""
    places = {"visual": "visual.backbone", "audio": "audio.backbone", "image_text": "textual.image_text"}
    sources = {f"{place}.source": str(folder / name) for name, place in places.items()}
    return with_settings(config, {**sources, **{f"{place}.config": None for place in places.values()}})
