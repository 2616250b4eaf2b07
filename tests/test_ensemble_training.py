"""Training the default head: its ridge is fitted at the end of an epoch, and all else is as for other heads."""

from __future__ import annotations

import pytest
import torch
from training_runs import make_corpus, run, same, weights

from viper_e2e.model import load

HEAD = ("--head=ensemble", "--model.fusion.change=true", "--batch-size=2")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("corpus"), num_train=8, num_val=4, silent=(5, 9))


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory):
    return run(corpus, tmp_path_factory.mktemp("whole") / "run", val(corpus), *HEAD, "--epochs=2")


def val(corpus) -> str:
    return f"--val-shards={corpus}/shards/val-*.tar"


def test_its_ridge_is_that_of_head_ridge(corpus, whole, tmp_path):
    alone = run(corpus, tmp_path / "ridge", val(corpus), "--head=ridge", "--batch-size=2")
    fitted = load(alone / "checkpoints" / "last").fusion.linear
    mine = load(whole / "checkpoints" / "last").fusion
    assert mine.is_fitted
    for name, tensor in fitted.state_dict().items():
        torch.testing.assert_close(mine.ridge.linear.state_dict()[name], tensor, atol=1e-6, rtol=1e-5)


def test_a_run_that_stops_within_its_first_epoch_fits_the_same_ridge(corpus, whole, tmp_path):
    folder = run(corpus, tmp_path / "run", val(corpus), *HEAD, "--epochs=2", "--max-steps=2")
    run(corpus, folder, val(corpus), *HEAD, "--epochs=2", "--max-steps=8", "--resume")
    ridges = [{n: t for n, t in weights(f).items() if n.startswith("fusion.ridge")} for f in (folder, whole)]
    assert ridges[0]
    assert same(*ridges)


def test_without_validation_clips_it_is_fitted_all_the_same(corpus, tmp_path):
    folder = run(corpus, tmp_path / "run", *HEAD, "--epochs=1")
    assert load(folder / "checkpoints" / "last").fusion.is_fitted


def test_while_backbones_train_it_is_fitted_anew_each_epoch(corpus, tmp_path):
    words = (*HEAD, "--unfreeze=visual,audio", "--epochs=2", "--backbone-lr=0.01")
    first = run(corpus, tmp_path / "first", *words[:-2], "--epochs=1", "--backbone-lr=0.01")
    second = run(corpus, tmp_path / "second", *words)
    a, b = (load(f / "checkpoints" / "last").fusion.ridge.linear.weight for f in (first, second))
    assert not torch.allclose(a, b, atol=1e-4)
