"""Runs whose clips are changed and whose backbones join later: exact when resumed, whoever decodes."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from support.training_runs import (
    JOINT,
    arguments,
    largest_difference,
    make_corpus,
    run,
    same,
    settings,
    weights,
)

from viper_e2e.errors import ViperError
from viper_e2e.model.viper import ViPER
from viper_e2e.training import fine_tuning, memory
from viper_e2e.training.trainer import open_trainer

pytestmark = pytest.mark.slow

GROWING = ("--epochs=3", "--batch-size=2", "--lr=0.01", "--backbone-lr=0.01", "--layer-decay=0.7")
GROWING += ("--unfreeze-at=1:visual=1,2:visual=all,2:audio=1",)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("tuning") / "corpus", num_train=6, num_val=2)


def alone(fork_server, corpus: Path, folder: Path, *words: str) -> dict[str, torch.Tensor]:
    """Weights of a run that nothing stops, in a process of its own."""
    child = fork_server.fork("train", arguments(corpus, folder, *words))
    assert child.wait() == 0, child.said
    return weights(folder)


def stopped_and_resumed(
    fork_server, corpus: Path, folder: Path, step: int, *words: str
) -> dict[str, torch.Tensor]:
    """Weights of a run that was asked to stop in the given step and went on afterwards."""
    child = fork_server.fork("stop", arguments(corpus, folder, *words), step, signal.SIGTERM)
    assert child.wait() == 143, child.said
    return alone(fork_server, corpus, folder, *words, "--resume")


# --- changed clips --------------------------------------------------------------------------------


@pytest.mark.campaign
def test_changed_clips_are_exact_whoever_decodes_them_and_when_resumed(corpus, fork_server, tmp_path):
    words = (*JOINT, "--augment=all")
    whole = alone(fork_server, corpus, tmp_path / "whole", *words)
    assert not same(whole, alone(fork_server, corpus, tmp_path / "plain", *JOINT))
    assert same(whole, alone(fork_server, corpus, tmp_path / "helped", *words, "--num-workers=2"))
    assert same(whole, alone(fork_server, corpus, tmp_path / "cached", *words, "--reuse-memory=1GB"))
    assert same(whole, stopped_and_resumed(fork_server, corpus, tmp_path / "halves", 4, *words))


def test_validation_never_sees_a_changed_clip(corpus, tmp_path, monkeypatch):
    from viper_e2e.model.augment import Augment

    seen = []
    original = Augment.pixels

    def watching(self, crops, spec, seed):
        seen.append(trainer.run.module.training)
        return original(self, crops, spec, seed)

    monkeypatch.setattr(Augment, "pixels", watching)
    words = ("--freeze=all", "--augment=pixels", "--epochs=1", f"--val-shards={corpus}/shards/val-*.tar")
    trainer = open_trainer(settings(corpus, tmp_path / "run", *words), Accelerator(cpu=True))
    trainer.train()
    trainer.close()
    assert len(seen) == 6
    assert all(seen)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--freeze=all", "--augment=sound", "--reuse-memory=1GB"), "--reuse-memory 0"),
        ((*GROWING, "--augment=pixels", "--reuse-memory=1GB"), "--reuse-memory 0"),
        ((*JOINT, "--augment=box", "--augmentation.box-shift=0.5", "--reuse-memory=1GB"), "hold-margin"),
        ((*JOINT, "--augmentation.flip=0.1"), "has no effect without --augment pixels"),
        ((*JOINT, "--unfreeze-at=1:visual=1"), "a later epoch can only add"),
        (("--unfreeze-at=2:visual=1", "--epochs=2"), "allowed are epochs 1 to 1"),
    ],
)
def test_settings_that_cannot_go_together_end_before_a_clip_is_read(corpus, tmp_path, words, said, monkeypatch):
    from viper_e2e.decoding import ClipDecoder

    monkeypatch.setattr(ClipDecoder, "__call__", lambda *a, **k: pytest.fail("a clip was decoded"))
    with pytest.raises(ViperError, match=said) as caught:
        open_trainer(settings(corpus, tmp_path / "run", *words), Accelerator(cpu=True))
    assert "\n" not in str(caught.value)


# --- backbones that join later --------------------------------------------------------------------


def test_each_phase_changes_exactly_the_tensors_it_names(corpus, tmp_path):
    words = ("--epochs=2", "--batch-size=2", "--unfreeze-at=1:visual=1")
    torch.manual_seed(0)
    before = ViPER(settings(corpus, tmp_path / "x", *words).model).state_dict()
    after = weights(run(corpus, tmp_path / "run", *words))
    changed = {n for n in after if n.startswith("encoders") and not torch.equal(before[n], after[n])}
    assert changed
    assert all(n.startswith("encoders.visual") and (".layer.1." in n or ".layers.1." in n) for n in changed)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("steps", "words"),
    [
        pytest.param(2, (), marks=pytest.mark.campaign),
        (5, ("--mixed-precision=bf16", "--augment=all")),
        pytest.param(5, (), marks=pytest.mark.campaign),
        pytest.param(3, (), marks=pytest.mark.campaign),
        pytest.param(8, (), marks=pytest.mark.campaign),
    ],
)
def test_a_run_resumed_in_any_phase_is_bitwise_the_uninterrupted_one(
    corpus, fork_server, tmp_path, steps, words
):
    whole = alone(fork_server, corpus, tmp_path / "whole", *GROWING, *words)
    halves = stopped_and_resumed(fork_server, corpus, tmp_path / "halves", steps, *GROWING, *words)
    assert same(whole, halves)


@pytest.mark.campaign
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (GROWING, "from epoch 3 on: visual=all, audio=1"),
        ((*GROWING[:-1], "--lora=visual=2", "--unfreeze-at=1:visual=lora"), "from epoch 2 on: visual=lora"),
    ],
)
def test_two_processes_grow_as_one_does(corpus, fork_server, tmp_path, words, said):
    words = (*words, "--augment=all")
    one = alone(fork_server, corpus, tmp_path / "1", *words)
    pair = fork_server.fork_processes(2, "train", arguments(corpus, tmp_path / "2", *words, "--batch-size=1"))
    assert [child.wait() for child in pair] == [0, 0], pair[0].said + pair[1].said
    assert said in pair[0].said
    # Adam divides by the gradient's size, which makes much of the last digits where it is nearly none.
    assert largest_difference(one, weights(tmp_path / "2")) < 1e-4


def test_clips_cached_for_frozen_backbones_are_read_anew_when_these_join(corpus, tmp_path):
    whole = weights(run(corpus, tmp_path / "whole", *GROWING))
    assert same(whole, weights(run(corpus, tmp_path / "cached", *GROWING, "--reuse-memory=1GB")))


# --- told beforehand ------------------------------------------------------------------------------


def test_a_run_tells_what_is_trained_and_what_it_takes(corpus, tmp_path, capsys):
    run(corpus, tmp_path / "run", *JOINT, "--max-steps=1", "--layer-decay=0.5")
    said = capsys.readouterr().err
    for words in (("visual block 2", "0.005"), ("visual block 1", "0.0025"), ("fusion", "0.01")):
        assert any(all(word in line for word in words) for line in said.splitlines()), words
    assert "memory of a step" in said


def test_too_little_memory_ends_a_run_before_its_first_step(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(fine_tuning, "free_bytes", lambda device: 1000)
    trainer = open_trainer(settings(corpus, tmp_path / "run", *JOINT), Accelerator(cpu=True))
    before = {name: p.detach().clone() for name, p in trainer.run.module.named_parameters()}
    with pytest.raises(ViperError, match="training needs at least"):
        trainer.train()
    trainer.close()
    assert trainer.state.step == 0
    assert all(torch.equal(before[name], p) for name, p in trainer.run.module.named_parameters())


def test_memory_is_that_of_the_deepest_phase(corpus, tmp_path, monkeypatch):
    measured = []
    original = memory.measure

    def watching(module, *args, **options):
        measured.append({name: str(backbone.depth) for name, backbone in module.backbones.items()})
        return original(module, *args, **options)

    monkeypatch.setattr(memory, "measure", watching)
    run(corpus, tmp_path / "run", *GROWING, "--max-steps=1")
    assert measured == [{"visual": "all", "audio": "1"}]
