"""audio_encoders.py: micro configurations of each kind of audio backbone, and sound for them."""

from __future__ import annotations

import torch

from viper_e2e.config import AudioConfig, BackboneConfig
from viper_e2e.config.presets import micro
from viper_e2e.encoders.audio import ClipSound

RATE = 16_000
WAV2VEC2 = micro().audio.backbone.config

KINDS = {
    "wav2vec2": {},
    "wav2vec2 post-norm": {"do_stable_layer_norm": False, "feat_extract_norm": "group"},
    "hubert": {},
    "wavlm": {},
    "wavlm post-norm": {"do_stable_layer_norm": False, "feat_extract_norm": "group"},
    "whisper": {
        "d_model": 16,
        "encoder_layers": 2,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "decoder_layers": 1,
        "max_source_positions": 1500,
        "pad_token_id": 0,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "decoder_start_token_id": 0,
        "vocab_size": 10,
    },
}

KINDS["whisper unpadded"] = KINDS["whisper"]


def config_of(kind: str, **options) -> AudioConfig:
    model_type = kind.split()[0]
    base = {} if model_type == "whisper" else dict(WAV2VEC2)
    if kind == "whisper unpadded":
        options["padding"] = "clip"
    return AudioConfig(BackboneConfig(config={**base, **KINDS[kind], "model_type": model_type}), **options)


def noise(seconds: float, seed: int = 1) -> torch.Tensor:
    return 0.1 * torch.randn(round(seconds * RATE), generator=torch.Generator().manual_seed(seed))


def clip(*runs: tuple[float, torch.Tensor], seconds=(0.0, 0.5, 1.0, 1.5), stream: float = 2.0) -> ClipSound:
    return ClipSound(list(runs), torch.tensor(seconds), stream)
