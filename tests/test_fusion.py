from __future__ import annotations

import pytest
import torch
from support.fusions import SECONDS, WIDTHS, B, E, T, face, fusion, streams

from viper_e2e.config import FusionConfig
from viper_e2e.config.modalities import MODALITIES
from viper_e2e.config.presets import paper
from viper_e2e.encoders import Stream
from viper_e2e.errors import ViperError
from viper_e2e.fusion import ConcatFusion, TokenFusion, build_fusion, sample_hidden
from viper_e2e.fusion.head import rescaled
from viper_e2e.fusion.tokens import time_features

KINDS = pytest.mark.parametrize("kind", ["tokens", "concat"])
ALL_KINDS = pytest.mark.parametrize("kind", ["tokens", "change", "concat", "ensemble"])


@ALL_KINDS
def test_intensities_are_float32_also_under_autocast(kind):
    model = fusion(kind)
    exact = model(streams(), face(), SECONDS)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(streams(), face(), SECONDS)
    assert exact.dtype == rounded.dtype == torch.float32
    assert exact.shape == (B, E)
    torch.testing.assert_close(exact, rounded, atol=0.05, rtol=0.05)
    # The last product is exact: values that bfloat16 cannot hold.
    assert (rounded != rounded.bfloat16().float()).any()


@ALL_KINDS
def test_half_precision_streams_of_frozen_backbones_are_accepted(kind):
    half = {name: s._replace(tokens=s.tokens.bfloat16()) for name, s in streams().items()}
    assert fusion(kind)(half, face(), SECONDS).dtype == torch.float32


@pytest.mark.parametrize(
    ("output", "unit_interval", "bounded"),
    [("auto", True, True), ("auto", False, False), ("linear", True, False), ("sigmoid", False, True)],
)
@KINDS
def test_the_range_of_labels_decides_the_range_of_outputs(kind, output, unit_interval, bounded):
    model = fusion(kind, unit_interval=unit_interval, output=output)
    bias = [p for p in model.parameters() if p.shape == (E,)]
    torch.nn.init.constant_(bias[-1], 50.0)
    outputs = model(streams(), face(), SECONDS)
    assert bool((outputs <= 1).all()) == bounded


@pytest.mark.parametrize("kind", ["tokens", "change", "concat"])
@pytest.mark.parametrize("present", [MODALITIES, (), ("audio",)])
@pytest.mark.parametrize("found", [True, False])
def test_every_parameter_gets_a_gradient_whatever_is_there(kind, present, found):
    model = fusion(kind).train()
    model(streams(present), face(found), SECONDS).square().sum().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert without == []
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_without_a_face_modality_there_is_no_parameter_for_it():
    widths = {"audio": 8, "action_units": 4}
    model = fusion(widths=widths)
    model(streams(widths=widths), face(False), SECONDS).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@ALL_KINDS
def test_nothing_in_unread_slots_reaches_outputs_or_gradients(kind):
    model = fusion(kind)

    def run(garbage: float):
        given = streams()
        for name, s in given.items():
            used = torch.arange(T).expand(B, T) < 4
            present = torch.arange(T).expand(B, T) != 1
            unread = ~(used & present)[..., None]
            given[name] = Stream(torch.where(unread, garbage, s.tokens), present, used, s.seconds)
        model.zero_grad()
        outputs = model(given, face(), SECONDS)
        outputs.sum().backward()
        return outputs, [p.grad.clone() for p in model.parameters() if p.requires_grad]

    clean, clean_gradients = run(0.0)
    poisoned, poisoned_gradients = run(float("nan"))
    assert torch.equal(clean, poisoned)
    assert all(torch.equal(a, b) for a, b in zip(clean_gradients, poisoned_gradients, strict=True))


