"""Training on a mixture of corpora: all their tasks, each from the clips that have it."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from support.fork_server import together
from support.training_runs import (
    JOINT,
    check_gradients_of_two_processes,
    largest_difference,
    lines,
    make_corpus,
    same,
    weights,
)

import viper_e2e
from viper_e2e.commands.cli import main

pytestmark = pytest.mark.slow

TASKS = {
    "acted": "mood: {kind: class, columns: [Mood]}\nreactions: {kind: intensities, columns: [Joy]}\n",
    "wild": "valence: {kind: number, columns: [Valence], range: [-1, 1]}\n"
    "units: {kind: labels, columns: [AU1, AU2]}\n",
}
TOLD = ("--class-weights=balanced", "--loss=mse=1,ccc=0.5", "--reuse-memory=50MB")


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """Two corpora of clips with the same names, each with two tasks of its own."""
    folder = tmp_path_factory.mktemp("corpora")
    first = make_corpus(folder / "clips", num_train=6, num_val=3)
    for name, tasks in TASKS.items():
        rows = ["File_ID,Split,Subject,Mood,Valence,AU1,AU2,Joy"]
        for i in range(9):
            split = "train" if i < 6 else "val"
            rows.append(f"{i},{split},s{i},{('calm', 'glad')[i % 2]},{i % 3 - 1},{i % 2},{i // 5},{i % 4 / 3}")
        (folder / name).mkdir()
        (folder / name / "labels.csv").write_text("\n".join(rows) + "\n")
        (folder / name / "tasks.yaml").write_text(tasks)
        words = [f"--videos={first}/videos", f"--labels={folder}/{name}/labels.csv"]
        assert (
            main(["pack", *words, f"--out={folder}/{name}/shards", f"--tasks={folder}/{name}/tasks.yaml"]) == 0
        )
    return folder


def arguments(corpora: Path, run: Path, *words: str, shares: tuple[float, float] = (0.75, 0.25)) -> list[str]:
    train = [
        f"{name}={share}:{corpora}/{name}/shards/train-*.tar" for name, share in zip(TASKS, shares, strict=True)
    ]
    return ["--preset=micro", "--num-workers=0", f"--run-dir={run}", "--train-shards", *train, *words]


def validated(corpora: Path) -> tuple[str, ...]:
    return ("--val-shards", *(f"{name}:{corpora}/{name}/shards/val-*.tar" for name in TASKS))


@pytest.fixture(scope="module")
def whole(corpora, fork_server, tmp_path_factory):
    """A run that nothing stops."""
    run = tmp_path_factory.mktemp("whole") / "run"
    words = (*JOINT, "--epochs=2", *TOLD, *validated(corpora))
    child = fork_server.fork("train", arguments(corpora, run, *words))
    assert child.wait() == 0, child.said
    (run.parent / "said.txt").write_text(child.said)
    return run


@pytest.mark.campaign
def test_a_stopped_run_goes_on_bitwise_in_mid_epoch(corpora, fork_server, whole, tmp_path):
    words = arguments(corpora, tmp_path / "run", *JOINT, "--epochs=2", *TOLD, *validated(corpora))
    assert fork_server.fork("stop", words, 8, signal.SIGTERM).wait() == 143
    assert fork_server.fork("train", [*words, "--resume"]).wait() == 0
    for name in ("last", "best"):
        assert same(weights(whole, name), weights(tmp_path / "run", name))
    assert lines(whole, "metrics.jsonl") == lines(tmp_path / "run", "metrics.jsonl")


@pytest.mark.campaign
def test_gradients_of_two_processes_are_those_of_one(corpora, fork_server, tmp_path):
    words = (*TOLD, "--max-steps=1", "--clip-norm=0", "--seed=3")
    alone = arguments(corpora, tmp_path / "1", *JOINT, "--batch-size=4", *words)
    shared = arguments(corpora, tmp_path / "2", *JOINT, "--batch-size=2", *words)
    check_gradients_of_two_processes(fork_server, alone, shared, tmp_path)


@pytest.mark.campaign
def test_two_processes_train_and_measure_as_one_does(corpora, fork_server, tmp_path):
    words = ("--epochs=2", *TOLD, *validated(corpora), "--unfreeze=visual,audio", "--lr=0.001")
    alone = arguments(corpora, tmp_path / "1", "--batch-size=4", *words)
    assert fork_server.fork("train", alone).wait() == 0
    together(fork_server, "train", arguments(corpora, tmp_path / "2", "--batch-size=2", *words))
    assert largest_difference(weights(tmp_path / "1"), weights(tmp_path / "2")) <= 1e-5
    for one, other in zip(*(lines(tmp_path / n, "metrics.jsonl") for n in "12"), strict=True):
        assert json.dumps(one["train"]).count("num_clips") == 4
        for corpus, tasks in one["train"].items():
            for task, values in tasks.items():
                assert values == pytest.approx(other["train"][corpus][task], rel=1e-4)


def test_a_model_has_the_tasks_of_all_corpora_and_each_is_told_apart(corpora, whole, capsys, tmp_path):
    model = viper_e2e.load(whole / "checkpoints" / "last")
    assert [task.name for task, _ in model.labels.parts] == ["mood", "reactions", "valence", "units"]
    said = (whole.parent / "said.txt").read_text()
    assert "times an epoch" in said
    record = lines(whole, "metrics.jsonl")[-1]
    assert {corpus: set(tasks) for corpus, tasks in record["train"].items()} == {
        "acted": {"mood", "reactions"},
        "wild": {"valence", "units"},
    }
    assert record["train"]["acted"]["mood"]["num_clips"] == 9  # three quarters of the 12 clips of an epoch
    assert record["train"]["wild"]["units"]["num_clips"] == 3
    by_corpus = record["val"]["corpora"]
    assert by_corpus["acted"]["mood"]["num_clips"] == by_corpus["wild"]["valence"]["num_clips"] == 3
    assert set(by_corpus["wild"]) == {"valence", "units"}
    assert np.isfinite(record["val"]["best_by"]) or record["val"]["best_by"] is None
    assert (whole / "plots" / "curves_by_corpus.png").exists()
    out = tmp_path / "eval"
    words = [f"--checkpoint={whole}/checkpoints/last", f"--shards={corpora}/wild/shards/val-*.tar"]
    assert main(["eval", *words, f"--out={out}", "--num-workers=0"]) == 0
    tasks = json.loads((out / "metrics.json").read_text())["tasks"]
    assert {name: one["num_clips"] for name, one in tasks.items() if one["num_clips"]} == {
        "valence": 3,
        "units": 3,
    }


def test_corpora_whose_pictures_have_different_sizes_train_together(tmp_path):
    shapes = {"wide": (64, 96), "tall": (128, 72)}
    for name, shape in shapes.items():
        make_corpus(tmp_path / name, num_train=3, num_val=1, silent=(), shape=shape)
    patterns = {
        split: [f"{name}:{tmp_path}/{name}/shards/{split}-*.tar" for name in shapes]
        for split in ("train", "val")
    }
    words = ["--preset=micro", "--num-workers=0", "--epochs=1", "--batch-size=6", f"--run-dir={tmp_path}/run"]
    words += ["--train-shards", *patterns["train"], "--val-shards", *patterns["val"]]
    assert main(["train", *words]) == 0
    assert lines(tmp_path / "run", "skipped.jsonl") == []
    record = lines(tmp_path / "run", "metrics.jsonl")[-1]
    assert record["step"] == 1, "one step over pictures of both sizes"
    assert np.isfinite(record["train_loss"])
    assert record["val"]["num_clips"] == 2


def test_another_mixture_is_another_run_and_the_same_elsewhere_is_the_same(corpora, whole, tmp_path, capsys):
    run, moved = tmp_path / "run", tmp_path / "moved"
    shutil.copytree(whole, run)
    shutil.copytree(corpora, moved)
    words = ("--resume", *JOINT, "--epochs=2", *TOLD)
    given = arguments(corpora, run, *words, *validated(corpora), shares=(0.5, 0.5))
    assert main(["train", *given]) == 1
    told = capsys.readouterr().err
    assert "--train-shards: corpora acted=0.5, wild=0.5; the run has corpora acted=0.75, wild=0.25" in told
    assert main(["train", *arguments(moved, run, *words, *validated(moved), shares=(3.0, 1.0))]) == 0
    said = capsys.readouterr().err
    assert f"--shards '{moved}/wild/shards/val-*.tar' --out {run}/eval/wild" in said
    assert main(["train", "--run-dir", str(run), "--resume"]) == 0


def refused(corpora, tmp_path, capsys, *words: str) -> str:
    assert main(["train", "--preset=micro", "--num-workers=0", f"--run-dir={tmp_path}/run", *words]) == 1
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("tasks", "told"),
    [
        ("mood: {kind: class, columns: [Mood], classes: [calm, glad, sad]}", "other only sad"),
        ("mood: {kind: labels, columns: [AU1, AU2]}", "acted has it as class, other as labels"),
    ],
)
def test_a_task_that_two_corpora_have_otherwise_is_refused_with_what_differs(
    corpora, tmp_path, capsys, tasks, told
):
    (tmp_path / "tasks.yaml").write_text(tasks)
    words = [f"--videos={corpora}/clips/videos", f"--labels={corpora}/acted/labels.csv"]
    assert main(["pack", *words, f"--out={tmp_path}/other", f"--tasks={tmp_path}/tasks.yaml"]) == 0
    capsys.readouterr()
    patterns = [f"acted=1:{corpora}/acted/shards/train-*.tar", f"other=1:{tmp_path}/other/train-*.tar"]
    said = refused(corpora, tmp_path, capsys, "--train-shards", *patterns)
    assert "--train-shards: task 'mood': " in said
    assert told in said
    assert said.strip().count("\n") == 0  # one line


def test_what_is_no_mixture_is_refused(corpora, tmp_path, capsys):
    one, other = (f"{corpora}/{name}/shards/train-*.tar" for name in TASKS)
    for words, told in [
        ((f"a=1:{one}", other), "has no corpus name, but others have one"),
        ((f"a=1:{one}", f"a=2:{other}"), "a is named twice"),
        ((f"a=1:{one}", f"b:{other}"), "b has no weight, but others have one"),
        ((f"a=0:{one}", f"b=1:{other}"), "'0' is not a weight"),
        ((f"a=1:{one}", f"b=0.001:{other}"), "gives it none of the 12 clips of an epoch"),
    ]:
        assert told in refused(corpora, tmp_path, capsys, "--train-shards", *words)
    weighted = ("--train-shards", one, "--val-shards", f"a=1:{one}")
    assert "--val-shards: each clip is scored once" in refused(corpora, tmp_path, capsys, *weighted)
