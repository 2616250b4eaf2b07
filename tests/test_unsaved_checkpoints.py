"""test_unsaved_checkpoints.py: a run whose checkpoints could not be written says what is kept, and fails."""

from __future__ import annotations

import errno
import os
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from support.training_runs import arguments, lines, run, same, weights

from viper_e2e.clip import DecodedClip
from viper_e2e.commands.cli import main
from viper_e2e.decoding import ClipDecoder
from viper_e2e.errors import ClipError
from viper_e2e.training import run_folder, saving
from viper_e2e.training.run_folder import RunFolder
from viper_e2e.training.state import read

WORDS = ("--modalities=visual", "--epochs=2", "--batch-size=4", "--save-every-steps=1")


@pytest.fixture
def disk(monkeypatch) -> dict[str, Callable[[int], bool]]:
    """By checkpoint, which of its savings, counted from 1, find a full disk."""
    refused: dict[str, Callable[[int], bool]] = {}
    counts: dict[str, int] = {}
    write_over = saving.write_over

    def write(target: Path, fill, **more) -> None:
        counts[target.name] = counts.get(target.name, 0) + 1
        if refused.get(target.name, lambda _: False)(counts[target.name]):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        write_over(target, fill, **more)

    monkeypatch.setattr(saving, "write_over", write)
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


@pytest.fixture
def full_logs(monkeypatch) -> set[str]:
    """Names of the logs for which there is no room."""
    names: set[str] = set()
    write = run_folder.append_lines

    def append(path: Path, more: list[str]) -> None:
        if path.name in names:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write(path, more)

    monkeypatch.setattr(run_folder, "append_lines", append)
    return names


@pytest.mark.slow
def test_a_run_whose_log_alone_could_not_be_written_fails_and_going_on_writes_it(
    corpus, tmp_path, full_logs, capsys
):
    full_logs.add("metrics.jsonl")
    assert viper_train(corpus, tmp_path / "run") == 1
    told = capsys.readouterr()
    ending, again = told.err.splitlines()[-2:]
    assert "2 lines of metrics.jsonl could not be written (No space left on device)" in ending
    assert f"{tmp_path / 'run/checkpoints/last'} holds what they lack" in ending
    full_logs.clear()
    for _ in range(2):  # the second time nothing is left to write
        assert main(shlex.split(again)[1:]) == 0
        assert [line["epoch"] for line in lines(tmp_path / "run", "metrics.jsonl")] == [0, 1]


@pytest.mark.slow
def test_clips_left_out_that_could_not_be_written_down_fail_the_run(
    corpus, tmp_path, full_logs, capsys, monkeypatch
):
    decode = ClipDecoder.__call__

    def all_but_one(self: ClipDecoder, source: Path, *, name: str, **more: object) -> DecodedClip:
        if name.endswith("3"):
            raise ClipError("made unreadable", stage="decode", clip=name)
        return decode(self, source, name=name, **more)

    monkeypatch.setattr(ClipDecoder, "__call__", all_but_one)
    full_logs.add("skipped.jsonl")
    assert viper_train(corpus, tmp_path / "run", "--epochs=1") == 1
    assert "1 line of skipped.jsonl could not be written (No space left on device)" in capsys.readouterr().err


def test_a_log_that_has_room_again_has_every_line_in_its_order(tmp_path, full_logs):
    folder = RunFolder(tmp_path, resume=False)
    full_logs.add("metrics.jsonl")
    folder.log("metrics.jsonl", {"step": 1})
    folder.log("metrics.jsonl", {"step": 2})
    assert folder.refusals() == ["2 lines of metrics.jsonl could not be written (No space left on device)"]
    full_logs.clear()
    folder.log("metrics.jsonl", {"step": 3})
    assert not folder.unwritten
    assert [record["step"] for record in folder.read_log("metrics.jsonl")] == [1, 2, 3]
    folder.release()


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train", "train --seeds 2"])
def test_plots_that_could_not_be_drawn_are_named_at_the_end_and_told_by_the_exit_code(
    corpus, tmp_path, capsys, command
):
    own = command.split()[1:]
    folder = tmp_path / "run"
    plots = folder / ("seed-0" if own else "") / "plots"
    plots.parent.mkdir(parents=True)
    plots.write_text("in the way")
    assert viper_train(corpus, folder, *own) == 2
    told = capsys.readouterr().err
    assert f"{plots}: could not be written, all else is" in told
    if not own:
        plots.unlink()
        assert viper_train(corpus, folder, "--resume") == 0
        assert (plots / "curves.png").is_file()


@pytest.mark.slow
def test_a_first_process_that_cannot_save_the_end_ends_all(corpus, fork_server, tmp_path):
    words = arguments(corpus, tmp_path / "run", *WORDS, "--epochs=1", "--batch-size=2")
    first, second = fork_server.fork_processes(2, "without_room_for_checkpoints", words, [0])
    assert (first.wait(), second.wait()) == (1, 1), first.said + second.said
    assert "nothing is saved; make room, then continue (started by torchrun as before) with:" in first.said
    assert "process 0 could not save the end of the training" in second.said


@pytest.mark.slow
def test_a_log_on_a_disk_that_fills_amid_a_line_keeps_none_of_it(tmp_path, fork_server):
    child = fork_server.fork("log_until_full", str(tmp_path), 3000)
    assert child.wait() == 0, child.said
    assert (tmp_path / "metrics.jsonl").read_text().splitlines() == ['{"text": "%s"}' % ("x" * 1000)] * 2
    assert "1 line of metrics.jsonl could not be written (File too large)" in child.said
