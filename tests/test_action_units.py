"""The action-unit branch: rows where the instants are, zeros for what was not measured."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from viper_e2e.config import ActionUnitConfig
from viper_e2e.encoders.action_units import ActionUnitEncoder
from viper_e2e.errors import ViperError

ENCODER = ActionUnitEncoder.build(ActionUnitConfig())


def rows(count: int) -> torch.Tensor:
    return torch.arange(count, dtype=torch.float32)[:, None].expand(count, 27) + 1


def test_as_many_rows_as_instants_come_out_unchanged_and_padded(reference):
    units = torch.from_numpy(np.load(reference / "peer/expected/features.npz")["fau"]).float()
    tokens, present = ENCODER([units], [32])
    assert tokens.shape == (1, 32, 32)
    assert torch.equal(tokens[0, :, :27], units)
    assert (tokens[0, :, 27:] == 0).all()
    assert present.all()


@pytest.mark.parametrize(
    ("count", "instants", "chosen"),
    [(9, 5, [1, 3, 5, 7, 9]), (2, 4, [1, 1, 2, 2]), (1, 3, [1, 1, 1]), (5, 1, [1]), (100, 2, [1, 100])],
)
def test_each_instant_takes_the_nearest_row(count, instants, chosen):
    tokens, _ = ENCODER([rows(count)], [instants])
    assert tokens[0, :, 0].tolist() == chosen


def test_what_was_not_measured_is_zero_and_a_row_of_nothing_is_absent():
    units = rows(3)
    units = units.clone()
    units[0, 4] = float("nan")
    units[1] = float("nan")
    tokens, present = ENCODER([units, None, torch.empty(0, 27)], [3, 2, 3])
    assert present.tolist() == [[True, False, True], [False] * 3, [False] * 3]
    assert tokens[0, 0, 4] == 0
    assert tokens[0, 0, 5] == 1
    assert (tokens[0, 1] == 0).all()
    assert (tokens[1:] == 0).all()


def test_clips_of_fewer_instants_end_in_absent_zeros():
    tokens, present = ENCODER([rows(2), rows(2)], [4, 2])
    assert present.tolist() == [[True] * 4, [True, True, False, False]]
    assert (tokens[1, 2:] == 0).all()


def test_rows_of_another_width_are_an_error_that_names_it():
    with pytest.raises(ViperError, match="rows of 20 values, expected 27"):
        ENCODER([torch.zeros(3, 20)], [3])
    with pytest.raises(ViperError, match="27 units do not fit into embed_dim 16"):
        ActionUnitEncoder(ActionUnitConfig(embed_dim=16))


def test_there_is_nothing_to_train():
    assert ENCODER.is_frozen
    assert ENCODER.depth == "none"
    assert ENCODER.records() == {}
    assert list(ENCODER.parameters()) == []
    ENCODER.set_training_depth("none")
    ENCODER.to_compute_dtype(torch.bfloat16)
    assert ENCODER([rows(1)], [1])[0].dtype == torch.float32
    with pytest.raises(ViperError, match="has no weights, so there is nothing to freeze or train"):
        ENCODER.set_training_depth("all")
