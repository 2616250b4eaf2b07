"""presets.py: presets, from which settings start: `paper`, `base`, `tiny`, and `micro` for tests."""

from __future__ import annotations

from typing import Any, Literal

from viper_e2e.config.depth import All, Depths
from viper_e2e.config.model import (
    AudioConfig,
    BackboneConfig,
    DecodingConfig,
    FaceConfig,
    FusionConfig,
    ModelConfig,
    MotionConfig,
    TextualConfig,
    VisualConfig,
    WordsConfig,
)
from viper_e2e.config.values import Loss

MAX_DEVIATIONS = 10.0
"""Standard deviations at which a ridge's features are cut off; of N training clips, none is further than
√(N − 1) from the mean."""


def _random_vit(size: int, patch: int, width: int, layers: int, heads: int, **more: object) -> BackboneConfig:
    return BackboneConfig(
        config={
            "model_type": "vit",
            "image_size": size,
            "patch_size": patch,
            "hidden_size": width,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "intermediate_size": 2 * width,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            **more,
        }
    )


def _random_wav2vec2(conv_width: int, width: int, layers: int, heads: int) -> BackboneConfig:
    return BackboneConfig(
        config={
            "model_type": "wav2vec2",
            "conv_dim": [conv_width] * 7,
            "conv_stride": [5, 2, 2, 2, 2, 2, 2],
            "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
            "feat_extract_norm": "layer",
            "do_stable_layer_norm": True,
            "hidden_size": width,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "intermediate_size": 2 * width,
            "num_conv_pos_embeddings": 16,
            "num_conv_pos_embedding_groups": 4,
            "apply_spec_augment": False,
            "layerdrop": 0.0,
            "hidden_dropout": 0.0,
            "attention_dropout": 0.0,
            "feat_proj_dropout": 0.0,
            "activation_dropout": 0.0,
            "final_dropout": 0.0,
        }
    )


def _random_whisper(
    num_mels: int, positions: int, width: int, layers: int, heads: int, **more: object
) -> BackboneConfig:
    """Whisper's encoder; it hears pieces of ``positions`` × 20 ms."""
    return BackboneConfig(
        config={
            "model_type": "whisper",
            "num_mel_bins": num_mels,
            "max_source_positions": positions,
            "d_model": width,
            "encoder_layers": layers,
            "encoder_attention_heads": heads,
            "encoder_ffn_dim": 2 * width,
            "encoder_layerdrop": 0.0,
            "dropout": 0.0,
            "attention_dropout": 0.0,
            "activation_dropout": 0.0,
            **more,
        }
    )


def _random_videomae(
    size: int, patch: int, width: int, layers: int, heads: int, frames: int, **more: object
) -> BackboneConfig:
    own = {"model_type": "videomae", "num_frames": frames, "tubelet_size": 2, "use_mean_pooling": False}
    return _random_vit(size, patch, width, layers, heads, **own, **more)


def _random_clip(size: int, patch: int, width: int, layers: int) -> BackboneConfig:
    return BackboneConfig(
        config={
            "embed_dim": width,
            "quick_gelu": True,
            "vision_cfg": {
                "image_size": size,
                "patch_size": patch,
                "width": width,
                "layers": layers,
                "head_width": 16,
            },
            "text_cfg": {
                "context_length": 77,
                "vocab_size": 49408,
                "width": 16,
                "heads": 1,
                "layers": 1,
            },
        }
    )


def _random_bert(width: int, layers: int, heads: int, **more: object) -> BackboneConfig:
    """It reads bytes, for which it needs no tokenizer (`encoders/tokenization.py`)."""
    return BackboneConfig(
        config={
            "model_type": "bert",
            "vocab_size": 259,
            "pad_token_id": 0,
            "hidden_size": width,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "intermediate_size": 2 * width,
            "max_position_embeddings": 512,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            **more,
        }
    )


def micro() -> ModelConfig:
    """Smallest random model that walks every path; for tests only."""
    return ModelConfig(
        modalities=("visual", "audio"),
        decoding=DecodingConfig(num_frames=4, max_side=320, span_seconds=0.5),
        faces=FaceConfig(min_face_size=40, close_ups=True),
        visual=VisualConfig(backbone=_random_vit(32, 16, 16, 2, 2), crop_size=32),
        audio=AudioConfig(backbone=_random_wav2vec2(8, 16, 2, 2)),
        textual=TextualConfig(image_text=_random_clip(32, 16, 16, 1)),
        motion=MotionConfig(backbone=_random_videomae(32, 16, 16, 2, 2, 4)),
        words=WordsConfig(backbone=_random_bert(16, 2, 2), piece_tokens=32),
        fusion=FusionConfig(
            max_deviations=MAX_DEVIATIONS,
            dim=16,
            num_latents=4,
            latent_dim=16,
            depth=1,
            self_attends_per_block=1,
            num_latent_heads=2,
            dropout=0.0,
        ),
    )


