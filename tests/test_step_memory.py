"""What a step will need is counted on one clip, and what cannot fit is told what would."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from support.models import decoded, model_of, training
from support.selection import some_of
from support.step_memory import needs_of, prepared

from viper_e2e.config import TrainConfig, with_settings
from viper_e2e.config.presets import micro
from viper_e2e.encoders import TokenCache
from viper_e2e.encoders.checkpointing import checkpoint_activations
from viper_e2e.errors import ViperError
from viper_e2e.model.viper import ViPER
from viper_e2e.runtime import devices, free_bytes
from viper_e2e.training import memory
from viper_e2e.training.ema import WeightEMA
from viper_e2e.training.memory import Needs, check_fits, measure, moments_bytes, needs_table

JOINT = ("visual", "audio", "textual")


@pytest.mark.slow
def test_weights_gradients_and_moments_are_counted_to_the_byte():
    model = model_of(*JOINT, train="all").train()
    needs = needs_of(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    output = model([decoded()])
    output.intensities.sum().backward()
    assert moments_bytes(optimizer) == 0
    optimizer.step()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert needs.gradients == sum(p.grad.nbytes for p in trained)
    moments = sum(v.nbytes for s in optimizer.state.values() for v in s.values() if v.ndim)
    assert needs.optimizer >= moments
    assert needs.optimizer - moments <= 8 * 16, "scalars have no dimension"
    assert moments < moments_bytes(optimizer) < 1.01 * needs.optimizer, "and the number of steps"
    assert needs.weights == sum(t.nbytes for t in [*model.parameters(), *model.buffers()])
    assert needs_of(model, copies=2).gradients == 2 * needs.gradients
    averaged = needs_of(model, averaged=True)
    assert averaged.average == WeightEMA(model, 0.9).nbytes == needs.gradients
    assert averaged.beyond_weights(3) == replace(averaged, average=0).beyond_weights(3) + averaged.average


@pytest.mark.slow
@pytest.mark.parametrize("train", ["none", "1", "all"])
def test_what_two_runs_tell_holds_for_any_batch(train):
    model = model_of("visual", "audio", train=train)
    needs = needs_of(model)
    for count in (1, 3, 5):
        kept = memory.kept_bytes(model.train(), [prepared(model)] * count)
        clips = count * prepared(model).nbytes
        assert kept + clips == pytest.approx(needs.per_step + count * needs.per_clip, rel=0.02)


@pytest.mark.slow
def test_deeper_training_needs_more():
    needs = [needs_of(model_of("visual", "audio", train=train)) for train in ("none", "1", "2", "all")]
    assert [n.per_clip for n in needs] == sorted(n.per_clip for n in needs)
    assert needs[0].per_clip < needs[1].per_clip < needs[3].per_clip
    assert needs[0].gradients < needs[1].gradients < needs[3].gradients


def test_measuring_leaves_the_model_and_the_generator_as_they_were():
    model = model_of(*JOINT, train="all")
    before = {name: t.clone() for name, t in model.state_dict().items()}
    state = torch.get_rng_state()
    needs_of(model)
    assert not model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_frozen_encoders_run_once_for_measuring_and_the_step_together():
    model = model_of("visual", "audio")
    num_runs = dict.fromkeys(model.encoders, 0)
    for name, encoder in model.encoders.items():
        encoder.register_forward_hook(lambda *_, name=name: num_runs.update({name: num_runs[name] + 1}))
    clip = prepared(model)
    cache = TokenCache()
    measure(model, clip, cache=cache)
    model([cache.with_tokens(clip)])
    assert num_runs == {"visual": 1, "audio": 1}


def test_the_largest_batch_is_the_largest_that_fits():
    needs = Needs(weights=100, gradients=10, optimizer=20, per_step=5, per_clip=7)
    for free in range(30, 120):
        batch = needs.largest_batch(free)
        assert batch == 0 or needs.beyond_weights(batch) <= free
        assert needs.beyond_weights(batch + 1) > free


# --- activation checkpointing ---------------------------------------------------------------------


def checkpointed(**backbones: bool) -> ViPER:
    config = with_settings(micro(), {"modalities": JOINT})
    torch.manual_seed(0)
    model = training(ViPER(config), "all").train()
    for name in backbones:
        checkpoint_activations(model.backbones[name].model)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("backbone", some_of(["visual", "audio", "image_text"], lambda i, _: i == 0))
def test_recomputed_activations_change_no_number(backbone):
    results = []
    for model in (checkpointed(), checkpointed(**{backbone: True})):
        output = model([decoded(), decoded(seed=1)])
        output.intensities.square().sum().backward()
        results.append((output.intensities.detach(), {n: p.grad for n, p in model.named_parameters()}))
    assert torch.equal(results[0][0], results[1][0])
    for name, gradient in results[0][1].items():
        other = results[1][1][name]
        assert (gradient is None) == (other is None), name
        if gradient is not None:
            torch.testing.assert_close(other, gradient, rtol=1e-5, atol=1e-8, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", some_of(["visual", "audio", "image_text"], lambda i, _: i == 0))
def test_recomputed_activations_are_not_kept(backbone):
    assert needs_of(checkpointed(**{backbone: True})).per_clip < needs_of(checkpointed()).per_clip


# --- the verdict ----------------------------------------------------------------------------------


def told(model: ViPER, free: int, **settings) -> list[str]:
    """What is proposed where this much is free."""
    needs = needs_of(model)
    config = replace(TrainConfig(batch_size=64, accumulation=2), **settings)
    with pytest.raises(ViperError) as caught:
        check_fits(model, needs, prepared(model), free, config)
    message = str(caught.value)
    assert "\n" not in message
    assert re.match(r"training needs at least [\d.]+ GB, the device has [\d.]+ GB; ", message)
    return message.partition("would fit: ")[2].split()


def test_what_fits_is_let_through():
    model = model_of("visual", train="all")
    needs = needs_of(model)
    check_fits(model, needs, prepared(model), needs.beyond_weights(4), TrainConfig(batch_size=4))


def test_a_budget_for_cached_clips_refuses_nothing():
    model = model_of("visual", train="all")
    needs = needs_of(model, cached=10**12)
    check_fits(model, needs, prepared(model), needs.beyond_weights(4), TrainConfig(batch_size=4))


def test_a_smaller_batch_is_proposed_first():
    model = model_of("visual", train="all")
    free = needs_of(model).beyond_weights(5)
    assert told(model, free) == ["--batch-size", "5", "--accumulation", "26"]


@pytest.mark.slow
def test_then_activations_are_recomputed_then_fewer_blocks_trained_then_none():
    free = needs_of(checkpointed(visual=True, audio=True, image_text=True)).beyond_weights(2)
    words = told(checkpointed(), free)
    assert words[0] == "--gradient-checkpointing"
    assert words[-4:-2] == ["--batch-size", "2"]

    free = needs_of(model_of("visual", "audio", train="1")).beyond_weights(1) * 11 // 10
    words = told(model_of("visual", "audio", train="all"), free)
    assert words[1:3] == ["--unfreeze", "visual=1,audio=1"]

    free = needs_of(model_of("visual", "audio")).beyond_weights(1)
    assert "--freeze all" in " ".join(told(model_of("visual", "audio", train="all"), free))


@pytest.mark.slow
def test_what_is_proposed_does_fit():
    free = needs_of(checkpointed(visual=True, audio=True, image_text=True)).beyond_weights(2)
    batch = int(told(checkpointed(), free)[-3])
    assert needs_of(checkpointed(visual=True, audio=True, image_text=True)).beyond_weights(batch) <= free


def test_where_nothing_fits_that_is_said():
    assert told(model_of("visual"), 10) == []


def test_the_table_adds_up():
    from rich.console import Console

    needs = Needs(weights=2 * 10**9, gradients=10**9, optimizer=2 * 10**9, per_step=0, per_clip=10**8)
    console = Console(width=80)
    with console.capture() as capture:
        console.print(needs_table(needs, 10, 7 * 10**9))
    text = capture.get()
    assert re.search(r"at least, in all +6\.000", text)
    assert re.search(r"the device has +9\.000", text)


def test_the_machine_has_some_memory_and_processes_share_it(monkeypatch):
    free = free_bytes(torch.device("cpu"))
    assert 2**26 < free < 2**50
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert free_bytes(torch.device("cpu")) < free / 2


def test_a_containers_limit_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "CGROUP", tmp_path)
    whole = free_bytes(torch.device("cpu"))
    (tmp_path / "memory.current").write_text("3000000\n")
    (tmp_path / "memory.max").write_text("5000000\n")
    assert free_bytes(torch.device("cpu")) == 2_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_bytes(torch.device("cpu")) == pytest.approx(whole, rel=0.5)
