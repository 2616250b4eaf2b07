"""`viper train --fold`, `--inner-val`, `viper eval --fold`: one fold by hand."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import pytest
from support.training_runs import run, settings

from viper_e2e.commands.cli import main
from viper_e2e.errors import ViperError
from viper_e2e.shards import ShardSet
from viper_e2e.splits.folds import Folds
from viper_e2e.training.data import open_splits

SHORT = ("--epochs=1", "--batch-size=4")


@pytest.fixture(scope="module")
def folds(tmp_path_factory):
    """Eight clips of eight subjects in three folds."""
    path = tmp_path_factory.mktemp("folds") / "folds.json"
    Folds({str(i): str(i % 3) for i in range(8)}).write(path)
    return path


def keys(shards: ShardSet | None) -> set[str]:
    assert shards is not None
    return {shards.entry(i).key for i in range(len(shards))}


def test_a_fold_is_held_out_validated_on_and_never_trained_on(corpus, folds, tmp_path):
    given = settings(corpus, tmp_path / "run", f"--folds={folds}", "--fold=1", *SHORT)
    train, val = open_splits(given.train)
    assert (keys(train), keys(val)) == ({"0", "2", "3", "5", "6"}, {"1", "4", "7"})
    train, inner = open_splits(replace(given.train, inner_val=0.2))
    assert keys(train) | keys(inner) == {"0", "2", "3", "5", "6"}
    assert len(keys(inner)) == 1
    assert any("(--inner-val)" in problem for problem in train.problems)


def test_what_is_validated_on_is_said_once(corpus, folds, tmp_path):
    val = f"--val-shards={corpus}/shards/val-*.tar"
    for words, message in (
        ((f"--folds={folds}", "--fold=1"), "--val-shards and --fold 1"),
        (("--inner-val=0.2",), "--val-shards and --inner-val 0.2"),
    ):
        with pytest.raises(ViperError, match=message):
            open_splits(settings(corpus, tmp_path / "run", val, *words).train)
    with pytest.raises(ViperError, match="--folds Fold: no clip has it"):
        open_splits(settings(corpus, tmp_path / "run", "--fold=1").train)


@pytest.mark.slow
def test_a_fold_by_hand_goes_on_where_it_was_moved_and_is_scored_alone(corpus, folds, tmp_path):
    words = (f"--folds={folds}", "--fold=1", *SHORT)
    whole = run(corpus, tmp_path / "run", *words)
    moved = tmp_path / "moved.json"
    moved.write_bytes(folds.read_bytes())
    # The clips are compared, not the name of the file; other folds are refused.
    run(corpus, whole, "--resume", f"--folds={moved}")
    with pytest.raises(ViperError, match="can only resume with the settings it began with"):
        run(corpus, whole, "--resume", "--fold=2")
    out = tmp_path / "scores"
    how = ["--checkpoint", str(whole / "checkpoints/last"), "--num-workers", "0", "--out", str(out)]
    fold = ["--folds", str(folds), "--fold", "1"]
    assert main(["eval", *how, "--shards", f"{corpus}/shards/train-*.tar", *fold]) == 0
    with (out / "predictions.csv").open() as file:
        assert {row["key"] for row in csv.DictReader(file)} == {"1", "4", "7"}
    assert json.loads((out / "metrics.json").read_text())["shards"]["clips"] == 3
