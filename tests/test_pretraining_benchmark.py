"""What `benchmarks/pretraining.py` may know of clips without labels, and what masking hides."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
import pretraining_clips
import pretraining_draw
import pretraining_tasks

from viper_e2e.config import FusionConfig, TrainConfig
from viper_e2e.config.presets import PRESETS
from viper_e2e.encoders import Stream, TokenCache
from viper_e2e.model import ViPER
from viper_e2e.shards import ShardSet

WIDTHS, SLOTS, LABELLED = {"visual": 6, "audio": 6}, 4, 8


def some_clips(count: int, seed: int) -> pretraining_clips.Clips:
    generator = torch.Generator().manual_seed(seed)
    everywhere = torch.ones(count, SLOTS, dtype=torch.bool)
    seconds = torch.arange(SLOTS).float().expand(count, -1)
    streams = {
        name: Stream(torch.randn(count, SLOTS, width, generator=generator), everywhere, everywhere, seconds)
        for name, width in WIDTHS.items()
    }
    targets = torch.rand(count, 7, generator=generator)
    return pretraining_clips.Clips(
        streams, everywhere, torch.full((count,), float(SLOTS)), targets, torch.arange(count) // 4
    )


@pytest.fixture
def splits(monkeypatch: pytest.MonkeyPatch) -> dict[str, pretraining_clips.Clips]:
    smaller = {
        pretraining_clips: {"TOKEN_AXES": 4},
        pretraining_draw: {"EPOCHS": 1, "FEATURE_AXES": 4, "CANONICAL_AXES": 2},
        pretraining_tasks: {"CHANGE_AXES": 4, "PRETRAINING_STEPS": 2},
    }
    for module, values in smaller.items():
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)
    return {"train": some_clips(24, 0), "val": some_clips(8, 1), "test": some_clips(8, 2)}


def draw_of(splits: dict[str, pretraining_clips.Clips]) -> pretraining_draw.Draw:
    fusion = FusionConfig(
        change=True, dim=8, num_latents=2, latent_dim=8, depth=1, self_attends_per_block=1, num_latent_heads=2
    )
    module = SimpleNamespace(
        encoders={name: SimpleNamespace(embed_dim=width) for name, width in WIDTHS.items()},
        labels=range(7),
        config=SimpleNamespace(fusion=fusion),
    )
    return pretraining_draw.Draw(module, TrainConfig(), splits, 1, LABELLED)


@pytest.mark.slow
@torch.no_grad()
def test_clips_are_read_as_the_model_would_have_fused_them(corpus):
    model, shards = ViPER(PRESETS["micro"]()).eval(), ShardSet(f"{corpus}/shards/val-*.tar")
    prepared, streams = {}, {}
    for i in range(len(shards)):
        (clip,), cache = model.prepare(shards.read(i)), TokenCache()
        key = shards.entry(i).key
        streams[key] = model([clip], cache=cache, keep_streams=True).streams
        prepared[key] = model.cacheable(clip, cache)
    clips = pretraining_clips.read(model, shards, prepared)
    for name, stream in clips.streams.items():
        alone = zip(*(streams[key][name] for key in sorted(streams)), strict=True)
        assert all(torch.equal(ours, torch.cat(theirs)) for ours, theirs in zip(stream, alone, strict=True))
    assert clips.face_found.shape == clips.streams["visual"].present.shape
    assert len(clips.duration_seconds) == len(clips.subjects) == len(shards)


@pytest.mark.slow
def test_labels_outside_of_the_draw_reach_no_answer(splits):
    targets = torch.full_like(splits["train"].targets, torch.nan)
    own = slice(LABELLED, 2 * LABELLED)
    targets[own] = splits["train"].targets[own]
    hidden = splits | {"train": splits["train"]._replace(targets=targets)}
    with_all, without = draw_of(splits), draw_of(hidden)
    for key in ("scales", "canonical", "masked", "within", "pseudo"):
        answers, again = (draw.answers(pretraining_draw.VARIANTS[key])["test"] for draw in (with_all, without))
        assert torch.equal(answers, again), key
        assert answers.isfinite().all(), key
    starts = [with_all.part("perceiver", start)["test"] for start in ("axes", "masked", "within")]
    assert not any(torch.equal(starts[0], other) for other in starts[1:]), "pretraining changes the start"