@ALL_KINDS
@pytest.mark.parametrize("modality", range(len(WIDTHS)))
def test_a_hidden_modality_is_an_absent_one(kind, modality):
    model = fusion(kind)
    hidden = torch.zeros(B, len(WIDTHS), dtype=torch.bool)
    hidden[:, modality] = True
    absent = tuple(name for i, name in enumerate(WIDTHS) if i != modality)
    # Also where the hidden one knew that there was no face.
    a = model(streams(), face(), SECONDS, hidden)
    b = model(streams(absent), face(), SECONDS)
    assert torch.equal(a, b)
    assert not torch.allclose(a, model(streams(), face(), SECONDS), atol=1e-6)


def test_a_hidden_modality_does_not_tell_whether_there_was_a_face():
    model = fusion()
    hidden = torch.tensor([[True, False, True, False, True]] * B)
    assert torch.equal(
        model(streams(), face(True), SECONDS, hidden), model(streams(), face(False), SECONDS, hidden)
    )
    seen = torch.zeros(B, len(WIDTHS), dtype=torch.bool)
    assert not torch.equal(
        model(streams(), face(True), SECONDS, seen), model(streams(), face(False), SECONDS, seen)
    )


@ALL_KINDS
def test_a_clip_does_not_depend_on_its_batch(kind):
    model = fusion(kind)
    given = streams()
    alone = {name: Stream(*(field[1:2] for field in s)) for name, s in given.items()}
    together = model(given, face(), SECONDS)
    torch.testing.assert_close(together[1:2], model(alone, face()[1:2], SECONDS[1:2]), atol=1e-6, rtol=0)


def test_tokens_know_their_time_and_concat_does_not():
    reversed_time = {name: s._replace(tokens=s.tokens.flip(1)) for name, s in streams().items()}
    tokens, concat = fusion(), fusion("concat", unit_interval=False)
    assert not torch.allclose(
        tokens(streams(), face(), SECONDS), tokens(reversed_time, face(), SECONDS), atol=1e-6
    )
    torch.testing.assert_close(
        concat(streams(), face(), SECONDS), concat(reversed_time, face(), SECONDS), atol=1e-5, rtol=0
    )


def test_unused_slots_are_masked_by_tokens():
    model = fusion()
    short = {n: s._replace(used=torch.arange(T).expand(B, T) < 2) for n, s in streams().items()}
    cut = {n: Stream(*(field[:, :2] for field in s)) for n, s in streams().items()}
    torch.testing.assert_close(
        model(short, face(), SECONDS), model(cut, face()[:, :2], SECONDS), atol=1e-6, rtol=0
    )


@ALL_KINDS
def test_an_unreadable_clip_has_finite_outputs(kind):
    nothing = {n: s._replace(used=torch.zeros(B, T, dtype=torch.bool)) for n, s in streams(()).items()}
    assert fusion(kind)(nothing, face(False), torch.zeros(B)).isfinite().all()


@ALL_KINDS
def test_what_stands_in_slots_of_an_unreadable_clip_reaches_no_output(kind):
    nothing = {n: s._replace(used=torch.zeros(B, T, dtype=torch.bool)) for n, s in streams(()).items()}
    others = {n: s._replace(seconds=s.seconds + 7.0) for n, s in nothing.items()}
    model = fusion(kind)
    assert torch.equal(model(nothing, face(), torch.zeros(B)), model(others, face(False), torch.zeros(B)))


@ALL_KINDS
def test_gradients_are_right_in_double_precision(kind):
    widths = {"visual": 4, "audio": 4}
    model = fusion(kind, widths=widths, dim=4, num_latents=2, latent_dim=4, depth=1).double()
    visual, audio = streams(widths=widths).values()
    present = torch.arange(T).expand(B, T) != 2

    def outputs(tokens):
        given = {"visual": visual._replace(tokens=tokens, present=present), "audio": audio}
        return model(given, face(False), SECONDS)

    assert torch.autograd.gradcheck(outputs, visual.tokens.double().requires_grad_(), fast_mode=True)


