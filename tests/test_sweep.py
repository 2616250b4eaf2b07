"""`viper sweep`: which settings are tried, on one pass, and what is left when it is stopped midway."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from support.counted_work import interrupt_steps
from support.killed_sweeps import swept_with_kills
from support.training_runs import arguments, diverging, same, settings, validated_arguments, weights

from viper_e2e.commands.cli import main
from viper_e2e.commands.sweeping import parse_sweep
from viper_e2e.config.settings_file import SettingsFile
from viper_e2e.errors import ViperError
from viper_e2e.experiments.axes import drawn, grid, read_axes
from viper_e2e.experiments.plan import Plan
from viper_e2e.experiments.trial_record import read_record, settled_plan, write_record
from viper_e2e.experiments.trial_row import Rescored, TrialRow, ranked
from viper_e2e.report import trials_plot

GRID = ("--grid", "fusion.dropout=0.0,0.5", "train.lr=1e-3,1e-2")


@pytest.fixture(scope="module")
def base(corpus, tmp_path_factory):
    return settings(corpus, tmp_path_factory.mktemp("never written"), "--modalities=visual")


def test_a_grid_is_every_combination(base):
    axes = read_axes(["fusion.dropout=0.1,0.3", "train.lr=1e-3,3e-4"], base, "--grid")
    assert grid(axes) == [
        {"model.fusion.dropout": dropout, "lr": lr} for dropout in ("0.1", "0.3") for lr in ("1e-3", "3e-4")
    ]
    (axis,) = read_axes(["loss=mse=1,pearson=0.5|ccc=1"], base, "--grid")
    assert axis.choices == ("mse=1,pearson=0.5", "ccc=1")


def test_what_is_drawn_lies_in_its_range_evenly_and_is_drawn_again_by_its_seed(base):
    ranges = ["lr=log:1e-5..1e-1", "fusion.dropout=0..0.5", "fusion.num-latents=2..4", "head=tokens,ridge"]
    axes = read_axes(ranges, base, "--range")
    trials = drawn(axes, 400, seed=3)
    assert trials == drawn(axes, 400, seed=3)
    assert trials[:7] == drawn(axes, 7, seed=3)
    assert trials != drawn(axes, 400, seed=4)
    rates = np.array([float(trial["lr"]) for trial in trials])
    assert rates.min() >= 1e-5
    assert rates.max() <= 1e-1
    assert 0.4 < (rates < 1e-3).mean() < 0.6
    dropouts = np.array([float(trial["model.fusion.dropout"]) for trial in trials])
    assert 0.2 < dropouts.mean() < 0.3
    assert {trial["model.fusion.num_latents"] for trial in trials} == {"2", "3", "4"}
    assert {trial["model.fusion.kind"] for trial in trials} == {"tokens", "ridge"}


@pytest.mark.parametrize(
    ("option", "word", "said"),
    [
        ("--grid", "fusion.dropuot=0.1", "no setting has this name; did you mean fusion.dropout?"),
        ("--grid", "decoding.num_frames=4,8", "cannot be tried in a sweep"),
        ("--grid", "preset=base,tiny", "cannot be tried in a sweep"),
        ("--grid", "visual=4", "cannot be tried in a sweep"),
        ("--grid", "run_dir=a,b", "cannot be tried in a sweep"),
        ("--grid", "lr", "write a setting and its values"),
        ("--grid", "lr=1,,2", "a value is missing"),
        ("--grid", "lr=1..2", "a grid has single values"),
        ("--grid", "lr=1e-3,0.001", "a value is given twice"),
        ("--range", "fusion.num_latents=2.2..2.8", "there is no whole number between them"),
        ("--range", "lr=2..1", "the first number must be below the second"),
        ("--range", "lr=log:0..1", "above 0"),
        ("--range", "lr=log:a..b", "in numbers"),
    ],
)
def test_what_cannot_be_tried_is_refused_in_a_line(base, option, word, said):
    with pytest.raises(ViperError) as error:
        read_axes([word], base, option)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ((), "name what to try: either --grid"),
        (("--random=2",), "need --range"),
        (("--grid=lr=1,2", "--sweep-seed=3"), "--sweep-seed 3: a grid has nothing to draw"),
        (("--grid=lr=1,2", "--random=2", "--range=lr=1..2"), "name what to try: either --grid"),
        (("--grid=fusion.dropout=0.1,7", "--val-shards=x"), "--model.fusion.dropout 7: give a number"),
        (("--grid=lr=1,2",), "--val-shards is missing"),
        (("--grid=lr=1,2", "--val-shards=x", "--seeds=2"), "--seeds: to try several seeds, add seed=0,1,2"),
        (("--grid=lr=1,2", "--val-shards=x", "--ensemble=2"), "--ensemble: a trial is one model"),
        (("--grid=head=tokens,ridge", "--val-shards=x", "--lr=1"), "model.fusion.kind=ridge: --head ridge"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused_before_work_begins(corpus, tmp_path, capsys, more, said):
    assert main(["sweep", *arguments(corpus, tmp_path / "sweep", *more)]) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "sweep").exists()


def test_several_settings_follow_one_option(tmp_path):
    options, files, others = parse_sweep(["--grid", "a=1", "b=2", "--lr", "3", "--range", "c=1..2"])
    assert (options.grid, options.range, others) == (["a=1", "b=2"], ["c=1..2"], ["--lr", "3"])
    (file := tmp_path / "f.yaml").write_text("epochs: 3")
    options, files, others = parse_sweep(["--grid", "a=1", "--config", str(file), "--lr=3", "--random", "4"])
    assert (options.grid, options.random, others) == (["a=1"], 4, ["--lr=3"])
    assert files == [SettingsFile(file, {"epochs": 3})]


def test_a_plot_is_drawn_of_numbers_words_and_what_is_undefined(tmp_path):
    rows = [
        {"settings": {"lr": f"{10**-i:.0e}", "model.fusion.kind": kind}, "score": score}
        for i, (kind, score) in enumerate([("tokens", 0.3), ("ridge", None), ("ensemble", 0.5)])
    ]
    assert trials_plot(rows, tmp_path / "a.png", "mean Pearson").stat().st_size > 5_000
    assert trials_plot(rows[:1], tmp_path / "b.png", "mean Pearson").is_file()
    failed = [{"settings": {"lr": "9", "model.fusion.kind": "tokens"}, "score": None, "failed": "step 3"}]
    assert trials_plot([*rows, *failed], tmp_path / "c.png", "intensities.rmse").is_file()
    assert (tmp_path / "c.png").read_bytes() != (tmp_path / "a.png").read_bytes()


@pytest.mark.slow
def test_trials_are_compared_on_one_pass_and_the_best_is_the_sweeps_model(
    corpus, vit, tmp_path, encoded, capsys
):
    folder = tmp_path / "sweep"
    assert main(["sweep", *validated_arguments(corpus, vit, folder, "--epochs=1"), *GRID]) == 0
    assert set(encoded.values()) == {1}
    out = capsys.readouterr().out
    told = json.loads((folder / "sweep.json").read_text())
    rows = told["trials"]
    assert [row["settings"]["lr"] for row in rows] == ["1e-3", "1e-2"] * 2
    best = max(rows, key=lambda row: row["score"])
    assert told["best"] == best["trial"]
    assert same(weights(folder, "best"), weights(folder / best["trial"], "best"))
    assert (folder / "data.json").read_text() == (folder / best["trial"] / "data.json").read_text()
    for other in ("train", "cv"):
        capsys.readouterr()
        assert main([other, f"--run-dir={folder}", "--resume"]) == 1
        assert "was begun by viper sweep; continue it with viper sweep --resume" in capsys.readouterr().err
    assert (folder / "sweep.png").is_file()
    assert out.index(best["trial"]) < min(out.index(row["trial"]) for row in rows if row is not best)
    # What it was alone.
    alone = validated_arguments(
        corpus, vit, tmp_path / "alone", "--epochs=1", "--lr=1e-2", "--model.fusion.dropout=0.5"
    )
    assert main(["train", *alone]) == 0
    assert same(weights(tmp_path / "alone"), weights(folder / "trial-4"))
    clip = str(corpus / "videos/9.mp4")
    assert main(["infer", clip, "--checkpoint", str(folder), "--output", str(tmp_path / "one.json")]) == 0


@pytest.mark.slow
@pytest.mark.filterwarnings("error:Detected call of:UserWarning")
def test_a_trial_that_diverges_fails_alone_and_is_not_tried_again(corpus, vit, tmp_path, capsys, monkeypatch):
    folder, own = tmp_path / "sweep", ("--epochs=2", "--batch-size=2", "--grid", "lr=1e-3,1e38,1e-2")
    assert main(["sweep", *validated_arguments(corpus, vit, folder, *own)]) == 2
    told = json.loads((folder / "sweep.json").read_text())
    first, failed, last = told["trials"]
    assert "3 steps in a row were not finite" in failed["failed"]
    assert (failed["score"], failed["epoch"]) == (None, None)
    assert "failed" not in first | last
    assert told["best"] == max((first, last), key=lambda row: row["score"])["trial"]
    assert same(weights(folder, "best"), weights(folder / told["best"], "best"))
    out = capsys.readouterr()
    assert "failed" in next(line for line in out.out.splitlines() if "1e38" in line)
    assert "trial-2 failed: step" in out.err
    stepping = diverging(monkeypatch)
    before = (folder / "sweep.json").read_text()
    assert main(["sweep", f"--run-dir={folder}", "--resume"]) == 2
    assert not stepping
    assert (folder / "sweep.json").read_text() == before
    shutil.rmtree(folder / "trial-2")
    assert main(["sweep", f"--run-dir={folder}", "--resume"]) == 2
    assert set(stepping) == {"trial-2"}
    assert (folder / "sweep.json").read_text() == before


@pytest.mark.slow
def test_a_setting_without_effect_is_told(corpus, vit, tmp_path, capsys):
    folder, own = tmp_path / "sweep", ("--epochs=1", "--grid", "lr=1e-3,1e-2", "backbone_lr=1e-5,1e-4")
    assert main(["sweep", *validated_arguments(corpus, vit, folder, *own)]) == 0
    rows = json.loads((folder / "sweep.json").read_text())["trials"]
    assert [row.get("same_as") for row in rows] == [None, "trial-1", None, "trial-3"]
    told = "trial-2 repeats trial-1: backbone_lr had no effect"
    assert told in capsys.readouterr().err
    before = (folder / "sweep.json").read_text()
    assert main(["sweep", f"--run-dir={folder}", "--resume"]) == 0
    assert told in capsys.readouterr().err
    assert (folder / "sweep.json").read_text() == before
    (folder / "trial-3/metrics.jsonl").unlink()
    assert main(["sweep", f"--run-dir={folder}", "--resume"]) == 1
    assert "metrics.jsonl: has no validation" in capsys.readouterr().err


@pytest.mark.slow
def test_where_all_trials_fail_a_line_says_so(corpus, vit, tmp_path, capsys, monkeypatch):
    diverging(monkeypatch, "trial-1", "trial-2")
    assert main(["sweep", *validated_arguments(corpus, vit, tmp_path / "sweep", "--grid", "lr=1e-3,1e-2")]) == 1
    assert "all 2 trials failed, the first of them: step 0" in capsys.readouterr().err.splitlines()[-1]
    told = json.loads((tmp_path / "sweep/sweep.json").read_text())
    assert "best" not in told
    assert [bool(row["failed"]) for row in told["trials"]] == [True, True]


def test_what_failed_ranks_last_and_is_no_best():
    rows = [
        TrialRow("a", {}, failed="step 3"),
        TrialRow("b", {}),
        TrialRow("c", {}, score=-0.2, mean_mse=1.0),
    ]
    assert [row.trial for row in ranked(rows)] == ["c", "b", "a"]


def test_a_record_is_read_as_it_was_written(tmp_path):
    plan = Plan("random", ("lr=1..2",), 3, trials=({"lr": "1.5"}, {"lr": "1.6"}), began_with=1)
    rescored = Rescored(0.1, 0.5, "subjects", None, {"joy": 0.3, "fear": None})
    scores = {"mean_pearson": 0.3, "mean_ccc": None, "mean_mse": 0.1}
    tasks = {"mood": {"kind": "number"}}
    rows = [
        TrialRow("a", {"lr": "1.5"}, epoch=2, measure="mean Pearson", score=0.3, **scores, rescored=rescored),
        TrialRow("b", {"lr": "1.6"}, epoch=2, measure="mood.mae", score=-0.3, tasks=tasks),
        TrialRow("c", {"lr": "1.7"}, failed="step 3"),
        TrialRow("d", {"lr": "1.8"}, epoch=1, measure="mean Pearson", same_as="a"),
    ]
    write_record(tmp_path / "sweep.json", plan, rows)
    assert read_record(tmp_path / "sweep.json") == (plan, rows)
    told = json.loads((tmp_path / "sweep.json").read_text())
    assert list(told["plan"]) == ["kind", "over", "seed", "trials", "began_with"]
    first, second, third, last = told["trials"]
    means = ["mean_pearson", "mean_ccc", "mean_mse"]
    assert list(last) == ["trial", "settings", "epoch", "measure", "value", "score", *means, "same_as"]
    assert list(first)[-5:] == ["low", "high", "intervals_over", "intervals_caution", "pearson"]
    assert second["value"] == 0.3  # an error as it is
    assert list(third) == ["trial", "settings", "failed", "epoch", "score", *means]


def test_a_row_of_a_version_that_knew_the_mean_pearson_alone_is_read(tmp_path):
    row = {
        "trial": "a",
        "settings": {"lr": "1"},
        "epoch": 1,
        "score": 0.3,
        "mean_pearson": 0.3,
        "mean_mse": 1.0,
    }
    data = {"schema": 1, "plan": {"kind": "grid", "over": ["lr=1"], "trials": [{"lr": "1"}]}, "trials": [row]}
    (tmp_path / "sweep.json").write_text(json.dumps(data))
    plan, rows = read_record(tmp_path / "sweep.json")
    assert plan == Plan("grid", ("lr=1",), trials=({"lr": "1"},))
    assert (rows[0].score, rows[0].measure, rows[0].rescored) == (0.3, "", None)


@pytest.mark.slow
def test_more_trials_are_added_to_those_that_have_ended(corpus, vit, tmp_path, monkeypatch):
    folder, own = tmp_path / "sweep", ("--epochs=1", "--best-by=intensities.rmse")
    ranges = ("--range", "lr=log:1e-4..1e-1")
    assert main(["sweep", *validated_arguments(corpus, vit, folder, *own, "--random=1", *ranges)]) == 0
    (first,) = json.loads((folder / "sweep.json").read_text())["trials"]
    # An error is told as it is, and ranks apart from that.
    assert (first["measure"], first["value"]) == ("intensities.rmse", -first["score"])
    assert first["value"] > 0
    stepping = diverging(monkeypatch)
    assert main(["sweep", f"--run-dir={folder}", "--resume", "--random=10"]) == 0
    told = json.loads((folder / "sweep.json").read_text())
    assert told["trials"][0] == first
    assert [row["trial"] for row in told["trials"]] == [f"trial-{number}" for number in range(1, 11)]
    assert "trial-1" not in stepping
    axes = read_axes([ranges[1]], settings(corpus, folder), "--range")
    assert [row["settings"] for row in told["trials"]] == drawn(axes, 10, seed=0)
    assert main(["sweep", f"--run-dir={folder}", "--resume", "--random=2"]) == 1  # fewer
    assert main(["sweep", f"--run-dir={folder}", "--resume", "--random=12", "--range=lr=1..2"]) == 1
    assert main(["sweep", f"--run-dir={folder}", "--resume", "--random=12", "--sweep-seed=5"]) == 1


@pytest.mark.parametrize("validated", [{"val_shards": "val-*.tar"}, {"inner_val": 0.2}, {"fold": "2"}])
def test_trials_are_compared_on_whatever_validates_a_run(base, tmp_path, validated):
    plan = Plan("grid", trials=({"lr": "1e-3"},))
    one = replace(base, train=replace(base.train, run_dir=str(tmp_path / "new"), **validated))
    assert settled_plan(one, plan, tmp_path / "new/sweep.json") == plan


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("1e-3,1e-2,0.1", ""),
        ("1e-2,1e-3", "its trials are not the first"),
        ("0.1", "its trials are not the first"),
        ("1e-2", "has 2 trials, and 1 are asked for now; to continue with all of them, give --resume"),
    ],
)
def test_a_grid_grows_by_values_behind_those_that_were_tried(base, tmp_path, more, said):
    def planned(values):
        words = [f"lr={values}"]
        return Plan("grid", tuple(words), trials=tuple(grid(read_axes(words, base, "--grid"))))

    write_record(tmp_path / "sweep.json", planned("1e-3,1e-2"), [])
    resumed = replace(base, train=replace(base.train, val_shards="val-*.tar", resume=True))
    if not said:
        plan = settled_plan(resumed, planned(more), tmp_path / "sweep.json")
        assert (plan.num_trials, plan.began_with) == (3, 2)
        return
    with pytest.raises(ViperError, match=said):
        settled_plan(resumed, planned(more), tmp_path / "sweep.json")


@pytest.mark.parametrize(
    ("count", "over", "said"),
    [
        (3, "lr=1..2", "has 5 trials, and 3 are asked"),
        (3, "lr=1..9", "its trials are not the first"),
        (7, "lr=1..9", "its trials are not the first"),
    ],
)
def test_proposed_trials_are_not_fewer_when_they_go_on(base, tmp_path, count, over, said):
    def planned(count, over):
        return Plan("optuna", (over,), 0, count)

    write_record(tmp_path / "sweep.json", planned(5, "lr=1..2").with_trial({"lr": "1.5"}), [])
    resumed = replace(base, train=replace(base.train, val_shards="val-*.tar", resume=True))
    with pytest.raises(ViperError, match=said):
        settled_plan(resumed, planned(count, over), tmp_path / "sweep.json")


@pytest.mark.campaign
def test_a_sweep_that_was_stopped_goes_on_by_its_folder_and_ends_alike(corpus, vit, tmp_path, monkeypatch):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    own = ("--random=2", "--range", "lr=log:1e-4..1e-1", "--epochs=1")
    assert main(["sweep", *validated_arguments(corpus, vit, whole, *own)]) == 0
    steps = interrupt_steps(monkeypatch, {4})
    assert main(["sweep", *validated_arguments(corpus, vit, stopped, *own)]) == 130
    assert main(["sweep", *validated_arguments(corpus, vit, stopped, *own)]) == 1  # a run is there already
    assert main(["sweep", f"--run-dir={stopped}", "--resume"]) == 0
    assert len(steps) == 6  # the first trial was not trained again
    assert (whole / "sweep.json").read_text() == (stopped / "sweep.json").read_text()
    assert same(weights(whole, "best"), weights(stopped, "best"))
    assert main(["sweep", f"--run-dir={stopped}", "--resume", "--grid=lr=1,2"]) == 1


@pytest.mark.campaign
@pytest.mark.survival
def test_thirty_kills_leave_the_table_as_it_would_have_been(corpus, vit, tmp_path, fork_server):
    own = ("--epochs=2", "--save-every-steps=1", *GRID)

    def command(folder):
        return ["sweep", *validated_arguments(corpus, vit, folder, *own)]

    for killed in swept_with_kills(fork_server, command, tmp_path, kills=30, seed=5):
        assert (killed / "sweep.json").read_text() == (tmp_path / "whole" / "sweep.json").read_text()
        assert same(weights(killed, "best"), weights(tmp_path / "whole", "best"))
