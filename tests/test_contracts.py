"""Every encoder and every fusion head keeps its contract, whatever it is made of."""

from __future__ import annotations

import inspect

import pytest
import torch
from support.models import decoded, model_of, view_of

from viper_e2e.config.modalities import MODALITIES, modality, needs_of
from viper_e2e.encoders import Stream
from viper_e2e.encoders.base import Encoder
from viper_e2e.fusion import ConcatFusion, EnsembleFusion, HiddenLayerFusion, RidgeFusion, TokenFusion
from viper_e2e.fusion.head import FusionHead


@pytest.mark.parametrize("train", ["none", "all"])
@pytest.mark.parametrize("name", MODALITIES)
def test_an_encoder_turns_its_own_inputs_into_a_stream(name, train):
    model = model_of(name, train=train)
    encoder = model.encoders[name]
    assert isinstance(encoder, Encoder)
    assert encoder.name == name
    assert type(encoder) is modality(name).encoder_class()
    assert (encoder.crop_spec is not None) == ("face" in needs_of([name]))
    first, last = model.prepare([decoded(), decoded(2, seed=1)])
    views = [view_of(clip) for clip in (first, None, last)]
    with torch.no_grad():
        stream = encoder([encoder.inputs(view) for view in views])
        encoded = encoder.encode(views)
    for one in (stream, encoded):
        assert isinstance(one, Stream)
        assert one.tokens.shape == (3, 4, encoder.embed_dim)
        assert one.present.shape == one.used.shape == one.seconds.shape == (3, 4)
        assert one.present.any(1).tolist() == [True, False, True]
        assert not one.tokens[~one.present].any()
    torch.testing.assert_close(stream.tokens, encoded.tokens, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", [name for name in MODALITIES if name != "action_units"])
def test_an_encoder_with_a_backbone_has_an_example_and_knows_what_to_compile(name):
    encoder = model_of(name).encoders[name]
    with torch.no_grad():
        stream = encoder([encoder.example_input()])
    assert stream.present.all()
    assert torch.isfinite(stream.tokens).all()
    mine = set(encoder.modules())
    assert set(encoder.compile_targets(torch.device("cuda"))) <= mine


@pytest.mark.parametrize("head", [TokenFusion, ConcatFusion, RidgeFusion, HiddenLayerFusion, EnsembleFusion])
def test_every_head_has_the_signature_of_all(head):
    assert issubclass(head, FusionHead)
    for name in ("__init__", "forward"):
        own, common = (inspect.signature(getattr(owner, name)).parameters for owner in (head, FusionHead))
        assert [str(p) for p in own.values()] == [str(p) for p in common.values()]
