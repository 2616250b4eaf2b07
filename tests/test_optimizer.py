"""Which parameters decay and how fast each learns; how the learning rate goes over a run."""

from __future__ import annotations

import pytest
import torch
from support.audio_encoders import config_of
from support.models import model_of, training
from support.visual_encoders import random_config
from torch import nn

from viper_e2e.config import TrainConfig, with_settings
from viper_e2e.config.presets import micro
from viper_e2e.loading import RunQuarantine
from viper_e2e.loading.order import Cursor
from viper_e2e.model.checkpoint import CheckpointError
from viper_e2e.model.viper import ViPER
from viper_e2e.training import state as training_state
from viper_e2e.training.optimizer import build_optimizer, can_step, schedule_factor
from viper_e2e.training.state import TrainingState

CONFIG = TrainConfig(lr=1e-2, backbone_lr=1e-3, layer_decay=0.5, weight_decay=0.1)
NO_MATRIX = (
    "embed_positions",
    "position_embeddings",
    "positional_embedding",
    "class_embedding",
    "token_embedding",
)


@pytest.fixture(scope="module")
def model():
    return model_of("visual", "audio", "textual", train="all")


@pytest.fixture(scope="module")
def decays(model) -> dict[str, float]:
    """Weight decay by the name of each trained parameter."""
    groups = build_optimizer(model, CONFIG).param_groups
    found = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    return {name: found[id(p)] for name, p in model.named_parameters() if p.requires_grad}


def test_every_matrix_of_a_layer_decays_patch_embeddings_too(model, decays):
    matrices = {
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d) and f"{name}.weight" in decays
    }
    assert any("patch_embeddings" in name for name in matrices)
    assert {decays[name] for name in matrices} == {0.1}


def test_norms_biases_embeddings_and_learned_tokens_do_not(model, decays):
    vectors = [name for name, p in model.named_parameters() if name in decays and p.ndim <= 1]
    named = [name for name in decays if name.endswith(NO_MATRIX) or "latents" in name or "cls_token" in name]
    assert len(vectors) > 20
    assert len(named) > 3
    assert {decays[name] for name in [*vectors, *named]} == {0.0}


@pytest.mark.parametrize(
    ("name", "config", "learned"),
    [
        ("audio", config_of("wavlm"), "gru_rel_pos_const"),
        ("visual", random_config("beit", pooling="mean"), "relative_position_bias_table"),
        ("visual", random_config("dinov2_with_registers", pooling="mean"), "register_tokens"),
    ],
)
def test_what_attention_learns_of_positions_does_not_decay(name, config, learned):
    model_config = with_settings(micro(), {"modalities": (name,), name: config})
    if learned == "relative_position_bias_table":
        config.backbone.config["use_relative_position_bias"] = True
    model = training(ViPER(model_config), "all")
    optimizer = build_optimizer(model, CONFIG)
    found = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    rows = [found[id(p)] for n, p in model.named_parameters() if learned in n and id(p) in found]
    assert rows
    assert set(rows) == {0.0}


def test_a_frozen_model_trains_its_fusion_alone():
    groups = build_optimizer(model_of("visual", "audio"), CONFIG).param_groups
    assert [group["name"] for group in groups] == ["fusion", "fusion, no decay"]
    assert {group["lr"] for group in groups} == {1e-2}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"schedule": "constant"}, {0: 1.0, 50: 1.0, 99: 1.0}),
        ({"schedule": "cosine", "warmup_fraction": 0.1}, {0: 0.1, 9: 1.0, 10: 1.0, 55: 0.5, 100: 0.0}),
        ({"schedule": "halve", "halve_epochs": 2}, {0: 1.0, 39: 1.0, 40: 0.5, 80: 0.25}),
    ],
)
def test_the_rate_over_a_run_of_five_epochs(settings, expected):
    factor = schedule_factor(TrainConfig(**settings), steps_per_epoch=20, total_steps=100)
    assert {step: factor(step) for step in expected} == pytest.approx(expected)


@pytest.mark.parametrize("schedule", ["cosine", "halve", "constant"])
def test_what_begins_later_has_the_rates_of_a_run_that_begins_there(schedule):
    config = TrainConfig(schedule=schedule, warmup_fraction=0.1, halve_epochs=1)
    later, alone = schedule_factor(config, 20, 100, first_step=60), schedule_factor(config, 20, 40)
    assert [later(step) for step in range(60, 100)] == [alone(step) for step in range(40)]


def test_moments_are_kept_for_trained_parameters_alone():
    model = model_of("visual", train="1")
    optimizer = build_optimizer(model, CONFIG)
    grouped = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert grouped == {id(p) for p in model.parameters() if p.requires_grad}
    assert isinstance(optimizer, torch.optim.AdamW)


def test_an_optimizer_whose_groups_were_others_is_refused_in_one_line(tmp_path):
    first, second = (nn.Parameter(torch.ones(2)) for _ in range(2))
    saved = torch.optim.AdamW([{"params": [first, second]}])
    training_state.save(tmp_path, TrainingState(Cursor(0)), {"optimizer": saved}, RunQuarantine())
    now = torch.optim.AdamW([{"params": [first]}, {"params": [second]}])
    with pytest.raises(CheckpointError, match=r"optimizer does not fit.*start a new --run-dir") as caught:
        training_state.load(tmp_path, {"optimizer": now}, RunQuarantine(), lambda epoch: None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("lr", [0.0, 1e-3, 1e37, 1e38, 1e300])
def test_a_step_that_torch_refuses_for_its_size_is_known_beforehand(lr):
    weight = nn.Parameter(torch.ones(2))
    weight.grad = torch.ones(2)
    optimizer = torch.optim.AdamW([weight], lr=lr)
    if can_step(optimizer):
        optimizer.step()
    else:
        with pytest.raises(RuntimeError):
            optimizer.step()
