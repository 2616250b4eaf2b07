"""`viper train --seeds`: a run per seed, each as it would be alone, and their mean and deviation."""

from __future__ import annotations

import json
import shutil
from statistics import fmean, stdev

import pytest
from support.run_logs import log_of
from support.training_runs import arguments, diverging, lines, run, same, weights

from viper_e2e.commands.cli import main
from viper_e2e.experiments.seeds_summary import summarised

pytestmark = pytest.mark.slow


def test_each_seed_trains_as_it_would_alone_and_the_spread_is_told(corpus, tmp_path, capsys):
    words = (f"--val-shards={corpus}/shards/val-*.tar", "--epochs=1", "--batch-size=4")
    run(corpus, tmp_path / "run", "--seeds=2", "--seed=3", *words)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "config.yaml",
        "seed-3",
        "seed-4",
        "seeds.json",
    ]
    assert not same(weights(tmp_path / "run/seed-3"), weights(tmp_path / "run/seed-4"))
    alone = run(corpus, tmp_path / "alone", "--seed=4", *words)
    assert same(weights(alone), weights(tmp_path / "run/seed-4"))
    best = [
        max(record["val"]["mean_pearson"] for record in lines(tmp_path / f"run/seed-{seed}", "metrics.jsonl"))
        for seed in (3, 4)
    ]
    told = json.loads((tmp_path / "run/seeds.json").read_text())
    assert told["seeds"] == [3, 4]
    assert told["mean_pearson"] == {"values": best, "mean": fmean(best), "deviation": stdev(best)}
    assert f"{fmean(best):.4f} ± {stdev(best):.4f}" in capsys.readouterr().err
    for one, count, said in (
        (tmp_path / "run", 1, "2 seeds; give --seeds 2"),
        (alone, 2, "1 seed; leave out --seeds"),
    ):
        assert main(["train", "--resume", f"--seeds={count}", f"--run-dir={one}"]) == 1
        assert f"was begun with {said}" in capsys.readouterr().err


def test_a_seed_that_diverges_fails_alone_and_is_trained_again(corpus, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "run"
    words = (f"--val-shards={corpus}/shards/val-*.tar", "--epochs=1", "--modalities=visual", "--seeds=3")
    with monkeypatch.context() as patch:
        diverging(patch, "seed-1")
        assert main(["train", *arguments(corpus, folder, *words)]) == 2
    said = capsys.readouterr().err
    assert "1 of 3 seeds failed (seed 1: step 0: 3 steps" in said
    assert "the mean is of the others" in said
    told = json.loads((folder / "seeds.json").read_text())
    assert (told["seeds"], list(told["failed"])) == ([0, 2], ["1"])
    stepping = diverging(monkeypatch)
    assert main(["train", "--resume", f"--run-dir={folder}"]) == 0
    assert set(stepping) == {"seed-1"}
    told = json.loads((folder / "seeds.json").read_text())
    assert told["seeds"] == [0, 1, 2]
    assert "failed" not in told
    diverging(monkeypatch, "seed-0", "seed-1", "seed-2")
    assert main(["train", *arguments(corpus, tmp_path / "none", *words)]) == 1
    assert "all 3 seeds failed" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.campaign
def test_seeds_go_on_where_they_stopped_and_need_no_validation(corpus, tmp_path):
    run(corpus, tmp_path / "run", "--seeds=1", "--max-steps=1")
    one = run(corpus, tmp_path / "seeds", "--seeds=2", "--max-steps=1")
    assert same(weights(one / "seed-0"), weights(tmp_path / "run"))
    # The first seed is finished, the second was never begun.
    before = weights(one / "seed-1")
    shutil.rmtree(one / "seed-1")
    run(corpus, one, "--seeds=2", "--max-steps=1", "--resume")
    assert same(weights(one / "seed-1"), before)


@pytest.mark.parametrize(
    ("values", "mean", "deviation"),
    [([0.25, 0.75], 0.5, pytest.approx(0.35355, abs=1e-5)), ([None, 0.5], None, None)],
)
def test_undefined_correlations_leave_the_mean_undefined(values, mean, deviation):
    val = {"mean_ccc": 0.0, "mean_mse": 0.0}
    logs = {i: log_of({"val": val | {"mean_pearson": value}}, {}) for i, value in enumerate(values)}
    told = summarised(logs | {9: log_of({})})
    assert told["seeds"] == [0, 1]
    assert told["mean_pearson"] == {"values": values, "mean": mean, "deviation": deviation}
