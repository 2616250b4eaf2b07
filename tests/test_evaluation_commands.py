"""`viper eval`, `viper ablate`: the published preset, small, from training to submission and ablation."""

from __future__ import annotations

import csv
import json
import os
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import yaml
from support.generated_reference import SENTENCES, write_clip_model, write_roberta, write_vit, write_wavlm
from support.media import make_clip, tone

from viper_e2e.commands.cli import main
from viper_e2e.labels import HUME_REACTION
from viper_e2e.model import checkpoint
from viper_e2e.shards import ShardWriter, action_units_to_npy

SMALL_HEAD = (
    "--model.fusion.num-latents=4",
    "--model.fusion.latent-dim=16",
    "--model.fusion.self-attends-per-block=1",
    "--model.fusion.num-cross-heads=2",
    "--model.fusion.num-latent-heads=2",
    "--model.decoding.num-frames=4",
)


class World(NamedTuple):
    """A corpus, a model of the published preset trained on it, and what was told of it."""

    shards: Path
    run: Path
    eval: Path
    ablation: Path
    codes: dict[str, int]

    @property
    def best(self) -> str:
        return str(self.run / "checkpoints/best")

    def split(self, name: str) -> str:
        return f"--shards={self.shards}/{name}-*.tar"


def write_corpus(folder: Path) -> None:
    """Six clips to train on, five to validate on, four unlabelled ones of which one cannot be read."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    number = 0
    for split, count in (("train", 6), ("val", 5), ("test", 4)):
        with ShardWriter(folder, split, HUME_REACTION, shard_size=10**9) as writer:
            for i in range(count):
                number += 1
                bright = np.full((64, 96, 3), 30 + 30 * i, np.uint8)
                clip = make_clip(
                    folder / "clip.mp4", frames=[bright] * 5, sound=tone(0.4, 16_000, 1, 200 * (i + 1))
                )
                members = {"mp4": clip.read_bytes(), "fau.npy": action_units_to_npy(rng.random((9, 27)))}
                if split == "test" and i == 2:
                    members["mp4"] = b"no video at all"
                intensities = None if split == "test" else tuple(rng.random(7))
                writer.add(f"{number:05}", members, file_id=f"[{number:05}]", intensities=intensities)
    (folder / "clip.mp4").unlink()


def backbones(folder: Path) -> list[str]:
    torch.manual_seed(0)
    write_vit(folder / "vit")
    write_wavlm(folder / "wavlm")
    write_clip_model(folder / "clip")
    write_roberta(folder / "roberta")
    (folder / "bank.json").write_text(json.dumps(SENTENCES))
    names = {"visual": "vit", "audio": "wavlm", "image_text": "clip", "sentence_encoder": "roberta"}
    words = [f"--backbone={name}={folder / place}" for name, place in names.items()]
    return [*words, f"--model.textual.bank={folder / 'bank.json'}"]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    folder = tmp_path_factory.mktemp("paper")
    made = World(folder / "shards", folder / "run", folder / "eval", folder / "ablation", {})
    write_corpus(made.shards)
    words = ["--preset=paper", *backbones(folder), *SMALL_HEAD, "--epochs=1", "--rescale", "--num-workers=0"]
    words += [f"--train-shards={made.shards}/train-*.tar", f"--val-shards={made.shards}/val-*.tar"]
    made.codes["train"] = main(["train", *words, f"--run-dir={made.run}"])
    scoring = [f"--checkpoint={made.best}", "--num-workers=0"]
    outputs = ["--report", "--submission", f"--out={made.eval}"]
    made.codes["eval"] = main(["eval", *scoring, made.split("val"), *outputs])
    made.codes["ablate"] = main(["ablate", *scoring, made.split("val"), f"--out={made.ablation}"])
    return made


pytestmark = pytest.mark.slow


def table(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_the_published_recipe_is_what_trains(world):
    assert world.codes["train"] == 0
    settings = yaml.safe_load((world.run / "config.yaml").read_text())
    recipe = {
        "lr": 1e-5,
        "schedule": "halve",
        "halve_epochs": 10,
        "batch_size": 16,
        "loss": "mse=1",
        "rescale": True,
    }
    assert {name: settings[name] for name in recipe} == recipe
    assert settings["model"]["fusion"]["kind"] == "concat"
    assert settings["model"]["fusion"]["output"] == "linear"
    # Best by Pearson, and best by MSE.
    for name in ("best", "best_mse"):
        checkpoint.verify(world.run / "checkpoints" / name)


def test_an_evaluation_writes_everything(world):
    assert world.codes["eval"] == 0
    names = HUME_REACTION.names
    expected = {"metrics.json", "predictions.csv", "submission.csv", "report.html", "scatter.png"}
    expected |= {"error_against_faces.png", "confusion.png", "confusion_dominant.png", "confusion_clamped.csv"}
    expected |= {f"confusion_{name}.csv" for name in (*names, "dominant")}
    assert {path.name for path in world.eval.iterdir()} == expected
    metrics = json.loads((world.eval / "metrics.json").read_text())
    assert metrics["num_clips"] == 5
    assert set(metrics["pearson"]) == set(names)
    assert len(table(world.eval / "confusion_fear.csv")) == 1 + 10


def test_a_model_trained_with_rescaling_predicts_with_it(world):
    rows = table(world.eval / "submission.csv")[1:]
    tops = [max(map(float, row[1:])) for row in rows]
    assert tops == pytest.approx([1.0] * 5), "no row has a maximum above 0: give another seed"


def test_a_submission_has_the_challenges_form(world):
    header, *rows = table(world.eval / "submission.csv")
    assert header == ["File_ID", *HUME_REACTION.columns]
    assert [row[0] for row in rows] == [f"[{number:05}]" for number in range(7, 12)]


def test_the_page_shows_clips_with_their_faces(world):
    page = (world.eval / "report.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 5
    assert page.count("data:image/png;base64,") == 4
    assert "model.fusion.kind" in page or "fusion.kind" in page


def test_all_fifteen_subsets_are_compared_and_sorted(world):
    assert world.codes["ablate"] == 0
    rows = json.loads((world.ablation / "ablation.json").read_text())["rows"]
    assert len({tuple(row["modalities"]) for row in rows}) == 15
    means = [row["mean_pearson"] for row in rows]
    assert means == sorted(means, reverse=True)
    assert all(row["low"] <= row["high"] for row in rows)
    assert (world.ablation / "ablation.png").is_file()  # how it is drawn: tests/test_figures.py
    whole = next(row for row in rows if len(row["modalities"]) == 4)
    metrics = json.loads((world.eval / "metrics.json").read_text())
    assert whole["mean_pearson"] == pytest.approx(metrics["mean_pearson"], abs=1e-6)


def test_an_unlabelled_split_is_predicted_and_an_unreadable_clip_gets_the_training_mean(
    world, tmp_path, capsys
):
    words = [f"--checkpoint={world.best}", world.split("test"), f"--out={tmp_path}", "--num-workers=0"]
    assert main(["eval", *words, "--submission", "--report"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "1 unreadable, given the mean of the training labels: 00014" in said
    assert "predictions only" in said
    assert not (tmp_path / "metrics.json").exists()
    rows = {row[0]: [float(cell) for cell in row[1:]] for row in table(tmp_path / "submission.csv")[1:]}
    assert list(rows) == ["[00012]", "[00013]", "[00014]", "[00015]"]
    means = json.loads((world.run / "checkpoints/best/config.json").read_text())["labels"]["means"]
    assert rows["[00014]"] == pytest.approx(means)
    page = (tmp_path / "report.html").read_text()
    assert "no labels" in page
    assert "00014" in page


def test_what_stops_a_submission_stops_it_before_scoring(world, tmp_path, monkeypatch, capsys):
    clip = make_clip(tmp_path / "clip.mp4", num_frames=2).read_bytes()
    with ShardWriter(tmp_path, "twice", HUME_REACTION, shard_size=10**9) as writer:
        for key in ("a", "b"):
            writer.add(key, {"mp4": clip}, file_id="[1]")
    monkeypatch.setattr("viper_e2e.commands.common.scored", lambda *_: pytest.fail("scored"))
    words = [f"--checkpoint={world.best}", f"--shards={tmp_path}/twice-*.tar", f"--out={tmp_path}/out"]
    assert main(["eval", *words, "--submission"]) == 1
    assert "'[1]' occurs twice; score one set of shards per submission" in capsys.readouterr().err
    (tmp_path / "file").write_text("in the way")
    assert main(["eval", words[0], world.split("val"), f"--out={tmp_path}/file"]) == 1
    assert "is not a folder and cannot be created" in capsys.readouterr().err


def test_a_checkpoint_that_does_not_know_its_labels_falls_back_on_its_own_mean(world, tmp_path, capsys):
    def forget(folder: Path) -> None:
        for path in Path(world.best).rglob("*"):
            if path.is_file() and path.name != checkpoint.MANIFEST:
                target = folder / path.relative_to(world.best)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
        settings = json.loads((folder / "config.json").read_text())
        settings["labels"]["means"] = None
        (folder / "config.json").write_text(json.dumps(settings))

    checkpoint.write_folder(tmp_path / "released", forget)
    words = [f"--checkpoint={tmp_path / 'released'}", world.split("test"), f"--out={tmp_path}/out"]
    assert main(["eval", *words, "--submission", "--num-workers=0"]) == 2
    assert "given the mean prediction" in " ".join(capsys.readouterr().err.split())
    rows = {row[0]: np.array(row[1:], float) for row in table(tmp_path / "out/submission.csv")[1:]}
    unread = rows.pop("[00014]")
    assert unread == pytest.approx(np.mean(list(rows.values()), 0))


def test_a_reader_who_goes_away_and_pictures_that_fail_cost_no_number(world, tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise ValueError("no such font")

    monkeypatch.setattr("viper_e2e.report.figures.predicted_against_true", fail)
    reading, writing = os.pipe()
    os.close(reading)
    words = [
        f"--checkpoint={world.best}",
        world.split("val"),
        f"--out={tmp_path}",
        "--num-workers=0",
        "--report",
    ]
    with os.fdopen(writing, "w") as closed, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", closed)
        assert main(["eval", *words, f"--out={tmp_path}"]) == 2
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["num_failed"] == 0
    assert len(table(tmp_path / "predictions.csv")) == 6
    assert "Predicted against true: not drawn: no such font" in capsys.readouterr().err
    page = (tmp_path / "report.html").read_text()
    assert "run/best on val-*.tar" in page
    assert not (tmp_path / "parts").exists()


@pytest.mark.slow
def test_a_page_that_cannot_be_written_is_named_and_all_else_is_told(world, tmp_path, capsys):
    (tmp_path / "report.html").mkdir()
    words = [f"--checkpoint={world.best}", world.split("val"), f"--out={tmp_path}", "--num-workers=0"]
    assert main(["eval", *words, "--report"]) == 2
    told = capsys.readouterr()
    assert f"{tmp_path / 'report.html'}: not drawn" in told.err
    assert "mean" in told.out
