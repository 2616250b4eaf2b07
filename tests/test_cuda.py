"""On a GPU: the numbers of the processor, and training in half precision. Skipped without one."""

from __future__ import annotations

import pytest
import torch
from support.models import MODALITIES, decoded, model_of
from support.optional import needs_cuda

from viper_e2e.training.losses import IntensityLoss

pytestmark = needs_cuda


@pytest.mark.parametrize("kind", ["tokens", "concat", "ensemble"])
def test_intensities_are_those_of_the_processor(kind):
    model = model_of(*MODALITIES, kind=kind, hidden_dim=8).eval()
    clips = [decoded(seed=seed) for seed in range(3)]
    with torch.no_grad():
        here = model(clips).intensities
        there = model.to("cuda")(clips).intensities
    assert there.device.type == "cuda"
    torch.testing.assert_close(there.cpu(), here, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_trained_weight_gets_a_finite_gradient(dtype):
    model = model_of(*MODALITIES, train="all").to("cuda").train()
    model.set_compute_dtype(dtype)
    terms, networks = {"mse": 1.0, "pearson": 0.5}, model.fusion.num_networks
    loss = IntensityLoss(terms, len(model.labels), num_networks=networks).to("cuda")
    output = model([decoded(seed=seed) for seed in range(4)], seeds=[0, 1, 2, 3])
    targets = torch.rand(4, len(model.labels), device="cuda")
    loss(output.by_network, targets, torch.ones(4, device="cuda")).loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.grad is not None:
            assert torch.isfinite(parameter.grad).all(), name
