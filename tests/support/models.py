"""models.py: models with random weights, and clips for them that were never encoded."""

from __future__ import annotations

import numpy as np
import torch

from viper_e2e.clip import Cue, DecodedClip, SoundRun
from viper_e2e.config import with_settings
from viper_e2e.config.depth import Depths, parse_depth
from viper_e2e.config.presets import micro
from viper_e2e.encoders import PreparedClip
from viper_e2e.encoders.clip_view import ClipView
from viper_e2e.model.viper import ViPER

MODALITIES = ("visual", "audio", "textual", "action_units", "motion", "words")


def model_of(*modalities: str, train: str = "none", **fusion) -> ViPER:
    """A micro model; its weights are random and say nothing."""
    config = with_settings(
        micro(), {"modalities": modalities, **{f"fusion.{name}": value for name, value in fusion.items()}}
    )
    torch.manual_seed(0)
    return training(ViPER(config), train).eval()


def training(model: ViPER, depth: str) -> ViPER:
    """The model, with its backbones trained this much; CLIP trains its image tower alone."""
    names = [name for name in model.backbones if name != "sentence_encoder"]
    model.set_training_depths(Depths(tuple((name, parse_depth(depth, "training")) for name in names)))
    return model


def decoded(
    num_frames: int = 4, *, sound: bool = True, units: bool = True, words: bool = True, seed: int = 0
) -> DecodedClip:
    rng = np.random.default_rng(seed)
    samples = rng.standard_normal(16_000).astype(np.float32)
    return DecodedClip(
        name=f"clip {seed}",
        frames=rng.integers(0, 255, (num_frames, 64, 96, 3), dtype=np.uint8),
        frame_seconds=np.arange(num_frames) / 4,
        duration_seconds=num_frames / 4,
        sound=(SoundRun(0.0, samples),) if sound else (),
        has_sound=sound,
        sound_seconds=1.0 if sound else 0.0,
        display_size=(192, 128),
        action_units=rng.random((7, 27), dtype=np.float32) if units else None,
        words=(Cue(f"number {seed}", 0.0, 0.6), Cue("spoken at some time")) if words else (),
    )


def view_of(clip: PreparedClip | None, num_slots: int = 4) -> ClipView:
    """As an encoder sees a clip, or one that cannot be read, in a pass without augmentation."""
    slot = torch.arange(num_slots)
    num_frames = num_slots if clip is None else len(clip.seconds)
    frame = torch.zeros_like(slot) if clip is None else slot.clamp(max=num_frames - 1)
    return ClipView(clip, frame, slot < num_frames, 16_000)
