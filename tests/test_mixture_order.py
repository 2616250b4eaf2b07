"""The order of an epoch over several corpora."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from viper_e2e.errors import ViperError
from viper_e2e.loading.mixture_order import MixtureOrder, MixturePattern, Share, clips_per_epoch
from viper_e2e.loading.order import EpochOrder

SHARES = [Share("a", [4, 6], 0, 0.7), Share("b", [20], 10, 0.3)]


def order_of(epoch: int, shares: list[Share] = SHARES, seed: int = 3, window: int = 4) -> MixtureOrder:
    counts = clips_per_epoch(shares)
    return MixtureOrder(shares, MixturePattern(counts), counts, seed=seed, epoch=epoch, shuffle_window=window)


def walked(order: MixtureOrder) -> list[int]:
    return [order[position] for position in range(len(order))]


def test_an_epoch_is_as_long_as_all_clips_and_shares_them_by_weight():
    assert clips_per_epoch(SHARES) == [21, 9]
    assert sum(index < 10 for index in walked(order_of(0))) == 21
    without = [Share("a", [4, 6], 0), Share("b", [20], 10)]
    assert clips_per_epoch(without) == [10, 20]
    assert sorted(walked(order_of(5, without))) == list(range(30))


def test_weights_count_relative_to_one_another_and_what_is_left_of_rounding_is_given_away():
    assert clips_per_epoch([Share("a", [10], 0, 14.0), Share("b", [20], 10, 6.0)]) == [21, 9]
    assert clips_per_epoch([Share(name, [1], i, 1.0) for i, name in enumerate("abc")]) == [1, 1, 1]
    assert clips_per_epoch([Share("a", [3], 0, 2.0), Share("b", [7], 3, 1.0)]) == [7, 3]


def test_a_weight_that_comes_to_no_clip_is_refused():
    with pytest.raises(ViperError, match=r"corpus b: weight 0.001 gives it none of the 8 clips of an epoch"):
        clips_per_epoch([Share("a", [4], 0, 1.0), Share("b", [4], 4, 0.001)])


def test_any_stretch_has_each_share_to_within_about_a_clip():
    is_a = np.array([index < 10 for index in walked(order_of(1))])
    for size in (4, 10, 16):
        for start in range(len(is_a) - size):
            assert abs(is_a[start : start + size].sum() - 0.7 * size) <= 1.5


def test_clips_of_a_corpus_are_seen_equally_often_over_epochs():
    seen = Counter(index for epoch in range(7) for index in walked(order_of(epoch)))
    for clips in (range(10), range(10, 30)):
        times = [seen[i] for i in clips]
        assert max(times) - min(times) <= 1


def test_an_order_follows_from_its_arguments_and_within_a_corpus_from_its_own_alone():
    assert walked(order_of(2)) == walked(order_of(2))
    assert walked(order_of(2)) != walked(order_of(2, seed=4))
    assert walked(order_of(2)) != walked(order_of(3))
    with_another = [SHARES[0], Share("c", [7, 3], 10, 0.3)]
    firsts = [[i for i in walked(order_of(0, shares)) if i < 10][:10] for shares in (SHARES, with_another)]
    assert firsts[0] == firsts[1]


def test_a_later_position_needs_none_of_those_before_it():
    assert [order_of(2)[position] for position in range(13, 30)] == walked(order_of(2))[13:]


def test_visits_of_one_clip_in_one_epoch_are_told_apart():
    for epoch in range(4):
        order = order_of(epoch)
        visits = [(order[position], order.repeat(position)) for position in range(len(order))]
        assert len(set(visits)) == len(visits)
        assert min(repeat for _, repeat in visits) == 0


def test_the_mixture_of_a_seed_never_changes_between_versions():
    # A changed list would make checkpoints of earlier versions resume with other clips.
    assert walked(order_of(1))[:12] == [5, 18, 7, 6, 9, 19, 1, 8, 21, 0, 3, 24]


@pytest.mark.parametrize("window", [1, 3, 8, 100])
def test_windows_on_demand_are_those_of_the_whole_order(window):
    """The way in which orders were computed before: all at once."""
    sizes, seed, epoch = np.array([5, 0, 3, 9, 1]), 11, 4
    total = int(sizes.sum())
    draws = np.random.PCG64(np.random.SeedSequence([seed, epoch])).random_raw(len(sizes) + total)
    first = np.cumsum(sizes) - sizes
    shards = np.argsort(draws[: len(sizes)], kind="stable")
    by_shard = np.concatenate([np.arange(first[s], first[s] + sizes[s]) for s in shards])
    whole = by_shard[np.lexsort((draws[len(sizes) :], np.arange(total) // window))]
    order = EpochOrder(sizes.tolist(), seed=seed, epoch=epoch, shuffle_window=window)
    assert [order[position] for position in range(total)] == whole.tolist()
    assert [order[position] for position in reversed(range(total))] == whole.tolist()[::-1]
