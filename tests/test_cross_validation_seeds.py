"""`viper cv --seeds` and `--ensemble`: one pass and the same folds, each seed bitwise as it is alone."""

from __future__ import annotations

import csv
import json
from statistics import fmean, stdev

import pytest
import torch
from support.counted_work import interrupt_steps
from support.training_runs import same, weights
from support.visual_encoders import write_vit

from viper_e2e.commands.cli import main

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def words(corpus, tmp_path_factory):
    torch.manual_seed(7)
    vit = write_vit(tmp_path_factory.mktemp("vit") / "vit")
    shards = ("--preset=micro", f"--train-shards={corpus}/shards/*.tar", "--num-workers=0", "--epochs=1")
    return [*shards, "--modalities=visual", f"--backbone=visual={vit}"]


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_each_seed_is_the_cross_validation_that_it_is_alone_on_one_pass(words, tmp_path, encoded, capsys):
    folder = tmp_path / "cv"
    assert main(["cv", *words, "--folds=2", "--seeds=2", f"--run-dir={folder}"]) == 0
    assert (len(encoded), set(encoded.values())) == (12, {1})
    said = capsys.readouterr()
    assert "all clips, 2 seeds" in said.out
    assert "mean ± sd over seeds" in said.out
    assert said.err.count("next: viper") == 1
    assert said.err.count("What usually helps") == min(1, said.err.count("below the yardstick"))
    alone = tmp_path / "alone"
    again = [f"--folds={folder}/folds.json", "--seed=1", f"--run-dir={alone}"]
    assert main(["cv", *words, *again]) == 0
    assert (alone / "predictions.csv").read_bytes() == (folder / "seed-1/predictions.csv").read_bytes()
    for fold in (1, 2):
        assert same(weights(alone / f"fold-{fold}"), weights(folder / f"seed-1/fold-{fold}"))
    assert not same(weights(folder / "seed-0/fold-1"), weights(folder / "seed-1/fold-1"))
    told = json.loads((folder / "seeds.json").read_text())
    assert told["seeds"] == [0, 1]
    each = [json.loads((folder / f"seed-{seed}/metrics.json").read_text())["tasks"] for seed in (0, 1)]
    (task,) = told["tasks"]
    values = [metrics[task]["mse"] for metrics in each]
    over = told["tasks"][task]["mse"]
    assert over["values"] == pytest.approx(values, rel=1e-4)
    assert (over["mean"], over["deviation"]) == pytest.approx((fmean(values), stdev(values)), rel=1e-3)
    for one, count, said in ((folder, 1, "2 seeds; give --seeds 2"), (alone, 2, "1 seed; leave out --seeds")):
        assert main(["cv", "--resume", f"--seeds={count}", f"--run-dir={one}"]) == 1
        assert f"was begun with {said}" in capsys.readouterr().err


@pytest.mark.campaign
def test_an_ensemble_of_each_fold_predicts_what_it_held_out(words, tmp_path, encoded):
    folder = tmp_path / "cv"
    assert main(["cv", *words, "--folds=2", "--ensemble=2", f"--run-dir={folder}"]) == 0
    assert (len(encoded), set(encoded.values())) == (12, {1})
    assert sorted(row["key"] for row in rows(folder / "predictions.csv")) == sorted(map(str, range(12)))
    fold, member = folder / "fold-1", tmp_path / "member"
    by_hand = (f"--folds={folder}/folds.json", "--fold=1", "--seed=1", f"--run-dir={member}")
    assert main(["train", *words, *by_hand]) == 0
    assert same(weights(fold / "seed-1"), weights(member))
    # What it says is the mean of what the models after the last epoch say.
    said = []
    for checkpoint in (fold / "seed-0/checkpoints/last", fold / "seed-1/checkpoints/last"):
        out = tmp_path / f"said {len(said)}"
        told = (f"--checkpoint={checkpoint}", "--shards", words[1].partition("=")[2], f"--out={out}")
        assert main(["eval", *told, f"--folds={folder}/folds.json", "--fold=1"]) == 0
        said.append({row["key"]: float(row["predicted_joy"]) for row in rows(out / "predictions.csv")})
    for row in rows(fold / "held_out.csv"):
        mean = (said[0][row["key"]] + said[1][row["key"]]) / 2
        assert float(row["predicted_joy"]) == pytest.approx(mean, abs=1e-5)
    assert main(["cv", f"--run-dir={folder}", "--resume"]) == 0


def test_what_more_members_say_takes_the_place_of_what_fewer_said(words, tmp_path):
    folder = tmp_path / "cv"
    assert main(["cv", *words, "--folds=2", f"--run-dir={folder}"]) == 0
    alone = rows(folder / "predictions.csv")
    assert main(["cv", "--resume", f"--run-dir={folder}", "--ensemble=2"]) == 0
    two = rows(folder / "predictions.csv")
    assert all(one["predicted_joy"] != other["predicted_joy"] for one, other in zip(alone, two, strict=True))


@pytest.mark.campaign
@pytest.mark.parametrize("kind", ["--seeds=2", "--ensemble=2"])
def test_stopped_in_its_middle_it_goes_on_to_the_same_tables(words, tmp_path, monkeypatch, kind):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert main(["cv", *words, "--folds=2", kind, f"--run-dir={whole}"]) == 0
    interrupt_steps(monkeypatch, {2, 5, 7})
    assert main(["cv", *words, "--folds=2", kind, f"--run-dir={stopped}"]) == 130
    assert main(["cv", *words, "--folds=2", kind, f"--run-dir={stopped}"]) == 1  # a run is there already
    while (code := main(["cv", f"--run-dir={stopped}", "--resume"])) == 130:
        pass
    assert code == 0
    made = [path.relative_to(whole) for path in whole.rglob("*.csv")]
    made += [path.relative_to(whole) for path in whole.rglob("metrics.json")]
    made += [path.relative_to(whole) for path in whole.glob("seeds.json")]
    assert len(made) > 3
    for path in made:
        assert (whole / path).read_bytes() == (stopped / path).read_bytes(), path
