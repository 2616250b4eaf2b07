"""test_reuse.py: what is cached between epochs, and how much of it."""

from __future__ import annotations

import numpy as np
import pytest

from viper_e2e.errors import ViperError
from viper_e2e.loading.clip_cache import ClipCache


def test_clips_are_admitted_until_the_budget_is_full_and_never_evicted():
    store = ClipCache(250)
    clips = {key: np.zeros(100, np.uint8) for key in "abc"}
    assert [store.offer(key, clip) for key, clip in clips.items()] == [True, True, False]
    assert (store.num_cached, store.nbytes) == (2, 200)
    assert store.get("a") is clips["a"]
    assert store.get("c") is None
    assert "b" in store
    assert "c" not in store


def test_a_smaller_clip_still_fits_after_a_larger_one_was_turned_away():
    store = ClipCache(250)
    assert store.offer("a", np.zeros(200, np.uint8))
    assert not store.offer("b", np.zeros(51, np.uint8))
    assert store.offer("c", np.zeros(50, np.uint8))
    assert store.nbytes == 250


def test_a_cached_clip_is_counted_once_and_stays_as_it_is():
    store = ClipCache(1000)
    first = np.zeros(10, np.uint8)
    store.offer("a", first)
    assert store.offer("a", np.ones(20, np.uint8))
    assert store.get("a") is first
    assert store.nbytes == 10


def test_a_budget_of_nothing_holds_nothing():
    store = ClipCache(0)
    assert not store.offer("a", np.zeros(1, np.uint8))
    assert store.num_cached == 0
    with pytest.raises(ViperError, match="must not be negative"):
        ClipCache(-1)
