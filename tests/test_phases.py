"""Backbones that join the training later: checked, added to the optimizer, never taken out again."""

from __future__ import annotations

from copy import deepcopy
from functools import partial

import pytest
import torch
from support.models import decoded, model_of

from viper_e2e.config import BackboneConfig, TrainConfig, with_settings
from viper_e2e.config.depth import Blocks, LaterDepths, Phase
from viper_e2e.config.presets import micro
from viper_e2e.errors import ViperError
from viper_e2e.model.viper import ViPER
from viper_e2e.training.optimizer import FIRST_STEP, build_optimizer, build_schedule, recount, schedule_factor
from viper_e2e.training.phases import Phases

CONFIG = TrainConfig(lr=1e-2, backbone_lr=1e-3, layer_decay=0.5, warmup_fraction=0.2)


FACTORS = partial(schedule_factor, CONFIG, 4, 20)


def optimizer_and_schedule(model):
    optimizer = build_optimizer(model, CONFIG)
    return optimizer, build_schedule(optimizer, FACTORS)


def depths(model) -> dict[str, str]:
    return {name: str(backbone.depth) for name, backbone in model.backbones.items()}


def test_each_epoch_trains_at_the_depth_it_was_told():
    model = model_of("visual", "audio")
    phases = Phases(LaterDepths.parse("4:visual=all, 2:visual=1,2:audio=1"), model, 6)
    parts = optimizer_and_schedule(model)
    seen = []
    for epoch in range(6):
        phases.enter(epoch, *parts, CONFIG, FACTORS)
        seen.append(tuple(depths(model).values()))
    assert seen == [("none", "none")] * 2 + [("1", "1")] * 2 + [("all", "1")] * 2


@pytest.mark.parametrize("depth", ["1", "all"])
def test_what_begins_to_train_later_begins_with_its_exact_weights(depth):
    model = model_of("visual")
    original = {name: p.detach().clone() for name, p in model.encoders["visual"].named_parameters()}
    phases = Phases(LaterDepths.parse(f"1:visual={depth}"), model, 2)
    model.set_compute_dtype(torch.bfloat16)
    with phases.deepest():
        pass
    parts = optimizer_and_schedule(model)
    phases.enter(0, *parts, CONFIG, FACTORS)
    frozen = dict(model.encoders["visual"].named_parameters())
    assert {p.dtype for p in frozen.values() if p.ndim} == {torch.bfloat16}
    phases.enter(1, *parts, CONFIG, FACTORS)
    trained = {n: p for n, p in model.encoders["visual"].named_parameters() if p.requires_grad}
    assert len(trained) > 5
    for name, parameter in trained.items():
        assert torch.equal(parameter, original[name]), name


