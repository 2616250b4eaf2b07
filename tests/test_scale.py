"""Labels of any range train as well as those in [0, 1], and come out in their own units."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.media import make_clip
from support.selection import some_of
from support.training_runs import run

import viper_e2e
from viper_e2e.config import FusionConfig
from viper_e2e.config.presets import micro
from viper_e2e.encoders import Stream
from viper_e2e.fusion import build_fusion
from viper_e2e.fusion.scale import LabelScale
from viper_e2e.labels import LabelSet
from viper_e2e.model.pretrained import labels_of
from viper_e2e.packing import pack
from viper_e2e.shards import ShardSet
from viper_e2e.tables import write_labels
from viper_e2e.training.data import scale_of_moments, scaled_as, training_labels
from viper_e2e.training.label_moments import moments_of
from viper_e2e.training.losses import IntensityLoss

UNIFORM = np.linspace(0, 1, 101)[:, None] * [1, 0.5] + [0, 0.25]
RANGES = {"0 to 100": (100.0, 0.0), "1e-5": (1e-5, 0.0), "around 50": (1.0, 50.0), "-1 to 1": (2.0, -1.0)}


def scale_of(
    rows: np.ndarray, in_unit_interval: bool, output: str
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return scale_of_moments(moments_of(rows), in_unit_interval, output)


def within(labels: LabelSet, rows: np.ndarray, output: str = "auto") -> LabelScale | None:
    centres, widths = scale_of(rows, labels.in_unit_interval, output)
    return LabelScale.of(replace(labels, centres=centres, widths=widths) if any(widths) else labels)


def test_labels_that_fill_the_unit_interval_are_learned_as_they_are():
    assert scale_of(UNIFORM, True, "auto") == ((0.0, 0.0), (0.0, 0.0))
    assert scale_of(np.full((5, 2), 0.3), True, "auto") == ((0.0, 0.0), (0.0, 0.0))


@pytest.mark.parametrize(("factor", "shift"), RANGES.values(), ids=RANGES)
def test_the_loss_of_labels_of_any_range_is_that_of_labels_in_the_unit_interval(factor, shift):
    rows = UNIFORM * factor + shift
    centres, widths = scale_of(rows, False, "auto")
    scale = LabelScale(centres, widths)
    loss = IntensityLoss({"mse": 1.0, "pearson": 0.5, "ccc": 0.5}, 2, scale=scale)
    plain = IntensityLoss(loss.weights, 2, scale=LabelScale(*scale_of(UNIFORM, False, "auto")))
    off = UNIFORM + np.random.default_rng(0).normal(0, 0.2, UNIFORM.shape)
    predictions, targets = (torch.tensor(r, dtype=torch.float32) for r in (off * factor + shift, rows))
    same = [torch.tensor(r, dtype=torch.float32) for r in (off, UNIFORM)]
    value = loss(predictions, targets, torch.ones(101)).value
    assert float(value) == pytest.approx(float(plain(*same, torch.ones(101)).value), rel=1e-3)


def test_a_constant_or_narrow_column_beside_others_has_a_scale_of_its_own():
    rows = np.concatenate([UNIFORM, 1e-5 * UNIFORM[:, :1], np.full((101, 1), 0.2)], 1)
    centres, widths = scale_of(rows, True, "auto")
    assert widths[:2] == (0.0, 0.0)
    assert (centres[2], widths[2]) == pytest.approx((5e-6, math.sqrt(12) * rows[:, 2].std()))
    assert widths[3] == 0.0
    assert scale_of(np.full((4, 1), 50.0), False, "auto") == ((50.0,), (1.0,))


def test_under_a_sigmoid_the_width_is_the_range():
    assert scale_of(UNIFORM * 100, False, "sigmoid") == ((50.0, 50.0), (100.0, 50.0))


def test_a_column_without_a_scale_is_what_the_head_says_otherwise():
    logits, otherwise = torch.tensor([[0.0, 3.0], [4.0, -3.0]]), torch.tensor([[7.0, 0.75], [7.0, -0.75]])
    labels = LabelScale((50.0, 0.0), (100.0, 0.0)).to_labels(logits, otherwise)
    assert torch.equal(labels, torch.tensor([[50.0, 0.75], [150.0, -0.75]]))


def test_an_untrained_head_speaks_around_the_centre():
    scale = LabelScale((50.0, 0.0), (100.0, 0.0))
    head = build_fusion(replace(FusionConfig(), num_latents=4, depth=1), {"audio": 8}, 2, False, scale).eval()
    stream = Stream(torch.randn(64, 5, 8), *(torch.ones(64, 5, dtype=torch.bool),) * 2, torch.zeros(64, 5))
    out = head({"audio": stream}, torch.ones(64, 5, dtype=torch.bool), torch.ones(64))
    assert abs(out[:, 0] - 50).mean() < 25
    assert abs(out[:, 1]).mean() < 2


@pytest.mark.slow
def test_a_checkpoint_keeps_the_scale_and_one_of_an_earlier_version_has_none(tmp_path):
    labels = LabelSet(("Joy", "Fear"), 0.0, 100.0, (1.0, 2.0), (50.0, 40.0), (80.0, 90.0))
    model = viper_e2e.model.viper.ViPER(micro(), labels).eval()
    model.save_pretrained(tmp_path / "new")
    loaded = viper_e2e.load(tmp_path / "new")
    assert loaded.labels == labels
    assert torch.equal(loaded.fusion.scale.widths, torch.tensor([80.0, 90.0]))
    settings = json.loads((tmp_path / "new" / "config.json").read_text())
    del settings["labels"]["centres"], settings["labels"]["widths"]
    old = tmp_path / "new" / "config.json"
    old.write_text(json.dumps(settings))
    manifest = tmp_path / "new" / "manifest.json"
    files = json.loads(manifest.read_text())
    from hashlib import sha256

    files["files"]["config.json"] = {
        "size": old.stat().st_size,
        "sha256": sha256(old.read_bytes()).hexdigest(),
    }
    manifest.write_text(json.dumps(files))
    assert viper_e2e.load(tmp_path / "new").fusion.scale is None


def test_a_saved_scale_is_taken_over_by_name():
    saved = LabelSet(("Joy", "Fear"), 0.0, 100.0, None, (50.0, 40.0), (80.0, 90.0))
    swapped = scaled_as(LabelSet(("fear", "joy"), 0.0, 100.0), saved)
    assert (swapped.centres, swapped.widths) == ((40.0, 50.0), (90.0, 80.0))
    assert scaled_as(swapped, LabelSet(("Fear", "Joy"), 0.0, 100.0)).widths is None


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scales") / "videos"
    folder.mkdir()
    for i in range(6):
        frames = [np.full((64, 96, 3), 40 + 30 * i, np.uint8)] * 4
        make_clip(folder / f"{i}.mp4", frames=frames, fps=4, sound=None)
    return folder


WORDS = ("--modalities=visual", "--unfreeze=visual", "--batch-size=6", "--reuse-memory=1GB", "--lr=0.006")


def labelled(folder, videos, factor: float, shift: float):
    """Shards of the clips under labels of some range."""
    rows = [(shift + factor * i / 5, shift + factor * (1 - i / 10)) for i in range(6)]
    titles = [{"File_ID": f"[{i}]", "Split": "train", "Joy": a, "Fear": b} for i, (a, b) in enumerate(rows)]
    folder.mkdir()
    write_labels(folder / "l.csv", titles)
    pack(videos, folder / "l.csv", folder / "shards")
    return folder


def error_of_training(folder, videos, factor: float, shift: float) -> float:
    """Squared error after fifteen epochs, as a share of the variance of the labels."""
    corpus = labelled(folder, videos, factor, shift)
    model = viper_e2e.load(run(corpus, corpus / "run", *WORDS, "--epochs=15") / "checkpoints" / "last")
    records = model.predict([videos / f"{i}.mp4" for i in range(6)])
    predicted = np.array([[record["intensities"][e] for e in ("joy", "fear")] for record in records])
    true = np.stack([np.arange(6) / 5, 1 - np.arange(6) / 10], 1) * factor + shift
    return float((((predicted - true) ** 2).mean(0) / true.var(0)).mean())


@pytest.fixture(scope="module")
def usual_error(videos, tmp_path_factory) -> float:
    return error_of_training(tmp_path_factory.mktemp("usual") / "corpus", videos, 1.0, 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", some_of(RANGES, lambda _, name: name == "0 to 100"))
def test_labels_of_any_range_train_as_well_as_those_in_the_unit_interval(videos, usual_error, tmp_path, name):
    error = error_of_training(tmp_path / "corpus", videos, *RANGES[name])
    print(usual_error, error)
    assert usual_error < 0.7
    assert error < 1.2 * usual_error + 0.05


@pytest.mark.slow
def test_a_run_that_goes_on_keeps_its_scale(videos, tmp_path):
    corpus = labelled(tmp_path / "wide", videos, 100.0, 0.0)
    folder = run(corpus, corpus / "run", *WORDS, "--epochs=1")
    config = folder / "checkpoints" / "last"
    before = labels_of(config)
    assert before.widths is not None
    assert training_labels(ShardSet(f"{corpus}/shards/*.tar"), "auto") == before
    run(corpus, folder, *WORDS, "--epochs=2", "--resume")
    assert labels_of(config) == before
    assert training_labels(ShardSet(f"{corpus}/shards/*.tar"), "sigmoid", config) == before
