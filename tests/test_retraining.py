"""`viper ablate --retrain`: what a model is that never had a modality."""

from __future__ import annotations

import json

import pytest
import torch
from support.training_runs import arguments, same, settings, weights
from support.visual_encoders import write_vit

from viper_e2e.commands.cli import main, train
from viper_e2e.commands.retraining import of_subset, subsets_of
from viper_e2e.encoders.prepared import TokenCache


def test_all_come_first():
    assert subsets_of(["audio", "visual", "motion"]) == [
        ("visual", "audio", "motion"),
        ("visual", "audio"),
        ("visual", "motion"),
        ("audio", "motion"),
        ("visual",),
        ("audio",),
        ("motion",),
    ]


def test_a_subset_is_the_same_run_with_less(corpus, tmp_path):
    later = "--unfreeze-at=1:visual=2,1:audio=1"
    base = settings(corpus, tmp_path / "run", "--unfreeze=visual=1,audio=all", later, "--lr=0.5")
    alone = of_subset(base, ("audio",))
    assert alone.model.modalities == ("audio",)
    assert str(alone.train.unfreeze) == "audio=all"
    assert str(alone.train.unfreeze_at) == "1:audio=1"
    assert alone.train.lr == 0.5
    assert base.model.modalities == ("visual", "audio")


def test_one_modality_alone_is_refused(corpus, tmp_path, capsys):
    words = arguments(
        corpus, tmp_path / "run", "--modalities=visual", f"--val-shards={corpus}/shards/val-*.tar"
    )
    assert main(["ablate", "--retrain", *words]) == 1
    assert "one modality; there is nothing to leave out" in capsys.readouterr().err


@pytest.mark.slow
def test_each_subset_is_trained_as_it_would_be_alone_on_one_pass(corpus, tmp_path, monkeypatch, capsys):
    torch.manual_seed(7)
    vit = write_vit(tmp_path / "vit")
    names, keep = [], TokenCache.keep

    def keeping(self, clip, modality, *made):
        names.append((modality, clip.name))
        return keep(self, clip, modality, *made)

    monkeypatch.setattr(TokenCache, "keep", keeping)
    own = (f"--val-shards={corpus}/shards/val-*.tar", f"--backbone=visual={vit}", "--epochs=1")
    folder = tmp_path / "run"
    assert main(["ablate", "--retrain", *arguments(corpus, folder, *own)]) == 0
    seen = [clip for name, clip in names if name == "visual"]
    assert len(seen) == len(set(seen)) == 12
    told = json.loads((folder / "retrained.json").read_text())
    assert [row["trial"] for row in told["trials"]] == ["visual+audio", "visual", "audio"]
    assert all(row["low"] <= row["mean_pearson"] <= row["high"] for row in told["trials"])
    assert {row["intervals_over"] for row in told["trials"]} == {"subjects"}
    assert (folder / "retrained.png").is_file()
    assert "visual, audio" in capsys.readouterr().out
    for subset in (("visual",), ("audio",)):
        alone = of_subset(settings(corpus, tmp_path / subset[0], *own), subset)
        assert train(alone) == 0
        assert same(weights(tmp_path / subset[0]), weights(folder / subset[0]))
    before = (folder / "retrained.json").read_text()
    assert main(["ablate", "--retrain", f"--run-dir={folder}", "--resume"]) == 0
    assert (folder / "retrained.json").read_text() == before
