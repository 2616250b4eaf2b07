"""Python looks for cycles of objects neither while a command loads nor, all at once, thereafter."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from viper_e2e.commands.common import load_model
from viper_e2e.config import InferConfig
from viper_e2e.config.presets import micro
from viper_e2e.model import ViPER
from viper_e2e.runtime import without_collecting


@pytest.fixture
def collections() -> Iterator[list[int]]:
    """The generation of each collection, as they come."""
    seen: list[int] = []
    gc.unfreeze()  # what conftest.py has frozen: a command begins without

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            seen.append(info["generation"])

    gc.callbacks.append(note)
    yield seen
    gc.callbacks.remove(note)
    gc.freeze()


def test_what_is_made_meanwhile_is_looked_through_neither_then_nor_at_once(collections):
    with without_collecting():
        made: list[list] = [[] for _ in range(20_000)]
        assert collections == []
    assert gc.isenabled()
    young = {id(one) for generation in (0, 1) for one in gc.get_objects(generation)}
    assert not young & set(map(id, made))


def test_what_the_process_has_frozen_stays_frozen():
    mine: list[list] = [[]]
    gc.freeze()
    with without_collecting():
        pass
    assert not any(one is mine for one in gc.get_objects())


def test_cycles_are_looked_for_again_after_an_error():
    with pytest.raises(KeyError), without_collecting():
        raise KeyError
    assert gc.isenabled()


def test_one_block_within_another_ends_with_the_outer_one():
    with without_collecting():
        with without_collecting():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


def test_a_model_is_loaded_meanwhile(tmp_path, collections):
    ViPER(micro()).save_pretrained(tmp_path / "model")
    gc.collect()
    collections.clear()
    load_model(InferConfig(inputs=[], checkpoint=str(tmp_path / "model")))
    assert 2 not in collections
    assert gc.isenabled()
