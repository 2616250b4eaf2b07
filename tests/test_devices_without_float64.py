"""What few devices have is not asked of them, float64; and faces are detected without TF32."""

from __future__ import annotations

import re

import torch
from conftest import ROOT

from viper_e2e.faces.mtcnn import MTCNN


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
