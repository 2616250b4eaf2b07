"""A run on several tasks: goes on bitwise, is the same in two processes, and ends in a model of all of them."""

from __future__ import annotations

import csv
import json
import shutil
import signal

import numpy as np
import pytest
from support.training_runs import (
    JOINT,
    arguments,
    check_gradients_of_two_processes,
    lines,
    make_corpus,
    same,
    weights,
)

import viper_e2e
from viper_e2e.commands.cli import main

pytestmark = pytest.mark.slow

MOODS = ("calm", "calm", "glad", "upset")
TASKS = """
mood: {kind: class, columns: [Mood]}
valence: {kind: number, columns: [Valence], range: [-1, 1]}
units: {kind: labels, columns: [AU1, AU2]}
reactions: {kind: intensities, columns: [Joy]}
"""
TOLD = ("--class-weights=balanced", "--label-smoothing=0.1", "--loss=mse=1,ccc=0.5", "--task-weights=units=0.5")


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """Shards of clips of which each lacks another label."""
    folder = make_corpus(tmp_path_factory.mktemp("tasks"))
    shutil.rmtree(folder / "shards")
    table = ["File_ID,Split,Subject,Mood,Valence,AU1,AU2,Joy,Room"]
    for i in range(12):
        cells = [MOODS[i % 4], f"{(i % 3) - 1}", f"{i % 2}", f"{i // 6}", f"{(i % 4) / 3}"]
        for lacking in ((0,), (1,), (2, 3), (4,), ())[i % 5]:
            cells[lacking] = ""
        table.append(",".join([f"{i}", "train" if i < 8 else "val", f"s{i}", *cells, f"{i % 2}"]))
    (folder / "labels.csv").write_text("\n".join(table) + "\n")
    (folder / "tasks.yaml").write_text(TASKS)
    words = [f"--videos={folder}/videos", f"--labels={folder}/labels.csv", f"--out={folder}/shards"]
    assert main(["pack", *words, f"--tasks={folder}/tasks.yaml", "--meta=Room"]) == 0
    return folder


@pytest.fixture(scope="module")
def whole(tasks, fork_server, tmp_path_factory):
    """A run that nothing stops."""
    run = tmp_path_factory.mktemp("whole") / "run"
    words = (*JOINT, "--epochs=2", f"--val-shards={tasks}/shards/val-*.tar", *TOLD)
    assert fork_server.fork("train", arguments(tasks, run, *words)).wait() == 0
    return run


def test_a_stopped_run_of_tasks_goes_on_bitwise(tasks, fork_server, whole, tmp_path):
    words = (*JOINT, "--epochs=2", f"--val-shards={tasks}/shards/val-*.tar", *TOLD)
    words = arguments(tasks, tmp_path / "run", *words)
    assert fork_server.fork("stop", words, 5, signal.SIGTERM).wait() == 143
    assert fork_server.fork("train", [*words, "--resume"]).wait() == 0
    for name in ("last", "best"):
        assert same(weights(whole, name), weights(tmp_path / "run", name))
    assert lines(whole, "metrics.jsonl") == lines(tmp_path / "run", "metrics.jsonl")


def test_subsets_of_modalities_are_ranked_by_the_measures_of_the_tasks(whole, tasks, tmp_path, capsys):
    words = [f"--checkpoint={whole}/checkpoints/last", f"--shards={tasks}/shards/*.tar", f"--out={tmp_path}"]
    assert main(["ablate", *words, "--num-workers=0"]) == 0
    rows = json.loads((tmp_path / "ablation.json").read_text())["rows"]
    assert rows[0]["measure"] == "mean of mood UAR, valence CCC, units macro F1, reactions Pearson"
    mains = (("mood", "uar"), ("valence", "ccc"), ("units", "macro_f1"), ("reactions", "pearson"))
    for row in rows:
        assert row["score"] == pytest.approx(np.mean([row["tasks"][t][m] for t, m in mains]), abs=1e-5)
    assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
    assert (tmp_path / "ablation.png").is_file()
    assert "mean of mood UAR" in capsys.readouterr().out


