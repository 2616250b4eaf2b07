"""training_runs.py: the smallest runs of training that walk every path, and what they leave behind."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from support.fork_server import ForkServer, together
from support.media import make_clip, tone
from viper_e2e.commands.cli import train
from viper_e2e.commands.parsing import parse_train
from viper_e2e.config.settings import Settings
from viper_e2e.experiments import many_trainings
from viper_e2e.packing import pack
from viper_e2e.tables import write_labels
from viper_e2e.training.hooks import TrainerHooks
from viper_e2e.training.trainer import Trainer, open_trainer

JOINT = ("--unfreeze=visual,audio", "--epochs=3", "--batch-size=2", "--lr=0.01", "--backbone-lr=0.01")


def make_corpus(
    folder: Path,
    *,
    num_train: int = 8,
    num_val: int = 4,
    silent: tuple[int, ...] = (5,),
    shape: tuple[int, int] = (64, 96),
) -> Path:
    """Shards of clips whose pitch tells the one emotion and whose brightness the other."""
    (folder / "videos").mkdir(parents=True)
    rows = []
    for i in range(num_train + num_val):
        joy, fear = (i % 4) / 3, (i // 4) % 3 / 2
        frames = [np.full((*shape, 3), round(40 + 160 * joy), np.uint8) for _ in range(8)]
        sound = None if i in silent else tone(1.0, 16_000, 1, hertz=200 + 1500 * fear)
        make_clip(folder / "videos" / f"{i}.mp4", frames=frames, fps=8, sound=sound)
        split = "train" if i < num_train else "val"
        rows.append({"File_ID": f"[{i}]", "Split": split, "Joy": joy, "Fear": fear, "Subject": i})
    write_labels(folder / "labels.csv", rows)
    assert pack(folder / "videos", folder / "labels.csv", folder / "shards").exit_code == 0
    return folder


def arguments(corpus: Path, run: Path, *words: str) -> list[str]:
    """Of `viper train`."""
    given = [f"--train-shards={corpus}/shards/train-*.tar", f"--run-dir={run}", "--num-workers=0"]
    return ["--preset=micro", *given, *words]


def validated_arguments(corpus: Path, vit: Path, folder: Path, *more: str) -> list[str]:
    """Of a command that trains several runs on what a backbone sees, and compares them by validation."""
    own = ("--modalities=visual", f"--backbone=visual={vit}", f"--val-shards={corpus}/shards/val-*.tar")
    return arguments(corpus, folder, *own, *more)


def settings(corpus: Path, run: Path, *words: str) -> Settings:
    return parse_train(arguments(corpus, run, *words), "viper train")


def run(corpus: Path, folder: Path, *words: str) -> Path:
    assert train(settings(corpus, folder, *words)) == 0
    return folder


def weights(folder: Path, name: str = "last") -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "checkpoints" / name / "model.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max((one[name].double() - other[name].double()).abs().max().item() for name in one)


def lines(folder: Path, name: str) -> list[dict]:
    """Records of one of the run's logs."""
    path = folder / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def losses(folder: Path) -> list[float]:
    return [record["train_loss"] for record in lines(folder, "metrics.jsonl")]


def hook_trainings(monkeypatch: pytest.MonkeyPatch, hooks: TrainerHooks) -> None:
    """Whatever a command trains from here on has these, and no others."""
    monkeypatch.setattr(many_trainings, "open_trainer", partial(open_trainer, hooks=hooks))


def diverging(monkeypatch: pytest.MonkeyPatch, *folders: str) -> list[str]:
    """Runs in folders of these names give up at their first step. Returns the name of the run of each step."""
    stepping: list[str] = []

    def diverge(trainer: Trainer, _: object) -> None:
        stepping.append(trainer.run.folder.path.name)
        if trainer.run.folder.path.name in folders:
            trainer.run.guard.give_up("step 0: 3 steps in a row were not finite (NaN), no checkpoint yet")

    hook_trainings(monkeypatch, TrainerHooks(before_step=diverge))
    return stepping


def spoiled_steps(calls: range) -> TrainerHooks:
    """What the model gives out in these steps of a run, counted as they are made, is no number."""
    count, kept = iter(range(10_000)), []

    def bias(trainer: Trainer) -> torch.Tensor:
        return trainer.run.module.fusion.perceiver.to_logits[-1].bias.data

    def spoil(trainer: Trainer, _: object) -> None:
        if next(count) in calls:
            kept.append(bias(trainer).clone())
            bias(trainer).fill_(float("nan"))

    def mend(trainer: Trainer, _: object) -> None:
        if kept:
            bias(trainer).copy_(kept.pop())

    return TrainerHooks(before_step=spoil, after_step=mend)


def check_gradients_of_two_processes(
    fork_server: ForkServer, alone: list[str], shared: list[str], folder: Path, *step: int
) -> None:
    """Those of an optimizer step of one process, in float64, are those of two; some are far from 0."""
    files = [folder / "alone.pt", folder / "shared.pt"]
    one = fork_server.fork("record_gradients", alone, str(files[0]), "float64", *step)
    assert one.wait() == 0, one.said
    together(fork_server, "record_gradients", shared, str(files[1]), "float64", *step)
    compared = 0
    for ours, theirs in zip(*map(torch.load, files), strict=True):
        if ours is not None:
            assert (ours - theirs).abs().max() <= 1e-6
            compared += bool(ours.abs().max() > 1e-4)
    assert compared > 20
