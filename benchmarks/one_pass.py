"""one_pass.py: what many trainings cost beside one: seeds, sweeps, folds, subsets of modalities, ensembles.

    python benchmarks/one_pass.py --weights ../shared/weights --out runs/one_pass [--clips 160] [--epochs 10]
        [--only seeds,sweep,ablate,cv,ensemble]

The demo corpus (`datasets/demo.py`; CLIPS to train on, a quarter of that to validate) is made once under OUT,
and every command trains `--preset base` on frozen DINOv2-small, Whisper-tiny and, so that there are seven
subsets, a small VideoMAE of fixed random weights (T 16, crops of 112 pixels). "One training" is a run whose
clips are decoded and encoded once and held; "head alone" is a second run that finds all of them held: building
the model, learning, validating, saving. N trainings that shared everything would take one training and N − 1
heads alone (of subsets: the heads of the six smaller ones, each measured so); the last column is what they took
beside 1.15 trainings and these heads.

CPU seconds of all threads, decoding in the same process: on a machine that does other work they vary by a few
per cent, where the clock on the wall is of no use. Rows that are in OUT/one_pass.jsonl already, of as many
clips and epochs, are not measured again: the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import VideoMAEConfig, VideoMAEModel

from viper_e2e.commands import of_subset, parse_train, subsets_of
from viper_e2e.config import Settings
from viper_e2e.experiments import ManyTrainings, Trial
from viper_e2e.packing import pack
from viper_e2e.runtime import console, table

ROOT = Path(__file__).resolve().parent.parent
DINOV2, WHISPER = "dinov2-small", "whisper-tiny-en-encoder"
SIZES = ("--model.decoding.num-frames=16", "--model.visual.crop-size=112", "--model.decoding.max-side=320")
MODALITIES = ("visual", "audio", "motion")
NUM_FOLDS = 5
ALLOWED = 1.15


class Command(NamedTuple):
    shown: str
    num_trainings: int
    words: tuple[str, ...]


COMMANDS = {
    "seeds": Command("train --seeds 5", 5, ("train", "--seeds=5")),
    "sweep": Command(
        "sweep --random 20",
        20,
        # The words of `--range` end where the next option begins.
        ("sweep", "--random=20", "--range", "lr=log:1e-3..1e-2", "fusion.dropout=0..0.5"),
    ),
    "ablate": Command("ablate --retrain", len(subsets_of(MODALITIES)), ("ablate", "--retrain")),
    "cv": Command(f"cv --folds {NUM_FOLDS}", NUM_FOLDS, ("cv", f"--folds={NUM_FOLDS}")),
    "ensemble": Command("train --ensemble 5", 5, ("train", "--ensemble=5")),
}
"""Of cross-validation, the clips to train on and to validate are one set; a fifth of it is a fold, as large as
the set to validate, so that a fold is the one training again."""


class Cost(NamedTuple):
    cpu_seconds: float
    seconds: float


def cost_of(work: Callable[[], object]) -> Cost:
    """Of this process and of those that it waited for."""
    began = sum(os.times()[:4]), time.perf_counter()
    work()
    return Cost(sum(os.times()[:4]) - began[0], time.perf_counter() - began[1])


# --- what is trained ------------------------------------------------------------------------------


def make_corpus(out: Path, num_clips: int) -> None:
    if (out / "shards").exists():
        return
    counts = {"train": num_clips, "val": max(num_clips // 4, 4), "test": 4}
    words = [f"--{split}={count}" for split, count in counts.items()]
    subprocess.run(
        [sys.executable, ROOT / "datasets/demo.py", f"--out={out}/corpus", *words], check=True, cwd=ROOT
    )
    pack(out / "corpus/videos", out / "corpus/labels.csv", out / "shards")


def make_motion(folder: Path) -> None:
    """A video transformer that costs little. What it tells is of no interest here."""
    if (folder / "preprocessor_config.json").exists():
        return
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    model = VideoMAEModel(VideoMAEConfig(image_size=112, patch_size=16, num_frames=16, **sizes))
    model.save_pretrained(folder)
    preprocessor = {
        "image_processor_type": "VideoMAEImageProcessor",
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "size": {"shortest_edge": 112},
        "crop_size": {"height": 112, "width": 112},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))


def words_of(options: argparse.Namespace, run: str) -> list[str]:
    folder = options.out / "runs" / run
    shutil.rmtree(folder, ignore_errors=True)
    backbones = {
        "visual": options.weights / DINOV2,
        "audio": options.weights / WHISPER,
        "motion": options.out / "motion",
    }
    splits = {"train": "*"} if run == "cv" else {"train": "train-*", "val": "val-*"}
    return [
        *(f"--{split}-shards={options.out}/shards/{names}.tar" for split, names in splits.items()),
        *(f"--run-dir={folder}", "--preset=base", f"--modalities={','.join(MODALITIES)}", "--num-workers=0"),
        *(f"--backbone={name}={folder}" for name, folder in backbones.items()),
        *(*SIZES, "--mixed-precision=no", f"--epochs={options.epochs}"),
    ]


# --- what it costs --------------------------------------------------------------------------------


def one_and_heads(options: argparse.Namespace) -> dict[str, Cost]:
    """One training; another on the clips that it has left; and those of the smaller subsets, all together."""
    warm_up(options)
    first, second, whole = (
        parse_train([*words_of(options, f"one-{i}"), f"--seed={i}"], "one_pass") for i in range(3)
    )
    smaller = [
        Trial.of("+".join(subset), {}, of_subset(whole, subset)).settings
        for subset in subsets_of(MODALITIES)[1:]
    ]
    with ManyTrainings(first, command=["viper"]) as many:
        return {
            "one": cost_of(lambda: trained(many, first)),
            "head": cost_of(lambda: trained(many, second)),
            "subsets": cost_of(lambda: trained(many, *smaller)),
        }


def warm_up(options: argparse.Namespace) -> None:
    """What is loaded and compiled once in a process is nobody's."""
    warm = parse_train([*words_of(options, "warm"), "--max-steps=1"], "one_pass")
    with ManyTrainings(warm, command=["viper"], shares=False) as many:
        trained(many, warm)