def test_trials_and_seeds_are_told_in_the_measures_of_the_tasks(tasks, tmp_path, capsys):
    own = ("--modalities=visual", "--epochs=1", f"--val-shards={tasks}/shards/val-*.tar")
    assert main(["sweep", *arguments(tasks, tmp_path / "sweep", *own), "--grid", "lr=1e-3,1e-2"]) == 0
    mains = (("mood", "uar"), ("valence", "ccc"), ("units", "macro_f1"), ("reactions", "pearson"))
    for row in json.loads((tmp_path / "sweep/sweep.json").read_text())["trials"]:
        assert row["measure"] == "mean of the tasks' main measures"
        assert row["score"] == pytest.approx(np.mean([row["tasks"][t][m] for t, m in mains]), abs=1e-5)
    shown = capsys.readouterr().out.split()
    assert {"UAR", "WAR", "F1", "CCC"} <= {*shown}
    assert "MSE" not in shown
    words = arguments(tasks, tmp_path / "seeds", *own, "--seeds=2", "--best-by=valence.rmse")
    assert main(["train", *words]) == 0
    told = json.loads((tmp_path / "seeds/seeds.json").read_text())
    assert told["chosen_by"] == "valence.rmse"
    each = [lines(tmp_path / f"seeds/seed-{seed}", "metrics.jsonl")[0]["val"]["tasks"] for seed in (0, 1)]
    assert told["tasks"]["mood"]["uar"]["values"] == [one["mood"]["uar"] for one in each]
    said = capsys.readouterr().err
    assert "best epoch of each by valence.rmse" in " ".join(said.split())
    assert "valence RMSE" in said


def test_subsets_that_were_trained_apart_are_told_in_the_measure_that_ranks_them(tasks, tmp_path, capsys):
    own = ("--modalities=visual,audio", "--epochs=1", f"--val-shards={tasks}/shards/val-*.tar")
    words = arguments(tasks, tmp_path / "run", *own, "--best-by=valence.rmse")
    assert main(["ablate", "--retrain", *words]) == 0
    rows = json.loads((tmp_path / "run/retrained.json").read_text())["trials"]
    assert all(row["low"] <= row["value"] <= row["high"] for row in rows)
    assert all(row["value"] == row["tasks"]["valence"]["rmse"] for row in rows)
    out = capsys.readouterr().out
    assert "valence.rmse" in out
    values = sorted(row["value"] for row in rows)
    assert out.index(f" {values[0]:.3f} ") < out.index(f" {values[-1]:.3f} ")


@pytest.mark.campaign
def test_weights_by_uncertainty_are_shown_and_go_on_bitwise(tasks, fork_server, tmp_path):
    words = (*JOINT, "--epochs=2", "--task-weights=uncertainty")
    for name in ("whole", "stopped"):
        given = arguments(tasks, tmp_path / name, *words)
        if name == "stopped":
            assert fork_server.fork("stop", given, 5, signal.SIGTERM).wait() == 143
            given.append("--resume")
        assert fork_server.fork("train", given).wait() == 0
    found = [lines(tmp_path / name, "metrics.jsonl") for name in ("whole", "stopped")]
    assert found[0] == found[1]
    assert same(*(weights(tmp_path / name) for name in ("whole", "stopped")))
    first, last = (record["task_weights"] for record in found[0])
    assert set(first) == {"mood", "valence", "units", "reactions"}
    assert first != last


def test_gradients_of_two_processes_are_those_of_one(tasks, fork_server, tmp_path):
    """Each task over the clips that have its label, wherever they are read."""
    words = (*TOLD, "--max-steps=1", "--clip-norm=0", "--seed=3")
    alone = arguments(tasks, tmp_path / "1", *JOINT, *words)
    shared = arguments(tasks, tmp_path / "2", *JOINT, "--batch-size=1", *words)
    check_gradients_of_two_processes(fork_server, alone, shared, tmp_path)


@pytest.mark.campaign
def test_weights_by_uncertainty_of_two_processes_are_those_of_one(tasks, fork_server, tmp_path):
    """Also the gradients that they weigh, when they have moved; the model itself hardly does."""
    words = (*JOINT, "--task-weights=uncertainty", "--max-steps=4", "--clip-norm=0", "--seed=3")
    words = (*words, "--lr=1e-9", "--backbone-lr=1e-9")
    alone = arguments(tasks, tmp_path / "1", *words)
    shared = arguments(tasks, tmp_path / "2", *words, "--batch-size=1")
    check_gradients_of_two_processes(fork_server, alone, shared, tmp_path, 3)
    weighed, other = (lines(tmp_path / name, "metrics.jsonl")[-1]["task_weights"] for name in "12")
    assert other == pytest.approx(weighed, abs=1e-6)
    assert all(
        abs(weight - began) > 1e-3 for weight, began in zip(weighed.values(), (1, 0.5, 1, 0.5), strict=True)
    )


