"""Training the default head: its ridge is fitted at the end of an epoch, and all else is as for other heads."""

from __future__ import annotations

import pytest
import torch
from support.training_runs import lines, make_corpus, run, same, weights

from viper_e2e.fusion.banded_ridge import fit_banded_ridge
from viper_e2e.fusion.closed_form import predict
from viper_e2e.fusion.pooling import block_sizes, known_features, pool, pooled_rows
from viper_e2e.model.viper import load
from viper_e2e.shards import ShardSet

pytestmark = pytest.mark.slow

HEAD = ("--head=ensemble", "--model.fusion.change=true", "--model.fusion.hidden-dim=8", "--batch-size=2")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("corpus"), num_train=8, num_val=4, silent=(5, 9))


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory):
    return run(corpus, tmp_path_factory.mktemp("whole") / "run", val(corpus), *HEAD, "--epochs=2")


def val(corpus) -> str:
    return f"--val-shards={corpus}/shards/val-*.tar"


def test_its_ridge_is_that_of_the_pooled_tokens_of_the_training_clips(corpus, whole):
    model = load(whole / "checkpoints" / "last")
    shards = ShardSet(f"{corpus}/shards/train-*.tar")
    rows, known = [], []
    with torch.no_grad():
        for i in range(len(shards)):
            output = model([shards.read(i)], keep_streams=True)
            pooled = pool(output.streams, output.face_found, output.duration_seconds)
            rows.append(pooled_rows(pooled))
            known.append(known_features(pooled))
    sizes = block_sizes({name: encoder.embed_dim for name, encoder in model.encoders.items()})
    targets = torch.tensor([shards.entry(i).intensities for i in range(len(shards))])
    fit = fit_banded_ridge(torch.cat(rows), targets, sizes, torch.cat(known))
    assert model.fusion.is_fitted
    torch.testing.assert_close(
        predict(fit, torch.cat(rows), torch.cat(known)), ridge_of(model, rows, known), atol=1e-4, rtol=0
    )


def ridge_of(model, rows, known):
    return model.fusion.ridge.linear(torch.cat(rows), torch.cat(known)).double().detach()


def test_a_run_that_stops_within_its_first_epoch_fits_the_same_ridge(corpus, whole, tmp_path):
    folder = run(corpus, tmp_path / "run", val(corpus), *HEAD, "--epochs=2", "--max-steps=2")
    run(corpus, folder, val(corpus), *HEAD, "--epochs=2", "--max-steps=8", "--resume")
    ridges = [{n: t for n, t in weights(f).items() if n.startswith("fusion.ridge")} for f in (folder, whole)]
    assert ridges[0]
    assert same(*ridges)


def test_without_validation_clips_it_is_fitted_all_the_same(corpus, tmp_path):
    folder = run(corpus, tmp_path / "run", *HEAD, "--epochs=1")
    assert load(folder / "checkpoints" / "last").fusion.is_fitted


def test_fitted_anew_once_backbones_begin_to_train_and_the_yardstick_stays_that_of_frozen_tokens(
    corpus, whole, tmp_path
):
    words = (*HEAD, "--epochs=3", "--unfreeze-at=2:visual=1", "--backbone-lr=0.01")
    folder = run(corpus, tmp_path / "run", val(corpus), *words)
    told = [line.get("yardstick") for line in lines(folder, "metrics.jsonl")]
    assert told == [lines(whole, "metrics.jsonl")[0]["yardstick"], None, None]
    frozen, tuned = (load(f / "checkpoints" / "last").fusion for f in (whole, folder))
    assert not torch.allclose(frozen.ridge.linear.weight, tuned.ridge.linear.weight, atol=1e-4)
    assert not torch.equal(frozen.hidden_layer.means, tuned.hidden_layer.means)
    assert torch.equal(tuned.hidden_layer.means, tuned.ridge.linear.means)


@pytest.mark.campaign
def test_while_backbones_train_it_is_fitted_anew_each_epoch(corpus, tmp_path):
    words = (*HEAD, "--unfreeze=visual,audio", "--epochs=2", "--backbone-lr=0.01")
    first = run(corpus, tmp_path / "first", *words[:-2], "--epochs=1", "--backbone-lr=0.01")
    second = run(corpus, tmp_path / "second", *words)
    a, b = (load(f / "checkpoints" / "last").fusion.ridge.linear.weight for f in (first, second))
    assert not torch.allclose(a, b, atol=1e-4)