def trained(many: ManyTrainings, *runs: Settings) -> None:
    for run in runs:
        if many.train(run) is None:
            raise SystemExit("stopped")


def run_command(options: argparse.Namespace, name: str) -> Cost:
    words = [sys.executable, "-m", "viper_e2e", *COMMANDS[name].words, *words_of(options, name)]
    return cost_of(lambda: subprocess.run(words, check=True, cwd=ROOT))


class Costs:
    """What was measured so far, in a file with a row for each."""

    def __init__(self, path: Path, **of: Any):
        """``of``: what all rows share that are to be compared."""
        self._path, self._of = path, of
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        rows = [json.loads(line) for line in lines]
        self._known = {
            row["name"]: Cost(row["cpu_seconds"], row["seconds"])
            for row in rows
            if all(row[name] == value for name, value in of.items())
        }

    def __contains__(self, name: str) -> bool:
        return name in self._known

    def __getitem__(self, name: str) -> Cost:
        return self._known[name]

    def add(self, name: str, cost: Cost) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"name": name, **self._of, **cost._asdict()}) + "\n")
        self._known[name] = cost
        console.print(f"{name}: {cost.cpu_seconds:.1f} CPU seconds in {cost.seconds:.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help=f"folder with {DINOV2} and {WHISPER}")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=160)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--only", default=",".join(COMMANDS))
    options = parser.parse_args()
    options.out, options.weights = options.out.resolve(), options.weights.resolve()
    options.out.mkdir(parents=True, exist_ok=True)
    make_corpus(options.out, options.clips)
    make_motion(options.out / "motion")
    costs = Costs(options.out / "one_pass.jsonl", clips=options.clips, epochs=options.epochs)
    if "subsets" not in costs:
        for name, cost in one_and_heads(options).items():
            costs.add(name, cost)
    for name in options.only.split(","):
        if name not in costs:
            costs.add(name, run_command(options, name))
    print_table(options, costs)


def print_table(options: argparse.Namespace, costs: Costs) -> None:
    one, head = costs["one"].cpu_seconds, costs["head"].cpu_seconds
    heads_of_subsets = costs["subsets"].cpu_seconds
    rows = [
        ("one training", 1, *told(costs["one"]), "1.00", f"{100 * head / one:.0f} %", ""),
        ("head alone", 1, *told(costs["head"]), f"{head / one:.2f}", "", ""),
    ]
    for name, (shown, count, _) in COMMANDS.items():
        if name not in costs:
            continue
        cost = costs[name].cpu_seconds
        more = heads_of_subsets if name == "ablate" else (count - 1) * head
        share, bound = f"{100 * (head + more) / cost:.0f} %", ALLOWED * one + more
        rows.append((shown, count, *told(costs[name]), f"{cost / one:.2f}", share, f"{cost / bound:.2f}"))
    columns = ("", "trainings", "CPU s", "s", "× one", "heads' share", "÷ (1.15 × one + heads)")
    console.print(table(f"{options.clips} clips, {options.epochs} epochs", columns, rows))


def told(cost: Cost) -> tuple[str, str]:
    return f"{cost.cpu_seconds:.1f}", f"{cost.seconds:.1f}"


if __name__ == "__main__":
    main()
