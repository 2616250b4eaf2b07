from __future__ import annotations

import csv
import json

import pytest
import torch
from support.training_runs import lines, run, same, settings, weights

from viper_e2e.commands import cli
from viper_e2e.commands.cli import train
from viper_e2e.commands.parsing import parse_train
from viper_e2e.config import FusionConfig
from viper_e2e.encoders import Stream
from viper_e2e.errors import ViperError
from viper_e2e.fusion import RidgeFusion, build_fusion
from viper_e2e.fusion.closed_form import fit_ridge, predict
from viper_e2e.fusion.pooling import known_features, pool, pooled_rows
from viper_e2e.fusion.scale import LabelScale
from viper_e2e.loading import Cursor, RunQuarantine
from viper_e2e.model import CheckpointError
from viper_e2e.model.viper import load
from viper_e2e.packing import pack
from viper_e2e.tables import write_labels
from viper_e2e.training import state as training_state
from viper_e2e.training.state import TrainingState

pytestmark = pytest.mark.slow

WIDTHS = {"visual": 3, "audio": 2}
B, T = 12, 4
NO_STEPS = "--head ridge: learns nothing by steps and passes once; without effect, so leave out"
DROPOUT = "--modality-dropout=0.9"


@pytest.fixture(scope="module")
def fitted(corpus, tmp_path_factory):
    """A run with `--head ridge`, beside one whose head is another: no modality that is hidden from that one is
    hidden from its yardstick."""
    folder = tmp_path_factory.mktemp("fitted")
    val = f"--val-shards={corpus}/shards/val-*.tar"
    run(corpus, folder / "default", val, "--batch-size=2", "--epochs=1", DROPOUT)
    return run(corpus, folder / "ridge", val, "--batch-size=2", "--head=ridge")


def streams(seed: int = 0) -> dict[str, Stream]:
    generator = torch.Generator().manual_seed(seed)
    slots = torch.ones(B, T, dtype=torch.bool)
    seconds = torch.linspace(0, 3, T).expand(B, T)
    return {
        n: Stream(torch.randn(B, T, w, generator=generator), slots, slots, seconds) for n, w in WIDTHS.items()
    }


def head(**changes) -> RidgeFusion:
    return build_fusion(FusionConfig(kind="ridge", **changes), WIDTHS, 2, True)


def given() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.ones(B, T, dtype=torch.bool), torch.full((B,), 4.0)


def test_the_head_says_what_the_fit_says_in_units_of_any_labels():
    targets = 50 + 100 * torch.randn(B, 2, generator=torch.Generator().manual_seed(1))
    pooled = pool(streams(), *given())
    fit = fit_ridge(pooled_rows(pooled), targets, known_features(pooled))
    model = head()
    model.linear.take(fit)
    model.scale = LabelScale((50.0, 50.0), (100.0, 100.0))
    torch.testing.assert_close(
        model(streams(), *given()).double(), predict(fit, pooled_rows(pooled)), rtol=1e-5, atol=1e-3
    )


def test_a_hidden_modality_stands_at_its_training_mean():
    pooled = pool(streams(), *given())
    fit = fit_ridge(pooled_rows(pooled), torch.randn(B, 2), known_features(pooled))
    model = head()
    model.linear.take(fit)
    hidden = torch.tensor([[True, False]]).expand(B, -1)
    rows = pooled_rows(pooled).double()
    rows[:, :9] = fit.means[:9]
    torch.testing.assert_close(
        model(streams(), *given(), hidden).double(), predict(fit, rows), rtol=1e-5, atol=1e-5
    )


def test_a_sigmoid_is_refused_in_a_line():
    with pytest.raises(ViperError, match=r"fusion.output sigmoid: a ridge is linear"):
        head(output="sigmoid")


