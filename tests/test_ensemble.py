"""The default head: a ridge and a Perceiver that learn apart and answer together."""

from __future__ import annotations

import pytest
import torch
from test_fusion import SECONDS, WIDTHS, B, E, T, config, face, fusion, some_fit, streams

from viper_e2e.fusion import EnsembleFusion, build_fusion
from viper_e2e.pooling import known_features, pool, pooled_rows
from viper_e2e.ridge import predict
from viper_e2e.stream import Stream


def test_it_answers_with_the_mean_of_a_ridge_within_the_labels_and_a_perceiver():
    head = fusion("ensemble")
    given = streams()
    pooled = pool(given, face(), SECONDS)
    ridge = predict(some_fit(), pooled_rows(pooled), known_features(pooled)).float().clamp(0, 1)
    perceiver = head.tokens(given, face(), SECONDS)
    torch.testing.assert_close(head(given, face(), SECONDS), (ridge + perceiver) / 2, atol=1e-5, rtol=0)


def test_before_the_first_fit_and_in_training_the_perceiver_answers_alone():
    head = fusion("ensemble")
    given = streams()
    alone = head.tokens(given, face(), SECONDS)
    assert torch.equal(head.train()(given, face(), SECONDS), alone)
    new = build_fusion(head_config(), WIDTHS, E, True).eval()
    assert torch.equal(new(given, face(), SECONDS), new.tokens(given, face(), SECONDS))


def test_labels_beyond_one_are_not_cut_off():
    head = fusion("ensemble", unit_interval=False)
    head.ridge.linear.bias.data.fill_(40.0)
    assert (head(streams(), face(), SECONDS) > 10).all()


def test_steps_leave_the_ridge_alone_and_a_checkpoint_keeps_it():
    head = fusion("ensemble").train()
    head(streams(), face(), SECONDS).square().sum().backward()
    assert all(p.grad is None for p in head.ridge.parameters())
    assert all(p.grad is not None for p in head.tokens.parameters())
    again = build_fusion(head_config(), WIDTHS, E, True).eval()
    again.load_state_dict(head.state_dict())
    assert torch.equal(again(streams(), face(), SECONDS), head.eval()(streams(), face(), SECONDS))


def head_config():
    return config("ensemble")


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


@pytest.mark.parametrize("number", [0, 1, 4, T])
def test_change_is_exact_whatever_is_masked(number):
    head = fusion("change")
    s = streams()["audio"]
    keep = torch.arange(T).expand(B, T) < number
    garbage = torch.where(keep[..., None], s.tokens, torch.nan)
    made = head._change("audio", 1, garbage, keep)
    by_hand = head.change_projections["audio"](masked_by_hand(head, s, keep).float())
    expected = torch.where(keep[..., None], by_hand, head.missing_token[1])
    torch.testing.assert_close(made, expected, atol=1e-6, rtol=1e-6)


def test_a_clip_that_does_not_change_and_one_of_a_single_frame_have_no_change():
    head = fusion("change")
    s = streams()["visual"]
    still = s.tokens[:, :1].expand(B, T, -1)
    one = torch.arange(T).expand(B, T) < 1
    nothing = head.change_projections["visual"](torch.zeros(12))
    everything = torch.ones(B, T, dtype=torch.bool)
    torch.testing.assert_close(
        head._change("visual", 0, still, everything), nothing.expand(B, T, -1), atol=1e-6, rtol=0
    )
    torch.testing.assert_close(head._change("visual", 0, s.tokens, one)[:, 0], nothing.expand(B, -1))


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