def test_the_model_says_classes_labels_and_numbers_and_eval_measures_them(whole, tasks, tmp_path, capsys):
    model = viper_e2e.load(whole / "checkpoints" / "last")
    card = (whole / "checkpoints" / "last" / "README.md").read_text()
    assert "mood (class: mood_calm, mood_glad, mood_upset); valence (number: valence)" in card
    record = model.predict(tasks / "videos" / "0.mp4")
    said = record["intensities"]
    assert list(said) == ["mood_calm", "mood_glad", "mood_upset", "valence", "units_au1", "units_au2", "joy"]
    mood = max(("calm", "glad", "upset"), key=lambda name: said[f"mood_{name}"])
    assert record["classes"] == {"mood": mood}
    assert sum(said[f"mood_{name}"] for name in ("calm", "glad", "upset")) == pytest.approx(1.0)
    out = tmp_path / "eval"
    words = [f"--checkpoint={whole}/checkpoints/last", f"--shards={tasks}/shards/*.tar", f"--out={out}"]
    assert main(["eval", *words, "--num-workers=0", "--by=split,Room", "--report"]) == 0
    shown, told = capsys.readouterr()
    assert "1 of 2 shards were trained on: these scores flatter the model" in " ".join(told.split())
    assert "mood, by Room" in shown
    assert "largest gap in UAR" in " ".join(shown.split())
    assert all(word in shown for word in ("mood (class), 9 clips", "UAR", "recall", "valence (number)", "CCC"))
    assert ">nan" not in (out / "report.html").read_text()
    record = json.loads((out / "metrics.json").read_text())
    assert set(record["by"]["split"]["groups"]) == {"train", "val"}
    measured = record["tasks"]
    assert {name: one["num_clips"] for name, one in measured.items()} == {
        "mood": 9,
        "valence": 9,
        "units": 10,
        "reactions": 10,
    }
    assert np.sum(measured["mood"]["confusion"]["true_by_predicted"]) == 9
    assert {"confusion_mood.png", "confusion_mood.csv", "scatter_valence.png"} <= {
        f.name for f in out.iterdir()
    }
    video, scores = str(tasks / "videos" / "0.mp4"), tmp_path / "scores.csv"
    assert main(["infer", video, f"--checkpoint={whole}/checkpoints/last", f"--output={scores}"]) == 0
    (row,) = csv.DictReader(scores.read_text(encoding="utf-8").splitlines())
    assert row["mood"] == mood
    val = lines(whole, "metrics.jsonl")[-1]["val"]
    mains = (("mood", "uar"), ("valence", "ccc"), ("units", "macro_f1"), ("reactions", "pearson"))
    assert val["best_by"] == pytest.approx(np.mean([val["tasks"][task][name] for task, name in mains]))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--best-by=mood.f2",), "--best-by mood.f2: not measured; there are mood.{uar,"),
        (("--task-weights=age=1",), "--task-weights: no task age; there are mood, valence, units, reactions"),
        (("--rescale=true",), "--rescale: divides intensities"),
    ],
)
def test_what_no_task_can_do_is_refused_before_training(tasks, tmp_path, capsys, words, told):
    given = arguments(tasks, tmp_path / "run", f"--val-shards={tasks}/shards/val-*.tar", *words)
    assert main(["train", *given]) != 0
    assert told in capsys.readouterr().err


def test_settings_of_classes_are_refused_where_there_are_none(tmp_path, capsys):
    corpus = make_corpus(tmp_path / "corpus", num_train=2, num_val=1)
    assert main(["train", *arguments(corpus, tmp_path / "run", "--class-weights=balanced")]) == 1
    assert "--class-weights: the training clips have no task of classes" in capsys.readouterr().err


def test_the_yardstick_of_tasks_is_what_a_ridge_head_makes_of_them(tasks, tmp_path, capsys):
    own = ("--modalities=visual,audio", "--epochs=1", f"--val-shards={tasks}/shards/val-*.tar")
    assert main(["train", *arguments(tasks, tmp_path / "run", *own)]) == 0
    said = capsys.readouterr().err
    assert main(["train", *arguments(tasks, tmp_path / "ridge", *own, "--head=ridge")]) == 0
    (run,), (ridge,) = (lines(tmp_path / name, "metrics.jsonl") for name in ("run", "ridge"))
    for name, one in ridge["val"]["tasks"].items():
        for measure in ("uar", "ccc", "macro_f1", "pearson"):
            if measure in one:
                assert run["yardstick"]["tasks"][name][measure] == pytest.approx(one[measure], abs=1e-5)
    told = run["yardstick"]["best_by"]
    assert f"(ridge on the same tokens): mean of the tasks' main measures {told:.4f} (mood UAR" in said
    checkpoint = viper_e2e.load(tmp_path / "run/checkpoints/best").provenance
    assert checkpoint["judged"]["value"] == pytest.approx(run["val"]["best_by"])
    assert set(checkpoint["scores"]) == {"mood UAR", "valence CCC", "units macro F1", "reactions Pearson"}