def test_its_score_is_the_yardstick_of_a_run_on_the_same_clips(fitted):
    yardstick = lines(fitted.parent / "default", "metrics.jsonl")[0]["yardstick"]
    (record,) = lines(fitted, "metrics.jsonl")
    assert "yardstick" not in record
    for name in ("mean_pearson", "mean_ccc", "mean_mse"):
        assert record["val"][name] == pytest.approx(yardstick[name], abs=1e-5)


def test_its_checkpoint_infers_evaluates_and_ablates(corpus, fitted, tmp_path):
    best = fitted / "checkpoints" / "best"
    assert isinstance(load(best).fusion, RidgeFusion)
    words = ["--checkpoint", str(best), "--num-workers=0"]
    shards = f"{corpus}/shards/val-*.tar"
    assert cli.main(["eval", *words, "--shards", shards, "--out", str(tmp_path / "eval")]) == 0
    scored = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    (record,) = lines(fitted, "metrics.jsonl")
    assert scored["mean_mse"] == pytest.approx(record["val"]["mean_mse"], abs=1e-6)
    assert cli.main(["ablate", *words, "--shards", shards, "--out", str(tmp_path / "ablate")]) == 0
    clip = corpus / "videos" / "8.mp4"
    assert cli.main(["infer", *words, str(clip), "--output", str(tmp_path / "scores.csv")]) == 0
    with (tmp_path / "scores.csv").open() as file:
        (row,) = csv.DictReader(file)
    said = load(best).predict(clip)["intensities"]
    assert float(row["joy"]) == pytest.approx(said["joy"], abs=1e-4)


def test_a_stopped_pass_goes_on_bitwise_and_holds_what_it_has_seen(corpus, fitted, tmp_path):
    words = (f"--val-shards={corpus}/shards/val-*.tar", "--batch-size=2", "--head=ridge")
    folder = run(corpus, tmp_path / "run", *words, "--max-steps=2")
    partial = weights(folder)
    assert not same(partial, weights(fitted))
    assert (partial["fusion.linear.weight"] != 0).any()
    assert train(settings(corpus, folder, *words, "--max-steps=9", "--resume")) == 0
    assert same(weights(folder), weights(fitted))
    assert lines(folder, "metrics.jsonl") == lines(fitted, "metrics.jsonl")


class Part(dict):
    """Of a checkpoint."""

    def state_dict(self) -> dict:
        return dict(self)

    def load_state_dict(self, state: dict) -> None:
        self.update(state)


def test_a_ridge_goes_on_from_a_checkpoint_that_has_an_optimizer_too_and_no_other_run_does(tmp_path):
    saved = TrainingState(Cursor(0, 0, 4), step=2)
    parts = {"optimizer": Part(), "schedule": Part(), "loss": Part(), "yardstick": Part(rows=4)}
    training_state.save(tmp_path, saved, {**parts, "skips": Part(used=2)}, RunQuarantine())
    rows, skips = Part(), Part()
    own = {"yardstick": rows, "skips": skips}
    assert training_state.load(tmp_path, own, RunQuarantine(), lambda epoch: None) == saved
    assert (rows, skips) == ({"rows": 4}, {"used": 2})
    with pytest.raises(CheckpointError, match="was saved with loss, optimizer, schedule, skips, yardstick"):
        training_state.load(tmp_path, {"average": Part(), **own}, RunQuarantine(), lambda epoch: None)


