"""What few devices have is not asked of them, float64; and faces are detected without TF32."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from support import ROOT
from support.device_without_float64 import DEVICE, There, bring, device_without_float64
from support.models import MODALITIES, decoded, model_of

from viper_e2e.encoders import TokenCache
from viper_e2e.faces.mtcnn import MTCNN
from viper_e2e.training.losses import IntensityLoss


def test_nothing_becomes_float64_before_it_is_on_the_cpu():
    for name in (ROOT / "viper_e2e").rglob("*.py"):
        assert ".double().cpu()" not in re.sub(r"\s", "", name.read_text(encoding="utf-8")), name


def test_faces_are_detected_without_tf32():
    detector = MTCNN(20, (0.6, 0.7, 0.7))
    seen = []
    detector.propose_net.register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.conv.fp32_precision))
    usual = torch.backends.cudnn.conv.fp32_precision
    detector(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))
    assert set(seen) == {"ieee"}
    assert torch.backends.cudnn.conv.fp32_precision == usual


def test_the_stand_in_refuses_what_the_device_does():
    with device_without_float64():
        there = torch.ones(3, device=DEVICE)
        assert isinstance(there, There)
        assert there.device == DEVICE
        assert there.cpu().double().dtype == torch.float64
        for refused in (
            lambda: there.double(),
            lambda: torch.zeros(2, dtype=torch.float64).to(DEVICE),
            lambda: torch.linspace(0, 1, 3, dtype=torch.float64, device=DEVICE),
            lambda: there.numpy(),
        ):
            with pytest.raises(TypeError):
                refused()
        with pytest.raises(RuntimeError, match="on mps and on cpu"):
            there + torch.ones(3)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "train"), [("ensemble", "all"), ("concat", "none")])
def test_a_device_without_float64_learns_and_predicts(kind, train):
    """Faces are looked for and followed, cut out in both ways, cached; losses have a memory: so two steps."""
    face = (20.0, 10.0, 60.0, 50.0, 0.99, 30.0, 25.0, 50.0, 25.0, 40.0, 35.0, 32.0, 42.0, 48.0, 42.0)
    model = model_of(*MODALITIES, train=train, kind=kind, hidden_dim=8)
    model.encoders["visual"].crop_spec = replace(model.encoders["visual"].crop_spec, align="eyes")
    model = bring(model).train()
    model.faces.detector.register_forward_hook(lambda _, given, found: [torch.tensor([face])] * len(found))
    terms, networks = {"mse": 1.0, "pearson": 1.0, "ccc": 1.0}, model.fusion.num_networks
    loss = bring(IntensityLoss(terms, len(model.labels), num_networks=networks))
    optimizer = torch.optim.AdamW(p for p in model.parameters() if p.requires_grad)
    with device_without_float64():
        assert model.device == DEVICE
        clips = model.prepare([decoded(seed=1), decoded(seed=2)])
        for _ in range(2):
            cache = TokenCache()
            output = model(clips, [1, 2], cache=cache)
            targets = torch.rand(2, len(model.labels)).to(DEVICE)
            weights = torch.ones(2, device=DEVICE)
            loss(output.by_network, targets, weights, weights.sum()).loss.backward()
            optimizer.step()
            clips = [model.cacheable(clip, cache) for clip in clips]
        assert output.face_found.all()
        assert output.intensities.isfinite().all()
        said = model.predict(decoded(seed=3))
    assert set(said["intensities"]) == set(model.labels.names)
