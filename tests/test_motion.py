"""The motion branch: video transformers over the track's crops, a token per frame with its own time."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_model
from support.models import decoded, model_of
from support.optional import package
from support.training_runs import losses, make_corpus, run, same, weights

import viper_e2e
from viper_e2e.commands.cli import main
from viper_e2e.config import BackboneConfig, MotionConfig
from viper_e2e.config.depth import All, parse_depth
from viper_e2e.config.presets import micro
from viper_e2e.encoders import TokenCache
from viper_e2e.encoders.motion import MotionEncoder
from viper_e2e.errors import ViperError

SMALL = {
    "image_size": 32,
    "patch_size": 16,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "num_frames": 4,
    "initializer_range": 0.2,
}
KINDS = {
    "videomae": {"tubelet_size": 2, "use_mean_pooling": False},
    "timesformer": {},
    "vivit": {"tubelet_size": [2, 16, 16]},
    "vjepa2": {
        "tubelet_size": 2,
        "frames_per_clip": 4,
        "crop_size": 32,
        "mlp_ratio": 2,
        "pred_hidden_size": 24,
        "pred_num_attention_heads": 2,
    },
}


def build(
    kind: str = "videomae", num_slots: int = 4, *, backbone: dict | None = None, **options
) -> MotionEncoder:
    torch.manual_seed(0)
    config = BackboneConfig(config={"model_type": kind, **SMALL, **KINDS[kind]}, **(backbone or {}))
    return MotionEncoder.build(MotionConfig(config, **options), num_slots).eval()


def crops(num_frames: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(num_frames, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


# --- every kind ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_any_video_transformer_gives_a_row_per_frame_and_trains_wholly(kind):
    encoder = build(kind)
    rows = encoder.embed([crops(1), crops(4), crops(9)])
    assert [row.shape for row in rows] == [(1, 24), (4, 24), (9, 24)]
    assert len(encoder.backbone.blocks()) == 2
    encoder.backbone.set_training_depth(All())
    encoder.train()
    torch.cat(encoder.embed([crops(5)])).square().sum().backward()
    assert [n for n, p in encoder.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_is_of_the_frames_that_it_stands_for(kind):
    """A model's tokens lie as we say, by time and patch: TimeSformer's in another order than all others."""
    encoder = build(kind)
    # What attention mixes over time would blur it: blocks are left out.
    blocks = encoder.backbone.blocks()
    for block in blocks:
        block.forward = lambda hidden, *_, **__: (hidden,) if kind in ("timesformer", "vjepa2") else hidden
    still = crops(4)
    tubelet = encoder.shape.tubelet
    for frame in range(4):
        moved = still.clone()
        moved[frame] += crops(1, 1)[0]
        (before,), (after,) = encoder.embed([still]), encoder.embed([moved])
        changed = (before - after).abs().amax(1) > 1e-4
        assert changed.tolist() == [i // tubelet == frame // tubelet for i in range(4)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("depth", ["none", "1", "all"])
def test_half_precision_stays_near_single(kind, depth):
    encoder = build(kind)
    (exact,) = encoder.embed([crops(6)])
    encoder.backbone.set_training_depth(parse_depth(depth, "depth"))
    encoder.to_compute_dtype(torch.bfloat16)
    (rough,) = encoder.embed([crops(6)])
    assert rough.dtype == torch.float32
    assert torch.cosine_similarity(rough, exact).min() > 0.99


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_train_beside_frozen_weights(kind):
    package("peft")
    encoder = build(kind, backbone={"lora_rank": 2})
    torch.cat(encoder.train().embed([crops(4)])).square().sum().backward()
    changed = [name for name, p in encoder.named_parameters() if p.grad is not None]
    assert changed
    assert all("lora" in name for name in changed)
    assert any(p.grad.any() for p in encoder.parameters() if p.grad is not None), "they have an effect"


@pytest.mark.parametrize("kind", KINDS)
def test_weights_and_crops_come_from_a_folder(kind, tmp_path):
    made = build(kind)
    made.save_assets(tmp_path)
    model = made.backbone.model
    if kind == "vjepa2":  # as it is published, with the predictor
        model = type(model)(model.config)
        model.encoder.load_state_dict(made.backbone.model.encoder.state_dict())
    save_model(model, str(tmp_path / "motion/model.safetensors"), metadata={"format": "pt"})
    values = {"do_center_crop": True, "crop_size": {"height": 32, "width": 32}, "resample": 3}
    values |= {"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "rescale_factor": 1 / 127.5, "offset": True}
    (tmp_path / "motion/video_preprocessor_config.json").write_text(json.dumps(values))
    read = MotionEncoder.build(MotionConfig(BackboneConfig(str(tmp_path / "motion"))), 4).eval()
    assert torch.equal(read.embed([crops(3)])[0], made.embed([crops(3)])[0])
    spec = read.crop_spec
    assert (spec.size, spec.aspect, spec.interpolation) == (32, "short_side_center", "bicubic")
    # 0 → −1, 1 → 1, then less the mean, divided by the deviation.
    black, white = ((pixel - spec.mean[0]) / spec.std[0] for pixel in (0.0, 1.0))
    assert (black, white) == pytest.approx((-6.0, 2.0))


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("videomae", {"num_frames": 8}, "videomae takes 4 frames of 32 pixels, not 8 of 32"),
        ("vivit", {"crop_size": 48}, "vivit takes 4 frames of 32 pixels, not 4 of 48"),
        ("vjepa2", {"num_frames": 5}, "5 frames of 32 pixels do not divide into vjepa2's tubelets of 2 frames"),
        ("timesformer", {"crop_size": 40}, "patches of 16 pixels"),
    ],
)
def test_windows_that_a_model_cannot_take_are_refused(kind, options, message):
    with pytest.raises(ViperError, match=message):
        build(kind, **options)


def test_what_is_no_video_transformer_is_refused():
    with pytest.raises(ViperError, match="is a vit, not a supported video transformer"):
        MotionEncoder.build(MotionConfig(micro().visual.backbone), 4)


@pytest.mark.parametrize(("kind", "options"), [("timesformer", {}), ("vjepa2", {"crop_size": 48})])
def test_other_numbers_of_frames_and_sizes_are_taken_where_positions_allow_it(kind, options):
    encoder = build(kind, num_frames=8, **options)
    size = encoder.crop_spec.size
    assert encoder.windows(8).frames.tolist() == [list(range(8))]
    assert encoder.embed([torch.randn(8, 3, size, size)])[0].shape == (8, 24)


def test_a_model_with_relative_positions_sees_no_frame_twice_for_nothing():
    encoder = build("vjepa2", num_slots=3)
    assert encoder.shape.num_frames == 4
    encoder.backbone.model.config.frames_per_clip = 64
    assert build("vjepa2", num_slots=2).shape.num_frames == 2


# --- windows and times --------------------------------------------------------------------------


@pytest.mark.parametrize("num_frames", range(1, 30))
def test_windows_show_every_frame_and_each_token_shows_its_frame(num_frames):
    encoder = build()
    frames, token = encoder.windows(num_frames)
    length, tubelet = 4, 2
    assert frames.shape == (-(-num_frames // length), length)
    assert (frames.diff() >= 0).all(), "in order of time"
    assert (frames.min(), frames.max()) == (0, num_frames - 1)
    tubes = frames.reshape(-1, tubelet)
    assert all(k in tubes[token[k]] for k in range(num_frames))


def test_of_two_windows_that_show_a_frame_it_is_taken_from_where_it_lies_nearer_to_the_middle():
    frames, token = build().windows(6)
    assert frames.tolist() == [[0, 1, 2, 3], [2, 3, 4, 5]]
    assert token.tolist() == [0, 0, 1, 2, 3, 3]


def test_a_token_is_at_the_mean_time_of_the_frames_it_shows():
    seconds = torch.tensor([0.0, 0.2, 1.0, 1.1, 3.0, 4.0])
    expected = [0.1, 0.1, 1.05, 1.05, 3.5, 3.5]
    assert torch.allclose(build().seconds(seconds), torch.tensor(expected))
    assert build().seconds(torch.tensor([0.7])).tolist() == pytest.approx([0.7])
    assert torch.equal(build("timesformer").seconds(seconds), seconds)


def test_a_short_clips_frames_are_repeated_evenly():
    assert build().windows(1).frames.tolist() == [[0, 0, 0, 0]]
    assert build().windows(3).frames.tolist() == [[0, 1, 1, 2]]


def test_frozen_tokens_are_the_same_bits_in_any_company():
    encoder, clips = build(), [crops(n, n) for n in (1, 3, 4, 7)]
    alone = [encoder.embed([clip])[0] for clip in clips]
    for one, again in zip(alone, [encoder.embed([clip])[0] for clip in reversed(clips)][::-1], strict=True):
        assert torch.equal(one, again)
    for one, other in zip(alone, encoder.embed(clips), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


# --- in the whole model -------------------------------------------------------------------------


def test_order_of_time_is_what_it_sees():
    """Frames in another order are another motion: no other modality that looks would tell."""
    model = model_of("motion")
    forth, back = decoded(), decoded()
    back.frames = back.frames[::-1].copy()
    tokens = [clip.tokens["motion"].tokens for clip in _prepared(model, forth, back)]
    assert not torch.allclose(tokens[0].mean(0), tokens[1].mean(0), atol=1e-4)


def _prepared(model, *clips):
    with torch.no_grad():
        prepared, cache = model.prepare(list(clips)), TokenCache()
        model(prepared, cache=cache)
    return [cache.with_tokens(clip) for clip in prepared]


@pytest.mark.slow
def test_trained_or_frozen_is_the_same_to_rounding():
    clips = [decoded(n, seed=n) for n in (1, 3, 4)] + [None]
    with torch.no_grad():
        frozen, trained = (model_of("motion", train=train)(clips).intensities for train in ("none", "all"))
    torch.testing.assert_close(frozen[:3], trained[:3], atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_a_model_comes_back_from_its_folder_and_scores_a_clip(tmp_path, tiny_clip):
    model = model_of("visual", "motion")
    clip = tiny_clip("a.mp4")
    model.save_pretrained(tmp_path / "model", self_contained=True)
    read = viper_e2e.load(tmp_path / "model")
    with torch.no_grad():
        assert torch.equal(read(clip).intensities, model(clip).intensities)
    words = [str(clip), f"--checkpoint={tmp_path / 'model'}", f"--output={tmp_path / 'scores.json'}"]
    assert main(["infer", *words, "--num-workers=0"]) == 0
    assert json.loads((tmp_path / "scores.json").read_text())


@pytest.mark.campaign
@pytest.mark.parametrize("depth", ["none", "all"])
def test_a_run_that_goes_on_or_reuses_is_bitwise_the_same(depth, tmp_path):
    corpus = make_corpus(tmp_path / "corpus", num_train=4, num_val=2)
    words = ("--modalities=motion", f"--unfreeze=motion={depth}", "--epochs=2", "--batch-size=2", "--seed=1")
    # Other schedules depend on the number of steps there will be.
    words += ("--schedule=constant",)
    whole = run(corpus, tmp_path / "whole", *words)
    halves = run(corpus, tmp_path / "halves", *words, "--max-steps=3")
    run(corpus, halves, *words, "--max-steps=4", "--resume")
    cached = run(corpus, tmp_path / "cached", *words, "--reuse-memory=1GB")
    assert same(weights(whole), weights(halves))
    assert same(weights(whole), weights(cached))
    assert losses(whole) == losses(cached)