def tiny() -> ModelConfig:
    """Random backbones of at most a million trainable parameters, trained jointly from scratch: the demo.

    Narrow layers start with larger weights than their families' 0.02, which is made for hundreds of channels:
    at 0.02 they hear and see next to nothing for many epochs.
    """
    visual = _random_vit(96, 16, 64, 3, 4, initializer_range=0.1)
    audio = _random_whisper(40, 200, 96, 2, 4, init_std=0.08)
    motion = _random_videomae(96, 16, 64, 3, 4, 8, initializer_range=0.1)
    return ModelConfig(
        modalities=("visual", "audio"),
        decoding=DecodingConfig(num_frames=8, max_side=640, span_seconds=1.0),
        faces=FaceConfig(min_face_size=40, close_ups=True),
        visual=VisualConfig(backbone=visual, pooling="mean", crop_size=96),
        audio=AudioConfig(backbone=audio),
        textual=TextualConfig(image_text=_random_clip(96, 16, 64, 2)),
        motion=MotionConfig(backbone=motion),
        words=WordsConfig(backbone=_random_bert(64, 2, 4, initializer_range=0.1)),
        fusion=FusionConfig(
            max_deviations=MAX_DEVIATIONS,
            dim=96,
            num_latents=16,
            latent_dim=96,
            depth=1,
            self_attends_per_block=1,
        ),
    )


def base() -> ModelConfig:
    """The published backbones, frozen, under a head that a hundred clips do not drown in.

    Several layers of each backbone, class token and patch mean; a ridge, a hidden layer and a small Perceiver:
    why, says `benchmarks/RESULTS.md` under "Few clips".
    """
    return ModelConfig(
        modalities=("visual", "audio", "textual"),
        faces=FaceConfig(close_ups=True),
        visual=VisualConfig(
            backbone=BackboneConfig("google/vit-base-patch16-224-in21k"), pooling="both", layers=3
        ),
        audio=AudioConfig(BackboneConfig("microsoft/wavlm-base-plus"), layers=2, padding="clip"),
        textual=TextualConfig(
            image_text=BackboneConfig("ViT-B-32-quickgelu/openai"),
            sentence_encoder=BackboneConfig("roberta-base"),
        ),
        motion=MotionConfig(backbone=BackboneConfig("MCG-NJU/videomae-base-finetuned-kinetics")),
        words=WordsConfig(backbone=BackboneConfig("roberta-base"), layers=3),
        fusion=FusionConfig(
            kind="ensemble",
            change=True,
            max_deviations=MAX_DEVIATIONS,
            dim=64,
            num_latents=8,
            latent_dim=64,
            depth=1,
            self_attends_per_block=1,
            hidden_dim=256,
        ),
    )


def paper() -> ModelConfig:
    """The published rules throughout (Vaiani et al. 2022); see `published/` for the released checkpoints."""
    return ModelConfig(
        modalities=("visual", "audio", "textual", "action_units"),
        decoding=DecodingConfig(num_frames=32, sampling="paper", max_side=None, sound="windows"),
        faces=FaceConfig(detect_seconds=0.0, min_face_size=60, min_probability=0.0, selection="first"),
        visual=VisualConfig(backbone=BackboneConfig("google/vit-base-patch16-224-in21k"), crop="paper"),
        audio=AudioConfig(backbone=BackboneConfig("microsoft/wavlm-base-plus-sv"), head="xvector"),
        textual=TextualConfig(
            image_text=BackboneConfig("ViT-B-32-quickgelu/openai"),
            sentence_encoder=BackboneConfig("roberta-base"),
            choice="hard",
            crop="paper",
        ),
        fusion=FusionConfig(
            kind="concat",
            num_latents=256,
            latent_dim=1280,
            depth=1,
            self_attends_per_block=26,
            num_cross_heads=8,
            num_latent_heads=8,
            output="linear",
        ),
    )


Preset = Literal["base", "micro", "paper", "tiny"]
PRESETS = {"paper": paper, "base": base, "tiny": tiny, "micro": micro}

TRAIN_DEFAULTS: dict[str, dict[str, Any]] = {
    "paper": {
        "lr": 1e-5,
        "schedule": "halve",
        "batch_size": 16,
        "epochs": 50,
        "clip_norm": 0.0,
        "modality_dropout": 0.0,
    },
    # Its backbones are wide and frozen: half precision is twice as fast wherever there is hardware for it.
    "base": {"mixed_precision": "auto", "lr": 3e-3},
    "tiny": {
        "lr": 1e-3,
        "backbone_lr": 1e-3,
        "batch_size": 8,
        "epochs": 15,
        "unfreeze": Depths(tuple((name, All()) for name in ("visual", "audio", "motion", "words"))),
        "loss": Loss((("mse", 1.0), ("pearson", 0.5))),
    },
    "micro": {"lr": 1e-3, "backbone_lr": 1e-3, "batch_size": 4, "epochs": 2, "num_workers": 0},
}
"""Training settings in which a preset differs from :class:`TrainConfig`."""