@pytest.mark.campaign
@pytest.mark.survival
def test_two_processes_fit_what_one_fits(corpus, fitted, fork_server, tmp_path):
    from support.fork_server import together
    from support.training_runs import arguments

    val = f"--val-shards={corpus}/shards/val-*.tar"
    for name, words in (("ridge", ["--head=ridge"]), ("default", ["--epochs=1", DROPOUT])):
        together(fork_server, "train", arguments(corpus, tmp_path / name, val, "--batch-size=1", *words))
    for key, value in weights(fitted).items():
        torch.testing.assert_close(weights(tmp_path / "ridge")[key], value, atol=1e-6, rtol=1e-6)
    ours, theirs = (lines(f / "default", "metrics.jsonl")[0]["yardstick"] for f in (tmp_path, fitted.parent))
    assert ours["num_train_clips"] == theirs["num_train_clips"] == 8
    for name in ("mean_pearson", "mean_ccc", "mean_mse"):
        assert ours[name] == pytest.approx(theirs[name], abs=1e-6)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--unfreeze=visual",), "--head ridge: trains no backbones, and visual would be; give --freeze all"),
        (("--unfreeze-at=1:visual=all",), "--head ridge: trains no backbones, and 1:visual=all would be"),
        (("--augment=all",), "--head ridge: clips pass once and as they are; leave out --augment"),
        (("--ema-decay=0.9",), "--head ridge: there are no steps to average over; leave out --ema-decay"),
        (("--loss=ccc=1", "--lr=0.001", "--epochs=2"), f"{NO_STEPS}: --epochs, --lr, --loss"),
        (("--task-weights=mood=2",), f"{NO_STEPS}: --task-weights"),
        (("--seeds=2", "--reuse-memory=1GB"), f"{NO_STEPS}: --reuse-memory"),
        (("--model.fusion.dim=8", DROPOUT), f"{NO_STEPS}: --model.fusion.dim, --modality-dropout"),
    ],
    ids=str,
)
def test_what_would_have_no_effect_is_refused_before_anything_is_made(corpus, tmp_path, words, complaint):
    with pytest.raises(ViperError) as caught:
        train(settings(corpus, tmp_path / "run", "--head=ridge", *words))
    assert str(caught.value).startswith(complaint)
    assert not (tmp_path / "run").exists()


def test_files_are_told_too_where_they_differ_from_the_preset(corpus, fitted, tmp_path):
    """A `config.yaml` holds every setting: those that are as the preset has them were not asked for."""
    (tmp_path / "more.yaml").write_text("lr: 0.5\nbatch_size: 3\nmodel:\n  fusion:\n    depth: 3\n")
    for file, names in (
        (tmp_path / "more.yaml", "--lr, --model.fusion.depth"),
        (fitted.parent / "default" / "config.yaml", "--modality-dropout"),
    ):
        again = f"--run-dir={tmp_path / 'run'}"  # after the file, which may name its own
        with pytest.raises(ViperError) as caught:
            train(settings(corpus, tmp_path / "run", f"--config={file}", "--head=ridge", again))
        assert str(caught.value) == f"{NO_STEPS}: {names}"
    own = [f"--config={fitted / 'config.yaml'}", f"--run-dir={tmp_path / 'again'}"]
    assert train(parse_train(["--preset=micro", *own], "viper train")) == 0
    assert same(weights(tmp_path / "again"), weights(fitted))


def test_a_ridge_that_goes_on_refuses_them_too(corpus, fitted, tmp_path):
    words = (f"--val-shards={corpus}/shards/val-*.tar", "--batch-size=2", "--head=ridge", "--resume")
    with pytest.raises(ViperError, match=f"^{NO_STEPS}: --lr$"):
        train(settings(corpus, fitted, *words, "--lr=0.5"))


def test_labels_of_any_range_are_predicted_in_their_units(corpus, tmp_path):
    rows = [
        {"File_ID": f"[{i}]", "Split": "train", "Joy": 1000 + 50 * (i % 4), "Fear": 10.5 + i % 3}
        for i in range(8)
    ]
    write_labels(tmp_path / "labels.csv", rows)
    assert pack(corpus / "videos", tmp_path / "labels.csv", tmp_path / "shards").exit_code == 0
    folder = run(tmp_path, tmp_path / "run", "--head=ridge")
    joy = [
        load(folder / "checkpoints" / "last").predict(corpus / "videos" / f"{i}.mp4")["intensities"]
        for i in (0, 3)
    ]
    assert all(900 < said["joy"] < 1250 and 8 < said["fear"] < 15 for said in joy)
