"""one_pass.py: what many trainings cost beside one: seeds, sweeps, subsets of modalities, members of a model.

    python benchmarks/one_pass.py --weights ../shared/weights --out runs/one_pass [--clips 160] [--epochs 10]
        [--only seeds,sweep,ablate]

The demo corpus (`datasets/demo.py`; CLIPS to train on, a quarter of that to validate) is made once under OUT,
and every command trains `--preset base` on frozen DINOv2-small and Whisper-tiny (T 16, crops of 112 pixels).
"One training" is a run whose clips are decoded and encoded once and held; "head alone" is a second run that
finds all of them held: building the model, learning, validating, saving. N trainings that shared everything
would take one training and N − 1 heads alone; the last column is what they took beside 1.15 trainings and these
heads.

CPU seconds of all threads, decoding in the same process: on a machine that does other work they vary by a few
per cent, where the clock on the wall is of no use.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from viper_e2e.commands import parse_train
from viper_e2e.packing import pack
from viper_e2e.runtime import console, table
from viper_e2e.training import ManyTrainings

ROOT = Path(__file__).resolve().parent.parent
DINOV2, WHISPER = "dinov2-small", "whisper-tiny-en-encoder"
SIZES = ("--model.decoding.num-frames=16", "--model.visual.crop-size=112", "--model.decoding.max-side=320")
COMMANDS: dict[str, tuple[str, int, tuple[str, ...]]] = {
    "seeds": ("train --seeds 5", 5, ("train", "--seeds=5")),
    "sweep": (
        "sweep --random 20",
        20,
        ("sweep", "--random=20", "--range", "lr=log:1e-3..1e-2", "fusion.dropout=0..0.5"),
    ),
    "ablate": ("ablate --retrain", 3, ("ablate", "--retrain")),
}
"""Name → how it is shown, how many trainings it makes, its words."""
ALLOWED = 1.15


class Cost(NamedTuple):
    cpu_seconds: float
    seconds: float


def cost_of(work: Callable[[], None]) -> Cost:
    """Of this process and of those that it waited for."""
    began = sum(os.times()[:4]), time.perf_counter()
    work()
    return Cost(sum(os.times()[:4]) - began[0], time.perf_counter() - began[1])


def make_corpus(out: Path, num_clips: int) -> None:
    if (out / "shards").exists():
        return
    counts = {"train": num_clips, "val": max(num_clips // 4, 4), "test": 4}
    words = [f"--{split}={count}" for split, count in counts.items()]
    subprocess.run(
        [sys.executable, ROOT / "datasets/demo.py", f"--out={out}/corpus", *words], check=True, cwd=ROOT
    )
    pack(out / "corpus/videos", out / "corpus/labels.csv", out / "shards")


def words_of(options: argparse.Namespace, run: str) -> list[str]:
    folder = options.out / "runs" / run
    shutil.rmtree(folder, ignore_errors=True)
    return [
        *(f"--{split}-shards={options.out}/shards/{split}-*.tar" for split in ("train", "val")),
        *(f"--run-dir={folder}", "--preset=base", "--modalities=visual,audio", "--num-workers=0"),
        *(f"--backbone=visual={options.weights / DINOV2}", f"--backbone=audio={options.weights / WHISPER}"),
        *(*SIZES, "--mixed-precision=no", f"--epochs={options.epochs}"),
    ]


def one_and_heads(options: argparse.Namespace) -> tuple[Cost, Cost]:
    """One training, and another on the clips that it has left."""
    first, second = (parse_train([*words_of(options, f"one-{i}"), f"--seed={i}"], "one_pass") for i in (0, 1))
    with ManyTrainings(first, command=["viper"]) as many:
        return cost_of(lambda: _ended(many.train(first))), cost_of(lambda: _ended(many.train(second)))


def _ended(outcome: object) -> None:
    if outcome is None:
        raise SystemExit("stopped")


def run_command(options: argparse.Namespace, name: str) -> Cost:
    command, *own = COMMANDS[name][2]

    # The words of `--range` end where the next option begins.
    words = [sys.executable, "-m", "viper_e2e", command, *own, *words_of(options, name)]
    return cost_of(lambda: subprocess.run(words, check=True, cwd=ROOT) and None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help=f"folder with {DINOV2} and {WHISPER}")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=160)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--only", default=",".join(COMMANDS))
    options = parser.parse_args()
    make_corpus(options.out, options.clips)
    # What is loaded and compiled once in a process is nobody's.
    warm = parse_train([*words_of(options, "warm"), "--max-steps=1"], "one_pass")
    with ManyTrainings(warm, command=["viper"], shares=False) as many:
        many.train(warm)
    one, head = one_and_heads(options)
    rows = [
        ("one training", 1, *_told(one), "1.00", "", ""),
        ("head alone", 1, *_told(head), _ratio(head, one), "", ""),
    ]
    for name in options.only.split(","):
        shown, count, _ = COMMANDS[name]
        cost = run_command(options, name)
        heads = (count - 1) * head.cpu_seconds
        bound = ALLOWED * one.cpu_seconds + heads
        share = f"{100 * count * head.cpu_seconds / cost.cpu_seconds:.0f} %"
        rows.append((shown, count, *_told(cost), _ratio(cost, one), share, f"{cost.cpu_seconds / bound:.2f}"))
    columns = ("", "trainings", "CPU s", "s", "× one", "heads' share", "÷ (1.15 × one + heads)")
    console.print(table(f"{options.clips} clips, {options.epochs} epochs", columns, rows))


def _told(cost: Cost) -> tuple[str, str]:
    return f"{cost.cpu_seconds:.1f}", f"{cost.seconds:.1f}"


def _ratio(cost: Cost, one: Cost) -> str:
    return f"{cost.cpu_seconds / one.cpu_seconds:.2f}"


if __name__ == "__main__":
    main()
