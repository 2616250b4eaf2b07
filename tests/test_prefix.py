"""What stands in front of the first trained block runs once a clip, and the numbers stay the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.audio_encoders import KINDS, RATE, config_of, noise
from support.audio_encoders import clip as sound_of
from support.models import decoded
from support.training_runs import make_corpus, run, same, weights
from support.visual_encoders import random_config, write_vit

from viper_e2e.config import All, AugmentConfig, Blocks, Changes, Depths, Frozen, with_settings
from viper_e2e.config.presets import micro
from viper_e2e.encoders import AudioEncoder, TokenCache, VisualEncoder
from viper_e2e.encoders.face_encoder import FaceCrops
from viper_e2e.encoders.prefix import CUTTABLE
from viper_e2e.errors import ViperError
from viper_e2e.model import ViPER, build_augment


def trained(*modalities: str, depth: str = "1", layers: int = 1):
    config = with_settings(
        micro(),
        {"modalities": modalities, "visual.layers": layers, "audio.layers": layers, "visual.pooling": "both"},
    )
    torch.manual_seed(0)
    model = ViPER(config).train()
    model.set_training_depths(Depths.parse(",".join(f"{name}={depth}" for name in modalities)))
    return model


def step(model, clips, cache=None):
    """Intensities, and the gradient of every weight that has one."""
    model.zero_grad()
    output = model(clips, cache=cache)
    output.intensities.square().sum().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return output.intensities.detach().clone(), gradients


def equal(one, other) -> bool:
    (values, gradients), (others, of_others) = one, other
    same = torch.equal(values, others) and gradients.keys() == of_others.keys()
    return same and all(torch.equal(gradients[name], of_others[name]) for name in gradients)


def passes(model, name: str) -> list[int]:
    """Grows by one whenever the first block of this backbone runs."""
    seen: list[int] = []
    model.backbones[name].blocks()[0].register_forward_hook(lambda *_: seen.append(1))
    return seen


# --- what is kept of a clip -----------------------------------------------------------------------


@pytest.mark.parametrize("layers", [1, 2])
def test_a_kept_clip_gives_the_same_numbers_and_its_front_is_not_run_again(layers):
    model = trained("visual", "audio", layers=layers)
    clips = model.prepare([decoded(), decoded(3, seed=1), decoded(sound=False)])
    plain, cache = step(model, clips), TokenCache()
    assert equal(plain, step(model, clips, cache))
    kept = [model.cacheable(clip, cache) for clip in clips]
    assert all(set(clip.prefixes) == {"visual", "audio"} and clip.pixels is None for clip in kept)
    seen = passes(model, "visual"), passes(model, "audio")
    assert equal(plain, step(model, kept, TokenCache()))
    assert seen == ([], [])
    assert {name.split(".")[1] for name in plain[1] if name.startswith("encoders")} == {"visual", "audio"}


def test_no_clips_prefix_depends_on_its_company():
    model = trained("visual", "audio")
    clips = model.prepare([decoded(seed=seed) for seed in range(3)])
    alone, together = TokenCache(), TokenCache()
    for clip in clips:
        model([clip], cache=alone)
    model(clips, cache=together)
    for clip in clips:
        one, other = (cache.with_tokens(clip).prefixes for cache in (alone, together))
        assert all(torch.equal(one[name].hidden[0], other[name].hidden[0]) for name in ("visual", "audio"))


def test_a_clip_kept_without_its_prefix_gives_the_same_numbers():
    model, cache = trained("visual", "audio"), TokenCache()
    clips = model.prepare([decoded()])
    plain = step(model, clips, cache)
    (small,) = (model.cacheable(clip, cache, prefixes=False) for clip in clips)
    assert not small.prefixes
    assert small.pixels is not None
    assert equal(plain, step(model, [small], TokenCache()))


def test_steps_of_the_trained_blocks_leave_prefixes_as_they_are_and_other_changes_do_not():
    model, cache = trained("visual"), TokenCache()
    clips = model.prepare([decoded()])
    step(model, clips, cache)
    kept = model.cacheable(clips[0], cache)
    before = model.encoders["visual"].prefix_id()
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1).step()
    assert model.encoders["visual"].prefix_id() == before
    step(model, [kept], TokenCache())
    model.set_training_depths(Depths.parse("visual=2"))
    with pytest.raises(ViperError, match="prepare it again"):
        model([kept], cache=TokenCache())
    model.set_training_depths(Depths.parse("visual=1"))
    with torch.no_grad():
        next(model.backbones["visual"].model.parameters()).add_(1.0)
    with pytest.raises(ViperError, match="prepare it again"):
        model([kept], cache=TokenCache())
    assert not model.cacheable(clips[0], cache).prefixes


def test_what_changes_a_clip_at_random_is_never_kept():
    model, cache = trained("visual", "audio"), TokenCache()
    model.augment = build_augment(Changes.parse("pixels"), AugmentConfig(), model.modalities)
    clips = model.prepare([decoded()])
    model(clips, [1], cache=cache)
    assert set(cache.with_tokens(clips[0]).prefixes) == {"audio"}
    assert model.cacheable(clips[0], cache).pixels is not None


# --- runs -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("prefix") / "corpus", num_train=6, num_val=2)


GROWING = ("--epochs=3", "--batch-size=2", "--backbone-lr=0.01", "--unfreeze-at=1:visual=1,1:audio=1")


@pytest.mark.slow
@pytest.mark.parametrize("words", [("--unfreeze=visual=1,audio=2", *GROWING[:3]), GROWING])
def test_a_run_is_bitwise_the_same_whatever_memory_holds(corpus, tmp_path, words):
    words = (*words, f"--val-shards={corpus}/shards/val-*.tar")
    plain = weights(run(corpus, tmp_path / "plain", *words))
    assert same(plain, weights(run(corpus, tmp_path / "all", *words, "--reuse-memory=1GB")))
    assert same(plain, weights(run(corpus, tmp_path / "some", *words, "--reuse-memory=100kB")))


@pytest.mark.slow
def test_the_front_runs_once_a_clip_however_many_epochs_and_seeds_follow(corpus, tmp_path, monkeypatch):
    seen: list[str] = []
    original = VisualEncoder.encode_prefix
    monkeypatch.setattr(VisualEncoder, "encode_prefix", lambda *given: seen.append("") or original(*given))
    folder = write_vit(tmp_path / "vit")
    words = (f"--backbone=visual={folder}", "--modalities=visual", *GROWING[:3], "--unfreeze=visual=1")
    run(corpus, tmp_path / "runs", *words, "--seeds=2", f"--val-shards={corpus}/shards/val-*.tar")
    assert len(seen) == 6 + 2


# --- backbones ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(CUTTABLE - {"wav2vec2", "hubert", "whisper"}))
@pytest.mark.parametrize("depth", [1, 2])
def test_an_image_backbone_cut_in_two_is_the_whole_one(kind, depth):
    # The mean over patches of two layers at once adds them in another order than of each.
    reads = {"pooling": "mean"} if kind == "siglip_vision_model" else {"pooling": "cls", "layers": 2}
    encoder = VisualEncoder.build(random_config(kind, **reads))
    encoder.backbone.set_training_depth(Blocks(depth))
    encoder.train()
    pixels, frame = torch.randn(3, 3, 32, 32), torch.tensor([0, 1, 2])
    clip = FaceCrops(pixels, torch.zeros(3), frame, frame >= 0, True)
    whole = encoder.embed(pixels)
    cut = encoder.embed_together([clip._replace(prefix=encoder.encode_prefix(clip))])
    assert torch.equal(whole, cut)
    assert torch.equal(encoder.embed(pixels), whole), "the cut left a trace"
    by_gradient = [torch.autograd.grad(x.square().sum(), trained_of(encoder)) for x in (whole, cut)]
    assert all(torch.equal(one, other) for one, other in zip(*by_gradient, strict=True))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.split()[0] in CUTTABLE])
@pytest.mark.parametrize("depth", [1, 2])
def test_a_sound_backbone_cut_in_two_is_the_whole_one(kind, depth):
    torch.manual_seed(0)
    encoder = AudioEncoder.build(config_of(kind, layers=2), "spans", 0.5, RATE)
    encoder.backbone.set_training_depth(Blocks(depth))
    encoder.train()
    heard = sound_of((0.0, noise(1.2)), (1.4, noise(0.3, 2)))
    torch.manual_seed(1)
    whole = encoder([heard]).tokens
    torch.manual_seed(1)
    cut = encoder([heard._replace(prefix=encoder.encode_prefix(heard))]).tokens
    assert torch.equal(whole, cut)
    by_gradient = [torch.autograd.grad(x.square().sum(), trained_of(encoder)) for x in (whole, cut)]
    assert all(torch.equal(one, other) for one, other in zip(*by_gradient, strict=True))


def trained_of(encoder) -> list[torch.Tensor]:
    return [parameter for parameter in encoder.parameters() if parameter.requires_grad]


def test_backbones_that_cannot_be_cut_run_whole():
    image = VisualEncoder.build(random_config("dinov3_vit"))
    sound = AudioEncoder.build(config_of("wavlm"), "spans", 0.5, RATE)
    for encoder in (image, sound):
        encoder.backbone.set_training_depth(Blocks(1))
        assert not encoder.has_prefix
    image = VisualEncoder.build(random_config("vit"))
    for depth in (Frozen(), All()):
        image.backbone.set_training_depth(depth)
        assert not image.has_prefix
