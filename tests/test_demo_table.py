"""The table of the demo: labels exchanged where they should be, scores and gaps true, nothing mixed up."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
from support import ROOT

pytest.importorskip("skimage", reason="the demo corpus needs scikit-image: pip install '.[demo]'")
sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))  # run by path, not installed

import demo_table

from viper_e2e.config.presets import TRAIN_DEFAULTS, tiny
from viper_e2e.errors import ViperError
from viper_e2e.model.viper import ViPER


@pytest.fixture
def truth() -> np.ndarray:
    return np.random.default_rng(0).uniform(size=(50, 7))


def noisy(truth: np.ndarray, amount: float, seed: int) -> np.ndarray:
    return truth + amount * np.random.default_rng(seed).normal(size=truth.shape)


def test_the_floor_exchanges_labels_of_all_clips_but_the_test_clips(tmp_path):
    rows = [
        {"File_ID": f"[{i}]", "Split": ("train", "val", "test")[i % 3], "Subject": f"s{i}"}
        | {emotion: f"{i}.{j}" for j, emotion in enumerate(demo_table.demo.EMOTIONS)}
        for i in range(60)
    ]
    before, after = tmp_path / "labels.csv", tmp_path / "exchanged.csv"
    demo_table._write_rows(before, rows)
    demo_table._exchange(before, after)
    with after.open(newline="") as file:
        exchanged = list(csv.DictReader(file))
    emotions = demo_table.demo.EMOTIONS
    for old, new in zip(rows, exchanged, strict=True):
        assert {k: v for k, v in old.items() if k not in emotions} == {
            k: v for k, v in new.items() if k not in emotions
        }
        assert len({new[emotion].split(".")[0] for emotion in emotions}) == 1, "a clip's labels stay together"
        if old["Split"] == "test":
            assert old == new
    moved = [old != new for old, new in zip(rows, exchanged, strict=True) if old["Split"] != "test"]
    assert np.mean(moved) > 0.9
    assert sorted(row["Fear"] for row in rows) == sorted(row["Fear"] for row in exchanged)


def test_correlations_are_numpys(truth):
    predicted = noisy(truth, 0.3, 1)
    expected = [np.corrcoef(predicted[:, i], truth[:, i])[0, 1] for i in range(7)]
    assert np.allclose(demo_table.correlations(predicted, truth), expected)


def test_a_row_holds_each_seed_and_an_interval_around_their_mean(truth):
    seeds = [noisy(truth, 0.3, seed) for seed in range(3)]
    score = demo_table._score("audio", seeds, truth, None)
    assert score.per_seed == [float(demo_table.correlations(one, truth).mean()) for one in seeds]
    assert score.low < score.mean < score.high
    assert score.gap is None


@pytest.mark.slow
def test_the_gap_is_the_difference_to_both_and_its_interval_is_paired(truth):
    both = [noisy(truth, 0.1, seed) for seed in range(3)]
    audio = [noisy(truth, 0.4, 10 + seed) for seed in range(3)]
    score, better = demo_table._score("audio", audio, truth, both), demo_table._score("both", both, truth, both)
    assert score.gap == pytest.approx(better.mean - score.mean)
    assert 0 < score.gap_low < score.gap < score.gap_high
    assert better.gap is None, "there is none between both and itself"
    same = demo_table._score("audio", both, truth, both)
    assert (same.gap, same.gap_low, same.gap_high) == (0, 0, 0)


def test_runs_of_other_settings_are_never_mixed_in_or_written_over(tmp_path):
    def options(**changed):
        return Namespace(**{"out": tmp_path / "table", "epochs": 2, "threads": 1, "corpus": None} | changed)

    demo_table._claim(options())
    demo_table._claim(options())  # the same again: go on
    with pytest.raises(ViperError, match="other settings"):
        demo_table._claim(options(epochs=3))
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "letter.txt").write_text("mine")
    with pytest.raises(ViperError, match="something else"):
        demo_table._claim(options(out=foreign))


def test_the_model_of_the_demo_is_what_it_is_said_to_be():
    config = tiny()
    assert (config.decoding.num_frames, config.visual.crop_size) == (8, 96)
    model = ViPER(config)
    model.set_training_depths(TRAIN_DEFAULTS["tiny"]["unfreeze"])
    trained = [p.numel() for p in model.parameters() if p.requires_grad]
    assert sum(trained) <= 1_000_000
    assert not any(encoder.is_frozen for encoder in model.encoders.values())


def test_make_demo_calls_what_exists():
    commands = subprocess.run(
        ["make", "--dry-run", "--always-make", "demo"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    scripts = re.findall(r"python (\S+\.py)", commands)
    assert {"train.py", "infer.py"} <= set(scripts)
    assert all((ROOT / script).is_file() for script in scripts), scripts
