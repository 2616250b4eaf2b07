"""test_unsaved_checkpoints.py: a run whose checkpoints could not be written says what is kept, and fails."""

from __future__ import annotations

import errno
import os
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from support.training_runs import arguments, lines, run, same, weights

from viper_e2e.commands.cli import main
from viper_e2e.training import saving
from viper_e2e.training.state import read

WORDS = ("--modalities=visual", "--epochs=2", "--batch-size=4", "--save-every-steps=1")


@pytest.fixture
def disk(monkeypatch) -> dict[str, Callable[[int], bool]]:
    """By checkpoint, which of its savings, counted from 1, find a full disk."""
    refused: dict[str, Callable[[int], bool]] = {}
    counts: dict[str, int] = {}
    write_folder = saving.write_folder

    def write(target: Path, fill, **more) -> None:
        counts[target.name] = counts.get(target.name, 0) + 1
        if refused.get(target.name, lambda _: False)(counts[target.name]):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        write_folder(target, fill, **more)

    monkeypatch.setattr(saving, "write_folder", write)
    return refused


def viper_train(corpus: Path, folder: Path, *more: str) -> int:
    val = f"--val-shards={corpus}/shards/val-*.tar"
    return main(["train", *arguments(corpus, folder, *WORDS, val, *more)])


def named_by(line: str) -> list[Path]:
    """The folders of checkpoints that a line names."""
    return [Path(word.rstrip(",;:")) for word in shlex.split(line) if "/checkpoints/" in word]


@pytest.mark.slow
def test_a_run_that_could_not_save_its_end_fails_and_names_nothing_that_is_not_there(
    corpus, tmp_path, disk, capsys
):
    # A validated epoch of two steps saves `last` after each and at its end: the disk is full from step 2 on.
    disk |= {"last": lambda count: count > 1, "best": lambda _: True, "best_mse": lambda _: True}
    assert viper_train(corpus, tmp_path / "run") == 1
    told = capsys.readouterr()
    ending = told.err.splitlines()[-2:]
    assert "No space left on device" in ending[0]
    assert "what is saved ends at step 1 of 4" in ending[0]
    assert "best model" not in told.out + told.err
    assert "next:" not in told.out + told.err
    assert all(folder.is_dir() for folder in named_by(ending[0]))
    disk.clear()
    assert main(shlex.split(ending[1])[1:]) == 0
    plain = run(corpus, tmp_path / "plain", *WORDS, f"--val-shards={corpus}/shards/val-*.tar")
    for name in ("last", "best"):
        assert same(weights(tmp_path / "run", name), weights(plain, name))
    assert lines(tmp_path / "run", "metrics.jsonl")[-1]["val"] == lines(plain, "metrics.jsonl")[-1]["val"]


@pytest.mark.slow
def test_resuming_finds_the_best_model_again_that_the_last_epoch_could_not_write(
    corpus, tmp_path, disk, capsys
):
    disk["best"] = disk["best_mse"] = lambda _: True
    assert viper_train(corpus, tmp_path / "run", "--epochs=1") == 1
    assert "what is saved ends at step 2 of 2, before its validation" in capsys.readouterr().err
    disk.clear()
    assert main(["train", "--resume", f"--run-dir={tmp_path / 'run'}"]) == 0
    assert (tmp_path / "run/checkpoints/best").is_dir()
    assert "best model" in capsys.readouterr().err


@pytest.mark.slow
def test_a_best_model_that_was_lost_for_good_is_told_again_by_every_resumption(corpus, tmp_path, disk, capsys):
    disk["best"] = disk["best_mse"] = lambda count: count == 1
    # Nothing is learned after the first epoch, so no later one is better.
    assert viper_train(corpus, tmp_path / "run", "--lr=1e-30") == 1
    assert "no later epoch was better" in capsys.readouterr().err
    assert read(tmp_path / "run/checkpoints/last").unsaved.keys() == {"best", "best_mse"}
    assert main(["train", "--resume", f"--run-dir={tmp_path / 'run'}"]) == 1
    assert "no later epoch was better" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train --seeds 2", "cv --folds 2"])
def test_many_trainings_end_at_the_first_that_could_not_be_saved_and_go_on_from_there(
    corpus, tmp_path, disk, capsys, command
):
    name, *own = command.split()
    val = [] if name == "cv" else [f"--val-shards={corpus}/shards/val-*.tar"]
    disk["last"] = lambda count: count > 1
    assert main([name, *arguments(corpus, tmp_path / "run", *WORDS, *val, *own)]) == 1
    told = capsys.readouterr()
    again = told.err.splitlines()[-1]
    assert again.startswith(f"viper {name} ")
    assert again.endswith("--resume")
    assert "next:" not in told.out + told.err
    assert "best:" not in told.out + told.err
    disk.clear()
    assert main(shlex.split(again)[1:]) == 0


@pytest.mark.slow
def test_a_stopped_run_does_not_claim_what_it_could_not_save(corpus, tmp_path, disk, capsys, monkeypatch):
    import signal

    from support.training_runs import hook_trainings

    from viper_e2e.training.hooks import TrainerHooks

    disk["last"] = lambda count: count > 1
    hooks = TrainerHooks(
        before_step=lambda trainer, _: trainer.state.step == 1 and os.kill(os.getpid(), signal.SIGTERM)
    )
    hook_trainings(monkeypatch, hooks)
    assert viper_train(corpus, tmp_path / "run") == 143
    told = capsys.readouterr().err
    assert (
        "stopped after step 2 of 4; not saved (No space left on device), what is saved ends at step 1 of 4"
        in told
    )
