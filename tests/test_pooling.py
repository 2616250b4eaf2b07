from __future__ import annotations

import pytest
import torch

from viper_e2e.encoders import Stream
from viper_e2e.fusion.pooling import known_features, num_features, pool, pooled_rows

B, T, D = 3, 8, 5
SECONDS = torch.tensor([4.0, 4.0, 4.0])


def stream(width: int = D, seed: int = 0, dtype: torch.dtype = torch.float32) -> Stream:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(B, T, width, generator=generator, dtype=dtype)
    slots = torch.ones(B, T, dtype=torch.bool)
    return Stream(tokens, slots, slots.clone(), torch.linspace(0, 3.5, T).expand(B, T).clone())


def everywhere(value: bool = True) -> torch.Tensor:
    return torch.full((B, T), value)


def test_features_are_those_a_loop_over_tokens_finds():
    given = stream()
    given.present[0, 2] = False
    given.used[1, 5:] = False
    pooled = pool({"audio": given}, everywhere(), SECONDS)["audio"]
    for b in range(B):
        keep = given.present[b] & given.used[b]
        tokens, seconds = given.tokens[b][keep].double(), given.seconds[b][keep]
        middle = (seconds >= 1.0) & (seconds < 3.0)
        torch.testing.assert_close(pooled.mean[b], tokens.mean(0).float())
        torch.testing.assert_close(pooled.deviation[b], tokens.std(0, correction=0).float())
        change = tokens[middle].mean(0) - tokens[~middle].mean(0)
        torch.testing.assert_close(pooled.change[b], change.float())


def test_a_large_lasting_look_does_not_drown_a_small_change():
    given = stream()
    small = pool({"audio": given}, everywhere(), SECONDS)["audio"].change
    lasting = given._replace(tokens=(given.tokens.double() + 1000.0).float())
    torch.testing.assert_close(
        pool({"audio": lasting}, everywhere(), SECONDS)["audio"].change, small, atol=2e-4, rtol=0
    )


@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), 7.0])
def test_slots_that_are_not_read_reach_neither_values_nor_gradients(garbage):
    given = stream()
    given.present[0, 3], given.used[1, 6:], given.present[2] = False, False, False
    unread = ~(given.present & given.used)
    clean = given._replace(tokens=torch.where(unread[..., None], 0.0, given.tokens))
    dirty = given._replace(tokens=torch.where(unread[..., None], garbage, given.tokens).requires_grad_())
    rows = [pooled_rows(pool({"audio": s}, everywhere(), SECONDS)) for s in (clean, dirty)]
    assert torch.equal(*rows)
    rows[1].square().sum().backward()
    assert torch.isfinite(dirty.tokens.grad).all()
    assert (dirty.tokens.grad[unread] == 0).all()


def test_a_modality_that_is_absent_or_hidden_is_zeros_and_says_so():
    absent = stream()
    absent.present[1] = False
    given = {"visual": stream(seed=1), "audio": absent}
    hidden = torch.zeros(B, 2, dtype=torch.bool)
    hidden[2, 0] = True
    pooled = pool(given, everywhere(), SECONDS, hidden)
    assert pooled["audio"].present.tolist() == [True, False, True]
    assert pooled["visual"].present.tolist() == [True, True, False]
    rows, known = pooled_rows(pooled), known_features(pooled)
    assert rows.shape == known.shape == (B, num_features({"visual": D, "audio": D}))
    assert (rows[~known] == 0).all()
    assert known.sum(1).tolist() == [6 * D, 3 * D, 3 * D]


def test_a_hidden_modality_is_pooled_as_an_absent_one():
    given, absent = {"audio": stream()}, stream()
    absent.present[0] = False
    hidden = torch.tensor([[True], [False], [False]])
    rows = [
        pooled_rows(pool(given, everywhere(), SECONDS, hidden)),
        pooled_rows(pool({"audio": absent}, everywhere(), SECONDS)),
    ]
    assert torch.equal(*rows)


def test_frames_without_a_face_are_left_out_where_another_frame_has_one():
    given, found = stream(), everywhere()
    found[0, 4:] = False
    found[1] = False
    pooled = pool({"visual": given, "audio": given}, found, SECONDS)
    torch.testing.assert_close(pooled["visual"].mean[0], given.tokens[0, :4].mean(0))
    torch.testing.assert_close(pooled["visual"].mean[1], given.tokens[1].mean(0))
    torch.testing.assert_close(pooled["audio"].mean[0], given.tokens[0].mean(0))
    # A face in a slot that is not in use is none.
    given.used[2, 4:], found[2, :4] = False, False
    again = pool({"visual": given}, found, SECONDS)["visual"]
    torch.testing.assert_close(again.mean[2], given.tokens[2, :4].mean(0))


def test_one_frame_deviates_and_changes_by_nothing():
    given = stream()
    given.used[:, 1:] = False
    given = given._replace(tokens=given.tokens.requires_grad_())
    pooled = pool({"visual": given}, everywhere(), torch.zeros(B))["visual"]
    assert torch.equal(pooled.mean, given.tokens[:, 0])
    assert (pooled.deviation == 0).all()
    assert (pooled.change == 0).all()
    pooled_rows({"visual": pooled}).sum().backward()
    assert torch.isfinite(given.tokens.grad).all()


def test_change_is_zero_where_middle_or_ends_have_no_token():
    given = stream()
    given.present[0] &= (given.seconds[0] >= 1.0) & (given.seconds[0] < 3.0)
    given.present[1] &= given.seconds[1] < 1.0
    change = pool({"audio": given}, everywhere(), SECONDS)["audio"].change
    assert (change[:2] == 0).all()
    assert (change[2] != 0).all()


def test_features_are_float32_under_autocast_and_of_half_tokens():
    given = stream()
    exact = pooled_rows(pool({"audio": given}, everywhere(), SECONDS))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(pooled_rows(pool({"audio": given}, everywhere(), SECONDS)), exact)
    half = given._replace(tokens=given.tokens.bfloat16())
    assert pooled_rows(pool({"audio": half}, everywhere(), SECONDS)).dtype == torch.float32


def test_gradients_are_those_found_numerically():
    given = stream(width=2, dtype=torch.float64)
    given.present[0, 2] = False

    def features(tokens: torch.Tensor) -> torch.Tensor:
        return pooled_rows(pool({"audio": given._replace(tokens=tokens)}, everywhere(), SECONDS))

    assert torch.autograd.gradcheck(features, (given.tokens.clone().requires_grad_(),))
