"""`viper train --seeds`: a run per seed, each as it would be alone, and their mean and deviation."""

from __future__ import annotations

import json
import shutil
from statistics import fmean, stdev

import pytest
from support.training_runs import lines, run, same, weights

from viper_e2e.training.seeds import summarised

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
    logs = {i: [{"val": val | {"mean_pearson": value}}, {"val": None}] for i, value in enumerate(values)}
    told = summarised(logs | {9: [{"train_loss": 1.0}]})
    assert told["seeds"] == [0, 1]
    assert told["mean_pearson"] == {"values": values, "mean": mean, "deviation": deviation}
