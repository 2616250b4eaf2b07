"""A run ends where validation no longer finds anything better (`--patience`)."""

import pytest
from support.training_runs import lines, make_corpus, run, same, settings, weights

from viper_e2e.commands import main
from viper_e2e.commands.cli import train
from viper_e2e.errors import ViperError
from viper_e2e.experiments.folding import Folding
from viper_e2e.loading import Cursor
from viper_e2e.training.state import TrainingState

STANDING = ("--lr=0", "--batch-size=4", "--modality-dropout=0")
"""Nothing is learned: the first epoch is the best."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.mark.parametrize(
    ("patience", "count", "is_out"), [(0, 9, False), (2, 1, False), (2, 2, True), (2, 3, True)]
)
def test_patience_ends_after_so_many_epochs(patience, count, is_out):
    state = TrainingState(Cursor(0), epochs_without_better=count)
    assert state.is_out_of_patience(patience) == is_out


@pytest.mark.slow
def test_a_run_ends_early_says_so_and_goes_on_when_asked(corpus, tmp_path, capsys):
    val = f"--val-shards={corpus}/shards/val-*.tar"
    words = (val, *STANDING, "--epochs=5")
    folder = run(corpus, tmp_path / "run", *words, "--patience=2")
    assert len(lines(folder, "metrics.jsonl")) == 3
    assert "ended after epoch 3: 2 epochs brought no better model" in " ".join(capsys.readouterr().err.split())
    run(corpus, folder, *words[:-1], "--epochs=9", "--patience=2", "--resume")
    assert len(lines(folder, "metrics.jsonl")) == 3
    assert "nothing is left to train; raise --patience" in capsys.readouterr().err
    run(corpus, folder, *words, "--patience=0", "--resume")
    assert len(lines(folder, "metrics.jsonl")) == 5
    whole = run(corpus, tmp_path / "whole", *words)
    assert same(weights(folder), weights(whole))


@pytest.mark.parametrize("given", ["--patience=2", "--best-by=intensities.ccc"])
def test_nothing_to_judge_by_is_refused(corpus, tmp_path, given):
    option = given.partition("=")[0]
    with pytest.raises(ViperError, match=f"{option}: needs validation clips"):
        train(settings(corpus, tmp_path / "run", given))


def test_folds_all_learn_alike(corpus, tmp_path):
    words = (f"--train-shards={corpus}/shards/*.tar", "--lr=0.01", "--epochs=1")
    told = {"source": "2", "by": "", "stratify": ""}
    folding = Folding(settings(corpus, tmp_path / "cv", *words), **told)
    folding.write_folds()
    folding.write_settings()
    Folding(settings(corpus, tmp_path / "cv", *words, "--resume"), **told)
    with pytest.raises(ViperError, match=r"so that all folds are trained alike: --lr is 0.02, it was 0.01"):
        Folding(settings(corpus, tmp_path / "cv", *words, "--resume", "--lr=0.02"), **told)


def test_clips_that_are_held_out_do_not_decide_when_a_fold_ends(corpus, tmp_path, capsys):
    words = [f"--train-shards={corpus}/shards/*.tar", "--folds=2", f"--run-dir={tmp_path / 'cv'}"]
    assert main(["cv", "--preset=micro", *words, "--patience=2"]) == 1
    assert "add --inner-val" in capsys.readouterr().err
