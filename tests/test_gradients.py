"""Gradients, checked by finite differences in double precision: from face crops and sound to the loss."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from support.models import decoded, model_of
from torch import Tensor, nn

from viper_e2e.encoders import Stream
from viper_e2e.model.viper import ViPER

STEP = 1e-6
"""Of central differences: their error falls with its square, rounding grows with its inverse."""


def double_model(*modalities: str, **fusion) -> ViPER:
    """Everything trained, in float64. The detector keeps its own precision, and frames stay what they are."""
    return model_of(*modalities, train="all", **fusion).double()


def loss_of(model: ViPER) -> Callable[[], Tensor]:
    """A function of the weights alone: the clips are prepared once."""
    clips = model.prepare([decoded(), decoded(sound=False, seed=1), None])
    target = torch.linspace(0, 1, 21, dtype=torch.float64).view(3, 7)
    weight = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)[:, None]
    return lambda: (weight * (model(clips).intensities - target).square()).sum()


def differences(loss: Callable[[], Tensor], parameter: nn.Parameter, direction: Tensor) -> float:
    """The slope of the loss along a direction, by central differences."""
    values = []
    with torch.no_grad():
        for sign in (1, -1):
            parameter.add_(sign * STEP * direction)
            values.append(loss().item())
            parameter.sub_(sign * STEP * direction)
    return (values[0] - values[1]) / (2 * STEP)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("modalities", "fusion", "every"),
    [
        (("visual", "audio", "textual", "action_units"), {}, 7),
        pytest.param(("visual", "audio", "textual", "action_units"), {}, 1, marks=pytest.mark.campaign),
        # The encoders are the same: some of their tensors show that this head hands gradients on.
        pytest.param(
            ("visual", "audio"),
            {"kind": "concat", "latent_dim": 16, "num_cross_heads": 2},
            7,
            marks=pytest.mark.campaign,
        ),
    ],
)
def test_every_trained_tensor_has_the_gradient_that_differences_say(modalities, fusion, every):
    model = double_model(*modalities, **fusion)
    loss = loss_of(model)
    loss().backward()
    generator = torch.Generator().manual_seed(0)
    checked = set()
    for number, (name, parameter) in enumerate(model.named_parameters()):
        if not parameter.requires_grad:
            continue
        assert parameter.grad is not None, name
        if name.startswith("encoders") and number % every:
            continue
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        expected = differences(loss, parameter, direction)
        found = (parameter.grad * direction).sum().item()
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-9), name
        checked.add(name.split(".")[1] if name.startswith("encoders") else name.split(".")[0])
    assert checked == {"fusion", *modalities} - {"action_units"}


@pytest.mark.slow
def test_gradients_reach_the_first_layer_of_each_encoder_through_its_own_input():
    model = double_model("visual", "audio", "textual")
    loss_of(model)().backward()
    for name in ("visual", "audio"):
        first = next(p for p in model.encoders[name].backbone.model.parameters() if p.ndim > 1)
        assert first.grad.abs().max() > 1e-12
    assert model.encoders["textual"].image_text.model.visual.conv1.weight.grad.abs().max() > 1e-12


@pytest.mark.slow
def test_encoder_and_fusion_pass_pytorchs_own_check_on_the_pixels_of_crops():
    model = double_model("visual")
    encoder, fusion = model.encoders["visual"], model.fusion
    (clip,) = model.prepare([decoded()])
    spec = encoder.crop_spec
    crops = model.faces.crop(clip.pixels, clip.track.boxes, spec).double()

    def intensities(pixels: Tensor) -> Tensor:
        tokens = encoder.embed(pixels)[None]
        there = torch.ones(1, len(pixels), dtype=torch.bool)
        stream = Stream(tokens, there, there, clip.seconds[None])
        return fusion({"visual": stream}, there, torch.tensor([1.0]))

    patch = crops[:, :, :2, :2].clone().requires_grad_()

    def of_patch(corner: Tensor) -> Tensor:
        pixels = crops.clone()
        pixels[:, :, :2, :2] = corner
        return intensities(pixels)

    assert torch.autograd.gradcheck(of_patch, (patch,), eps=1e-6, atol=1e-8, rtol=1e-5)
    whole = crops.clone().requires_grad_()
    assert torch.autograd.gradcheck(intensities, (whole,), eps=1e-6, atol=1e-7, rtol=1e-4, fast_mode=True)


def test_a_clip_of_weight_zero_gives_no_gradient():
    model = double_model("visual", "audio")
    loss = loss_of(model)
    loss().backward()
    with_it = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    clips = model.prepare([decoded(), decoded(sound=False, seed=1)])
    target = torch.linspace(0, 1, 21, dtype=torch.float64).view(3, 7)[:2]
    (model(clips).intensities - target).square().sum().backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, with_it[name], rtol=1e-9, atol=1e-12, msg=name)
