"""What `benchmarks/learning.py` takes from tokens, and how it scores."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from viper_e2e.config import BackboneConfig, VisualConfig
from viper_e2e.encoders.visual import VisualEncoder

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
import learning

VIT = {
    "model_type": "vit",
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


def test_its_columns_are_what_a_model_of_the_last_layer_reads():
    several = VisualEncoder.build(VisualConfig(BackboneConfig(config=VIT), pooling="both", layers=3)).eval()
    alone = VisualEncoder.build(VisualConfig(BackboneConfig(config=VIT), pooling="cls")).eval()
    alone.load_state_dict(several.state_dict())
    pixels = torch.randn(2, 3, 32, 32)
    columns = learning.last_alone_columns("visual", several.embed_dim)
    assert torch.equal(several.embed(pixels)[:, columns], alone.embed(pixels))


def test_intervals_are_over_subjects_not_over_clips():
    rng = np.random.default_rng(0)
    true = rng.normal(size=(120, 2))
    # What is wrong about a person is wrong in all of their clips.
    person = np.repeat(rng.normal(size=(12, 2)), 10, 0)
    predicted = true + person
    by_subject = learning.interval(predicted, true, [str(i // 10) for i in range(120)])
    by_clip = learning.interval(predicted, true, [str(i) for i in range(120)])
    assert by_subject[1] - by_subject[0] > 1.3 * (by_clip[1] - by_clip[0])
    assert by_subject[0] < learning.mean_pearson(predicted, true) < by_subject[1]


@pytest.mark.campaign
def test_every_variant_is_a_command_line_that_is_understood(tmp_path):
    options = learning.argparse.Namespace(out=tmp_path, weights=Path("weights"), epochs=2, mixed_precision="no")
    groups = learning.VARIANTS, learning.FINE_TUNED, learning.JOINED, learning.END_TO_END
    assert len(learning.ALL) == sum(map(len, groups))
    for key, variant in learning.ALL.items():
        settings = learning.settings_of(options, variant, tmp_path / key, "train.tar")
        assert settings.model.fusion.kind == ("ridge" if "ridge" in key else settings.model.fusion.kind)
        assert variant.is_old == (settings.model.visual.layers == 1 and variant.preset == "base")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["perceiver", "before"])
def test_variants_change_what_they_say(name, tmp_path):
    options = learning.argparse.Namespace(out=tmp_path, weights=Path("weights"), epochs=2, mixed_precision="no")
    fusion = learning.settings_of(options, learning.VARIANTS[name], tmp_path, "t.tar").model.fusion
    assert fusion.kind == "tokens"
    assert (fusion.dim, fusion.change) == ((64, True) if name == "perceiver" else (256, False))
