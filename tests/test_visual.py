"""The visual branch: any vision transformer, the crop its preprocessor wants, the published numbers."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from PIL import Image
from support.visual_encoders import random_config
from torchvision.transforms.v2 import functional as tv

from viper_e2e.clip import CropSpec
from viper_e2e.config import BackboneConfig, VisualConfig, with_settings
from viper_e2e.config.depth import All, Blocks, parse_depth
from viper_e2e.config.presets import micro
from viper_e2e.encoders.visual import VisualEncoder
from viper_e2e.errors import ViperError

KINDS = [
    "vit",
    "deit",
    "beit",
    "dinov2",
    "dinov2_with_registers",
    "dinov3_vit",
    "clip_vision_model",
    "siglip_vision_model",
]


@pytest.mark.parametrize("kind", KINDS)
def test_any_vision_transformer_gives_a_row_per_crop_and_trains_wholly(kind):
    encoder = VisualEncoder.build(random_config(kind, pooling="mean"))
    pixels = torch.randn(3, 3, 32, 32)
    assert encoder.embed(pixels).shape == (3, encoder.embed_dim) == (3, 16)
    assert len(encoder.backbone.blocks()) == 2
    encoder.backbone.set_training_depth(All())
    encoder.train()
    encoder.embed(pixels).square().sum().backward()
    assert [n for n, p in encoder.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("depth", ["none", "1", "all"])
def test_half_precision_stays_near_single(kind, depth):
    torch.manual_seed(0)
    encoder = VisualEncoder.build(random_config(kind, pooling="mean")).eval()
    pixels = torch.randn(3, 3, 32, 32)
    exact = encoder.embed(pixels)
    encoder.backbone.set_training_depth(parse_depth(depth, "depth"))
    encoder.to_compute_dtype(torch.bfloat16)
    rough = encoder.embed(pixels)
    assert rough.dtype == torch.float32
    assert torch.cosine_similarity(rough, exact).min() > 0.999
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(encoder.embed(pixels), rough)


@pytest.mark.parametrize("kind", ["vit", "dinov2", "deit", "beit", "clip_vision_model", "dinov3_vit"])
def test_class_token_and_patch_mean_are_what_they_say(kind):
    torch.manual_seed(0)
    by_token = VisualEncoder.build(random_config(kind))
    by_mean = VisualEncoder.build(random_config(kind, pooling="mean"))
    by_mean.load_state_dict(by_token.state_dict())
    pixels = torch.randn(2, 3, 32, 32)
    model = by_token.backbone.model
    hidden = model(pixels).last_hidden_state
    if kind == "clip_vision_model":
        assert torch.equal(by_token.embed(pixels), model(pixels).pooler_output)
    else:
        assert torch.equal(by_token.embed(pixels), hidden[:, 0])
        assert torch.allclose(by_mean.embed(pixels), hidden[:, hidden.shape[1] - 16 :].mean(1))
    assert not torch.allclose(by_token.embed(pixels), by_mean.embed(pixels))


@pytest.mark.parametrize("kind", KINDS)
def test_several_layers_stand_side_by_side_and_the_last_is_what_it_was_alone(kind):
    config = random_config(kind, pooling="mean")
    config.backbone.config["num_hidden_layers"] = 4
    alone = VisualEncoder.build(config)
    config = with_settings(config, {"layers": 3})
    several = VisualEncoder.build(config)
    several.load_state_dict(alone.state_dict())
    pixels = torch.randn(3, 3, 32, 32)
    tokens = several.embed(pixels)
    assert tokens.shape == (3, several.embed_dim) == (3, 48)
    assert torch.equal(tokens[:, 32:], alone.embed(pixels))
    model = several.backbone.model
    hidden = model(pixels, output_hidden_states=True).hidden_states
    for part, layer in enumerate((2, 3)):
        state = hidden[layer][:, -16:]
        expected = torch.nn.functional.layer_norm(state, (16,)).mean(1)
        torch.testing.assert_close(tokens[:, 16 * part : 16 * part + 16], expected)


def test_class_token_and_patch_mean_go_side_by_side():
    both = VisualEncoder.build(random_config("vit", pooling="both"))
    pixels = torch.randn(2, 3, 32, 32)
    for pooling, part in (("cls", slice(0, 16)), ("mean", slice(16, 32))):
        one = VisualEncoder.build(random_config("vit", pooling=pooling))
        one.load_state_dict(both.state_dict())
        assert torch.equal(both.embed(pixels)[:, part], one.embed(pixels))


def test_more_layers_than_there_are_is_an_error():
    with pytest.raises(ViperError, match="layers 4; a backbone of 2 blocks has at most 2"):
        VisualEncoder.build(random_config("vit", layers=4))


def test_a_model_without_class_token_says_so():
    with pytest.raises(ViperError, match=r"has no class token; set visual\.pooling to mean"):
        VisualEncoder.build(random_config("siglip_vision_model"))


def test_no_transformer_of_equal_patches_is_refused():
    config = {"model_type": "resnet"}
    with pytest.raises(ViperError, match="is a resnet, not a vision transformer"):
        VisualEncoder.build(VisualConfig(BackboneConfig(config=config)))


@pytest.mark.parametrize("kind", ["vit", "deit", "dinov2", "clip_vision_model", "dinov3_vit"])
def test_other_crop_sizes_are_taken_where_positions_can_be_interpolated(kind):
    encoder = VisualEncoder.build(random_config(kind, crop_size=48))
    assert encoder.crop_spec.size == 48
    assert encoder.embed(torch.randn(2, 3, 48, 48)).shape == (2, 16)


def test_a_crop_of_broken_patches_is_refused():
    with pytest.raises(ViperError, match="crop_size 36 is not a multiple of the 8-pixel patches"):
        VisualEncoder.build(random_config("vit", crop_size=36))


def test_a_clip_is_encoded_the_same_again_and_again():
    encoder = VisualEncoder.build(micro().visual)
    pixels = torch.randn(4, 3, 32, 32)
    first = encoder.embed(pixels)
    encoder.embed(torch.randn(9, 3, 32, 32))
    assert torch.equal(encoder.embed(pixels), first)


# --- the crop -----------------------------------------------------------------------------------


def with_preprocessor(folder, values) -> CropSpec:
    torch.manual_seed(0)
    VisualEncoder.build(random_config("vit")).backbone.model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(values))
    return VisualEncoder.build(VisualConfig(BackboneConfig(str(folder)), crop_size=32)).crop_spec


@pytest.mark.slow
def test_the_crop_follows_the_preprocessor(tmp_path):
    squash = with_preprocessor(
        tmp_path, {"size": 32, "resample": 3, "image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 1]}
    )
    assert squash == CropSpec(
        32, "squash", interpolation="bicubic", mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0), resize_in_uint8=True
    )
    dino = {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}, "do_center_crop": True}
    assert with_preprocessor(tmp_path, dino).aspect == "short_side_center"
    raw = with_preprocessor(tmp_path, {"size": {"height": 32, "width": 32}, "do_normalize": False})
    assert (raw.mean, raw.std) == ((0.0,) * 3, (1.0,) * 3)
    unscaled = with_preprocessor(tmp_path, {"size": 32, "do_rescale": False, "image_mean": [51.0] * 3})
    assert unscaled.mean == pytest.approx((0.2,) * 3)
    assert unscaled.std == pytest.approx((0.5 / 255,) * 3)
    doubled = with_preprocessor(tmp_path, {"size": 32, "rescale_factor": 2 / 255})
    assert (doubled.mean, doubled.std) == ((0.25,) * 3, (0.25,) * 3)
    usual = with_preprocessor(tmp_path, {"size": 32, "rescale_factor": 0.00392156862745098})
    assert (usual.mean, usual.std) == ((0.5,) * 3, (0.5,) * 3)
    with pytest.raises(ViperError, match="has resample 1; allowed 2, 3"):
        with_preprocessor(tmp_path, {"size": 32, "resample": 1})


def test_the_published_crop_is_an_integer_box_squashed_in_uint8(reference):
    config = VisualConfig(BackboneConfig(str(reference / "peer/checkpoints/vit")), crop="paper")
    spec = VisualEncoder.build(config).crop_spec
    assert spec == CropSpec(224, integer_boxes=True, resize_in_uint8=True)


# --- real and published numbers -----------------------------------------------------------------


def published_crops(reference) -> list[Image.Image]:
    frames = json.loads((reference / "peer/expected/expected.json").read_text())["frame_indices"]
    return [Image.open(reference / f"peer/expected/crops/frame_{i}.jpg").convert("RGB") for i in frames]


@pytest.mark.slow
def test_the_published_features_come_out(reference):
    encoder = VisualEncoder.build(VisualConfig(BackboneConfig(str(reference / "peer/checkpoints/vit"))))
    expected = torch.from_numpy(np.load(reference / "peer/expected/features.npz")["visual"])
    crops = published_crops(reference)
    with_pil = torch.stack(
        [torch.from_numpy(np.array(c.resize((224, 224), Image.BILINEAR))).permute(2, 0, 1) for c in crops]
    )
    tensors = [torch.from_numpy(np.array(c)).permute(2, 0, 1) for c in crops]
    with_tensors = torch.stack([tv.resize(t, [224, 224], antialias=True) for t in tensors])

    def error(pixels):
        return (encoder.embed((pixels.float() / 255 - 0.5) / 0.5) - expected).abs().max()

    assert error(with_pil) < 1e-4
    assert error(with_tensors) < 0.03
    assert error(with_pil.flip(-1)) > 0.1
    assert error(with_pil[:1].expand(32, -1, -1, -1)) > 0.1


@pytest.mark.slow
def test_real_dinov2_sees_the_same_face_in_neighbouring_frames(reference):
    config = VisualConfig(BackboneConfig(str(reference / "weights/dinov2-small")), crop_size=112)
    encoder = VisualEncoder.build(config)
    assert encoder.crop_spec == CropSpec(
        112,
        interpolation="bicubic",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        resize_in_uint8=True,
    )
    crops = published_crops(reference)[:3]
    pixels = torch.stack(
        [torch.from_numpy(np.array(c.resize((112, 112)))).permute(2, 0, 1) / 255.0 for c in crops]
    )
    mean, std = (torch.tensor(x)[:, None, None] for x in (encoder.crop_spec.mean, encoder.crop_spec.std))
    face = encoder.embed((pixels - mean) / std)
    noise = encoder.embed(torch.randn(1, 3, 112, 112))
    assert torch.cosine_similarity(face[0], face[1], dim=0) > 0.9
    assert torch.cosine_similarity(face[0], noise[0], dim=0) < 0.6
    unpooled = copy.deepcopy(encoder)
    unpooled.backbone.set_training_depth(Blocks(2))
    assert [g.part for g in unpooled.backbone.depth_groups()] == ["block 11", "block 12"]
