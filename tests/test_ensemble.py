"""The default head: a ridge and a Perceiver that learn apart and answer together."""

from __future__ import annotations

import pytest
import torch
from support.fusions import SECONDS, WIDTHS, B, E, T, config, face, fusion, some_fit, streams

from viper_e2e.encoders import Stream
from viper_e2e.fusion import EnsembleFusion, build_fusion
from viper_e2e.fusion.closed_form import predict
from viper_e2e.fusion.pooling import known_features, pool, pooled_rows
from viper_e2e.fusion.scale import LabelScale
from viper_e2e.fusion.tokens import time_features


def test_it_answers_with_the_mean_of_a_ridge_within_the_labels_and_its_networks():
    head = fusion("ensemble", hidden_dim=5)
    given = streams()
    pooled = pool(given, face(), SECONDS)
    ridge = predict(some_fit(), pooled_rows(pooled), known_features(pooled)).float().clamp(0, 1)
    perceiver, layer = (network(given, face(), SECONDS) for network in (head.tokens, head.hidden_layer))
    expected = ridge / 2 + perceiver / 4 + layer / 4
    torch.testing.assert_close(head(given, face(), SECONDS), expected, atol=1e-5, rtol=0)
    without = fusion("ensemble")
    expected = (ridge + without.tokens(given, face(), SECONDS)) / 2
    torch.testing.assert_close(without(given, face(), SECONDS), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("hidden_dim", [0, 5])
def test_in_training_each_network_answers_for_itself_and_before_the_first_fit_without_the_ridge(hidden_dim):
    head = fusion("ensemble", hidden_dim=hidden_dim, hidden_dropout=0.0)
    given = streams()
    alone = torch.stack([network(given, face(), SECONDS) for network in head.networks], 1)
    assert alone.shape == (B, head.num_networks, E)
    assert head.num_networks == 1 + bool(hidden_dim)
    assert torch.equal(head.train()(given, face(), SECONDS), alone)
    new = build_fusion(config("ensemble", hidden_dim=hidden_dim), WIDTHS, E, True).eval()
    alone = torch.stack([network(given, face(), SECONDS) for network in new.networks], 1)
    assert torch.equal(new(given, face(), SECONDS), alone.mean(1))


def test_labels_beyond_one_are_not_cut_off():
    head = fusion("ensemble", unit_interval=False)
    head.ridge.linear.bias.data.fill_(40.0)
    assert (head(streams(), face(), SECONDS) > 10).all()


def test_steps_leave_the_ridge_alone_and_a_checkpoint_keeps_it():
    head = fusion("ensemble", hidden_dim=5).train()
    head(streams(), face(), SECONDS).square().sum().backward()
    assert all(p.grad is None for p in head.ridge.parameters())
    for network in head.networks:
        assert all(p.grad is not None for p in network.parameters())
    again = build_fusion(config("ensemble", hidden_dim=5), WIDTHS, E, True).eval()
    again.load_state_dict(head.state_dict())
    assert torch.equal(again(streams(), face(), SECONDS), head.eval()(streams(), face(), SECONDS))


def test_no_network_learns_by_what_another_says():
    head = fusion("ensemble", hidden_dim=5).train()
    head(streams(), face(), SECONDS)[:, 1].sum().backward()
    assert not any(p.grad is not None and p.grad.any() for p in head.tokens.parameters())
    assert all(p.grad.any() for p in head.hidden_layer.parameters())


def test_all_of_it_is_in_the_scale_of_the_labels():
    scale = LabelScale((50.0,) * E, (10.0,) * E)
    head = build_fusion(config("ensemble", hidden_dim=5), WIDTHS, E, False, scale).eval()
    answers = head.train()(streams(), face(), SECONDS)
    assert (answers > 20).all()


# --- the hidden layer ---------------------------------------------------------------------------


def test_before_features_have_a_scale_a_hidden_layer_says_the_same_of_every_clip():
    head = build_fusion(config("ensemble", hidden_dim=5), WIDTHS, E, True).eval().hidden_layer
    answers = head(streams(), face(), SECONDS)
    torch.testing.assert_close(answers, answers[:1].expand_as(answers), atol=1e-6, rtol=0)
    head.take(some_fit())
    assert not torch.allclose(head(streams(), face(), SECONDS)[0], answers[0])


def test_the_hidden_layer_reads_standardised_features():
    head = fusion("ensemble", hidden_dim=5).hidden_layer
    given, fit = streams(), some_fit()
    rows = pooled_rows(pool(given, face(), SECONDS)).double()
    rows = ((rows - fit.means) / fit.scales).clamp(-5, 5)
    inner = torch.nn.functional.gelu(rows @ head.inner.weight.T.double() * head.gain + head.inner.bias)
    expected = (inner @ head.outer.weight.T.double() + head.outer.bias).sigmoid()
    torch.testing.assert_close(head(given, face(), SECONDS), expected.float(), atol=1e-5, rtol=0)


def test_what_a_hidden_layer_cannot_see_reaches_neither_answers_nor_gradients():
    head = fusion("ensemble", hidden_dim=5).hidden_layer
    given = streams(present=("visual", "audio"))
    poisoned = dict(given, textual=given["textual"]._replace(tokens=torch.full((B, T, 16), torch.nan)))
    for name in ("visual", "audio"):
        poisoned[name].tokens.requires_grad_(True)
    answers = head(poisoned, face(), SECONDS)
    assert torch.equal(answers, head(given, face(), SECONDS))
    answers.sum().backward()
    assert all(p.grad.isfinite().all() for p in head.parameters())
    hidden = torch.zeros(B, len(WIDTHS), dtype=torch.bool)
    hidden[:, 2] = True
    assert torch.equal(head(streams(present=("visual", "audio", "textual")), face(), SECONDS, hidden), answers)


def test_many_inputs_start_like_few_and_move_no_faster():
    wide = dict(WIDTHS, visual=4000)
    torch.manual_seed(0)
    head = build_fusion(config("ensemble", hidden_dim=5), wide, E, True).hidden_layer
    assert head.gain == pytest.approx(1000 / (3 * sum(wide.values())))
    deviation = (head.gain * head.inner.weight).std().item()
    assert deviation == pytest.approx((3 * 3 * sum(wide.values())) ** -0.5, rel=0.02)


# --- the stream of change -----------------------------------------------------------------------


def masked_by_hand(head, s: Stream, keep: torch.Tensor) -> torch.Tensor:
    """Change of kept tokens, clip by clip, in float64."""
    change = torch.zeros(B, T, s.tokens.shape[-1], dtype=torch.float64)
    for b in range(B):
        rows = s.tokens[b, keep[b]].double()
        if len(rows):
            rows = torch.nn.functional.layer_norm(rows, rows.shape[-1:])
            change[b, keep[b]] = 2.0 * (rows - rows.mean(0))
    return change


def change_read(head, given: dict[str, Stream], name: str) -> torch.Tensor:
    """What the Perceiver reads of a modality's change, without its times and its name."""
    read = []
    hook = head.perceiver.register_forward_pre_hook(lambda _, args: read.append(args[0]))
    head(given, face(), SECONDS)
    hook.remove()
    index = list(given).index(name)
    times = head.time(time_features(given[name].seconds, SECONDS))
    return read[0].unflatten(1, (-1, T))[:, 2 * index + 1] - times - head.change_embedding[index]


@pytest.mark.parametrize("number", [0, 1, 4, T])
def test_change_is_exact_whatever_is_masked(number):
    head = fusion("change")
    s = streams()["audio"]
    keep = torch.arange(T).expand(B, T) < number
    garbage = torch.where(keep[..., None], s.tokens, torch.nan)
    made = change_read(head, streams() | {"audio": s._replace(tokens=garbage, present=keep)}, "audio")
    by_hand = head.change_projections["audio"](masked_by_hand(head, s, keep).float())
    expected = torch.where(keep[..., None], by_hand, head.missing_token[1])
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=1e-5)