def test_time_features_tell_close_instants_apart_under_autocast():
    seconds = torch.tensor([[12.30, 12.31, 12.35]])
    with torch.autocast("cpu", torch.bfloat16):
        features = time_features(seconds, torch.tensor([600.0]))
    assert features.dtype == torch.float32
    assert (features[0, 0] - features[0, 1]).abs().max() > 0.05
    assert time_features(torch.zeros(1, 1), torch.zeros(1)).isfinite().all()


def test_the_paper_preset_has_the_published_shapes():
    with torch.device("meta"):
        published = build_fusion(
            paper().fusion, {"visual": 768, "audio": 512, "textual": 768, "action_units": 32}, 7, True
        )
    shapes = {name: tuple(t.shape) for name, t in published.perceiver.state_dict().items()}
    assert isinstance(published, ConcatFusion)
    assert not published.sigmoid
    assert shapes["embeddings.latents"] == (256, 1280)
    assert shapes["encoder.cross_attention.attention.self.key.weight"] == (2080, 2080)
    assert "encoder.self_attends.25.mlp.dense2.weight" in shapes
    assert shapes["decoder.decoder.final_layer.weight"] == (7, 1280)
    assert 270e6 < sum(p.numel() for p in published.parameters()) < 300e6


def test_the_default_head_stays_small():
    head = build_fusion(FusionConfig(), {"visual": 768, "audio": 768, "textual": 768}, 7, True)
    assert isinstance(head, TokenFusion)
    assert sum(p.numel() for p in head.parameters()) < 12e6


def test_heads_that_do_not_divide_their_width_are_an_error_naming_both():
    with pytest.raises(ViperError, match=r"num_latent_heads=3 does not divide the width 16"):
        fusion(num_latent_heads=3)
    with pytest.raises(ViperError, match=r"num_cross_heads=4 does not divide the width 18"):
        fusion("concat", widths={"visual": 12, "audio": 6}, num_cross_heads=4)


def test_modality_dropout_spares_one_and_is_a_function_of_the_clips_seed():
    present = torch.rand(400, 4, generator=torch.Generator().manual_seed(1)) < 0.7
    seeds = list(range(400))
    hidden = sample_hidden(present, 0.9, seeds)
    left = (present & ~hidden).sum(1)
    assert not (hidden & ~present).any()
    assert (left[present.any(1)] >= 1).all()
    assert (left == 1).any()
    assert (hidden.sum() / present.sum()) > 0.5
    # Alone, or in another order: the same draw.
    order = [7, 3, 300]
    assert torch.equal(sample_hidden(present[order], 0.9, order), hidden[order])
    assert not sample_hidden(present, 0.0, seeds).any()


def test_modality_dropout_hides_about_a_share_p():
    present = torch.ones(4000, 3, dtype=torch.bool)
    share = sample_hidden(present, 0.1, range(4000)).float().mean()
    assert abs(share - 0.1) < 0.015


@pytest.mark.parametrize("kind", ["tokens", "concat"])
def test_rescaled_outputs_end_at_one_and_the_maximum_is_a_constant_to_the_gradient(kind):
    head = fusion(kind, unit_interval=False).eval()
    plain = head(streams(), face(), torch.ones(3))
    head.rescale = True
    assert torch.allclose(head(streams(), face(), torch.ones(3)), rescaled(plain))
    given = torch.tensor([[0.5, 2.0, -1.0], [-3.0, -0.5, 0.0], [-3.0, -0.5, -1.0]], requires_grad=True)
    made = rescaled(given)
    # A row whose maximum is not above 0 would change its signs or end in infinity: it stays.
    assert made.tolist() == [[0.25, 1.0, -0.5], [-3.0, -0.5, 0.0], [-3.0, -0.5, -1.0]]
    made.sum().backward()
    assert given.grad.tolist() == [[0.5] * 3, [1.0] * 3, [1.0] * 3]
