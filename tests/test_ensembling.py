"""`viper train --ensemble`: heads that were trained apart as one model that knows how far they disagree."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from support.training_runs import arguments, settings
from support.visual_encoders import write_vit

from viper_e2e import load
from viper_e2e.commands.cli import main
from viper_e2e.config import FusionConfig
from viper_e2e.errors import ViperError
from viper_e2e.experiments.ensembling import check_joinable
from viper_e2e.fusion import MembersFusion, build_fusion
from viper_e2e.model import Calibration, Line, TaskCalibration, ViPER, checkpoint, pretrained
from viper_e2e.shards import ShardSet


def test_members_answer_each_for_itself():
    config = FusionConfig(dim=8, num_latents=2, latent_dim=8, num_latent_heads=2, members=3)
    head = build_fusion(config, {"visual": 4}, 2, unit_interval=True).eval()
    assert isinstance(head, MembersFusion)
    assert head.num_networks == 3
    assert len({member.missing_token.sum().item() for member in head.members}) == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--ensemble=2",), r"random weights \(visual, audio\) differ"),
        (("--ensemble=2", "--unfreeze=visual"), "visual would be trained"),
        (("--ensemble=2", "--seeds=3"), "leave out --seeds"),
        (("--model.fusion.members=2",), "use --ensemble instead"),
    ],
)
def test_what_cannot_be_joined_is_refused_before_training(corpus, tmp_path, words, said):
    with pytest.raises(ViperError, match=said):
        check_joinable(settings(corpus, tmp_path / "run", *words))


@pytest.mark.slow
def test_seeds_become_one_model_that_says_their_mean_and_their_spread(corpus, tmp_path, capsys):
    torch.manual_seed(7)
    folder = tmp_path / "run"
    own = ("--modalities=visual", f"--backbone=visual={write_vit(tmp_path / 'vit')}", "--epochs=1")
    words = arguments(corpus, folder, *own, f"--val-shards={corpus}/shards/val-*.tar", "--ensemble=3")
    assert main(["train", *words]) == 0
    assert "model of all seeds" in capsys.readouterr().err
    val = ShardSet(f"{corpus}/shards/val-*.tar")
    clips = [val.read(i) for i in range(len(val))]

    def said(path):
        return np.array([list(one["intensities"].values()) for one in load(path).predict(clips)])

    members = np.array([said(folder / f"seed-{seed}/checkpoints/best") for seed in range(3)])
    joined = load(folder / "checkpoints/best").predict(clips)
    np.testing.assert_allclose(
        [list(one["intensities"].values()) for one in joined], members.mean(0), atol=1e-6
    )
    np.testing.assert_allclose(
        [list(one["spread"].values()) for one in joined], members.std(0, ddof=1), atol=1e-6
    )
    record = json.loads((folder / "seeds.json").read_text())
    assert record["seeds"] == [0, 1, 2]
    assert "mean_pearson" in record["ensemble"]
    clip, scores = str(corpus / "videos/9.mp4"), tmp_path / "scores.csv"
    assert main(["infer", clip, "--checkpoint", str(folder), "--output", str(scores)]) == 0
    with scores.open() as file:
        (row,) = csv.DictReader(file)
    assert float(row["joy_spread"]) > 0
    assert main(["export", "--checkpoint", str(folder), "--out", str(tmp_path / "exported")]) == 0
    again = load(tmp_path / "exported").predict(clips)
    assert [one["spread"] for one in again] == [one["spread"] for one in joined]
    # What was fitted to one member is none of the others'.
    first = folder / "seed-0/checkpoints/best"
    model = ViPER.from_pretrained(first)
    halved = TaskCalibration("intensities", maps=(Line(0.5, 0.0),) * len(model.labels))
    model.calibration = Calibration({"intensities": halved}, 0.9, {"clips": 4, "sha256": "", "subjects": 4})
    checkpoint.write_folder(first, lambda new: pretrained.write(model, new))
    assert main(["train", f"--run-dir={folder}", "--resume"]) == 0
    assert json.loads((folder / "seeds.json").read_text()) == record
    assert load(folder / "checkpoints/best").calibration is None