def test_a_clip_that_does_not_change_and_one_of_a_single_frame_have_no_change():
    head = fusion("change")
    s = streams()["visual"]
    still = s.tokens[:, :1].expand(B, T, -1)
    one = torch.arange(T).expand(B, T) < 1
    nothing = head.change_projections["visual"](torch.zeros(12))
    made = change_read(head, streams() | {"visual": s._replace(tokens=still)}, "visual")
    torch.testing.assert_close(made, nothing.expand(B, T, -1), atol=1e-5, rtol=0)
    made = change_read(head, streams() | {"visual": s._replace(present=one)}, "visual")
    torch.testing.assert_close(made[:, 0], nothing.expand(B, -1), atol=1e-5, rtol=0)


def test_frames_without_a_face_take_no_part_in_the_change_of_others():
    head = fusion("change")
    found = face()
    found[:, 2] = False
    given = streams()
    other = {n: s._replace(tokens=s.tokens.clone()) for n, s in given.items()}
    other["visual"].tokens[:, 2] += 100.0
    seen = []
    head.change_projections["visual"].register_forward_hook(lambda _, args, out: seen.append(args[0]))
    for streams_ in (given, other):
        head(streams_, found, SECONDS)
    assert torch.equal(*seen)


def test_the_head_is_chosen_by_its_name():
    assert isinstance(fusion("ensemble"), EnsembleFusion)