def test_a_run_that_goes_on_later_enters_all_that_was_due():
    model = model_of("visual", "audio")
    phases = Phases(LaterDepths.parse("1:visual=1,3:visual=2"), model, 5)
    parts = optimizer_and_schedule(model)
    assert phases.enter(3, *parts, CONFIG, FACTORS) == [
        Phase(1, "visual", Blocks(1)),
        Phase(3, "visual", Blocks(2)),
    ]
    assert phases.enter(3, *parts, CONFIG, FACTORS) == []
    with pytest.raises(ViperError, match="--resume"):
        phases.enter(2, *parts, CONFIG, FACTORS)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0:visual=1", "allowed are epochs 1 to 4"),
        ("5:visual=1", "allowed are epochs 1 to 4"),
        ("2:vision=1", "this model has visual, audio"),
        ("2:visual=3", "last 1 to 2 blocks"),
        ("2:visual=0", "a later epoch can only add"),
        ("2:visual=2,3:visual=1", "visual trains 2 by then"),
        ("2:visual=all,3:visual=2", "visual trains all by then"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_one_line_before_anything_is_trained(text, said):
    model = model_of("visual", "audio")
    with pytest.raises(ViperError) as caught:
        Phases(LaterDepths.parse(text), model, 5)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_trying_the_last_phase_leaves_no_trace(vit):
    config = with_settings(
        micro(), {"modalities": ("visual", "audio"), "visual.backbone": BackboneConfig(str(vit))}
    )
    model = ViPER(config).eval()
    model.set_compute_dtype(torch.bfloat16)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    records = {name: backbone.record() for name, backbone in model.backbones.items()}
    assert records["visual"] is not None
    phases = Phases(LaterDepths.parse("1:visual=1,2:visual=all,2:audio=all"), model, 5)
    with phases.deepest():
        assert depths(model) == {"visual": "all", "audio": "all"}
        assert {p.dtype for p in model.encoders["visual"].parameters()} == {torch.float32}
    assert depths(model) == {"visual": "none", "audio": "none"}
    assert {name: backbone.record() for name, backbone in model.backbones.items()} == records
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    assert not any(p.requires_grad for p in model.encoders.parameters())


def grown(text: str, epochs: list[int], steps: int = 3):
    """A model trained for some steps before each of the phases."""
    model = model_of("visual", "audio").train()
    phases = Phases(LaterDepths.parse(text), model, 9)
    optimizer, schedule = optimizer_and_schedule(model)
    for epoch in epochs:
        for _ in range(steps):
            model.train()([decoded()]).intensities.sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
        phases.enter(epoch, optimizer, schedule, CONFIG, FACTORS)
    return model, optimizer, schedule


@pytest.mark.slow
def test_new_groups_begin_their_own_schedule_at_their_own_rate():
    model, optimizer, schedule = grown("1:visual=1,2:visual=all", [1, 2])
    trained = {id(p) for p in model.parameters() if p.requires_grad}
    grouped = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == trained
    names = [group["name"] for group in optimizer.param_groups]
    assert names[:2] == ["fusion", "fusion, no decay"]
    assert names.index("visual block 2") < names.index("visual stem")
    began = {"fusion": 0, "top": 6, "block 2": 3, "block 1": 6, "stem": 6}
    for group in optimizer.param_groups:
        peak = {"fusion": 1e-2, "top": 1e-3, "block 2": 5e-4, "block 1": 2.5e-4, "stem": 1.25e-4}
        expected = next(lr for word, lr in peak.items() if word in group["name"])
        step = next(step for word, step in began.items() if word in group["name"])
        assert group["lr"] == pytest.approx(expected * FACTORS(step)(6))
        assert group["weight_decay"] == (0.0 if "no decay" in group["name"] else CONFIG.weight_decay)
    schedule.step()
    assert optimizer.param_groups[-1]["lr"] == pytest.approx(schedule.base_lrs[-1] * FACTORS(6)(7))


def rates(first_step: int, start: int = 0, saved=None) -> tuple[list[dict[str, float]], list]:
    """Rates by group at every step of a run that has trained a backbone from ``first_step`` on, and its states;
    those from ``start`` on where it goes on from one that was ``saved``."""
    model = model_of("visual")
    phases = Phases(LaterDepths.parse("1:visual=1"), model, 2)
    optimizer, schedule = optimizer_and_schedule(model)
    if saved is not None:
        phases.enter(int(start >= first_step), optimizer, schedule, CONFIG, FACTORS)
        for part, state in zip((optimizer, schedule), saved, strict=True):
            part.load_state_dict(state)
        recount(optimizer, schedule, FACTORS)
    seen, states = [], []
    for step in range(start, 20):
        phases.enter(int(step >= first_step), optimizer, schedule, CONFIG, FACTORS)
        states.append(tuple(deepcopy(part.state_dict()) for part in (optimizer, schedule)))
        seen.append({group["name"]: group["lr"] for group in optimizer.param_groups})
        optimizer.step()
        schedule.step()
    return seen, states


def test_what_begins_later_warms_up_when_it_begins_and_ends_with_the_run():
    seen, _ = rates(10)
    alone = schedule_factor(CONFIG, 4, 10)
    for step, by_group in enumerate(seen):
        assert by_group["fusion"] == 1e-2 * FACTORS(0)(step)
        assert by_group.get("visual block 2") == (5e-4 * alone(step - 10) if step >= 10 else None)
    later = [by_group["visual block 2"] for by_group in seen[10:]]
    assert later[0] == 5e-4 / 2
    assert max(later) == later[1] == 5e-4
    assert sorted(later[2:], reverse=True) == later[2:]


@pytest.mark.parametrize("start", [4, 10, 11, 17])
def test_a_run_that_goes_on_has_the_rates_of_one_that_was_not_stopped(start):
    seen, states = rates(10)
    again, _ = rates(10, start, states[start])
    assert again == seen[start:]


def test_a_run_that_an_earlier_version_began_keeps_its_one_schedule():
    _, states = rates(10)
    optimizer, schedule = deepcopy(states[14])
    for group in optimizer["param_groups"]:
        group.pop(FIRST_STEP, None)
    seen, _ = rates(10, 14, (optimizer, schedule))
    assert seen[0]["visual block 2"] == 5e-4 * FACTORS(0)(14)


@pytest.mark.slow
def test_what_trained_before_keeps_its_moments():
    _, optimizer, _ = grown("1:visual=1", [0, 1])
    steps = {
        g["name"]: {int(optimizer.state[p]["step"]) for p in g["params"] if p in optimizer.state}
        for g in optimizer.param_groups
    }
    assert steps["fusion"] == {6}
    assert steps["visual block 2"] == set()


@pytest.mark.slow
def test_a_saved_state_fits_a_model_that_entered_the_same_phases():
    model, optimizer, schedule = grown("1:visual=1,2:visual=all", [1, 2])
    other = model_of("visual", "audio").train()
    phases = Phases(LaterDepths.parse("1:visual=1,2:visual=all"), other, 9)
    new, new_schedule = optimizer_and_schedule(other)
    phases.enter(2, new, new_schedule, CONFIG, FACTORS)
    new.load_state_dict(deepcopy(optimizer.state_dict()))
    new_schedule.load_state_dict(schedule.state_dict())
    recount(new, new_schedule, FACTORS)
    other.load_state_dict(model.state_dict())
    for m, o, s in ((model, optimizer, schedule), (other, new, new_schedule)):
        m([decoded()]).intensities.sum().backward()
        o.step()
        s.step()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    assert [g["lr"] for g in optimizer.param_groups] == [g["lr"] for g in new.param_groups]
