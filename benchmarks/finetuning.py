"""finetuning.py: what training the backbones is worth: head alone, last two blocks, all, all with decay.

    python benchmarks/finetuning.py --shards demo/shards --weights ../shared/weights --out runs/finetuning \\
        [--num-train 96] [--num-val 60] [--epochs 10] [--joint-epochs 2] [--seeds 3] [--only a,b]

DINOv2-small and Whisper-tiny under the token fusion, T 8, face crops of 112 pixels, bf16. First the head is
trained on frozen backbones, then, in the last epochs, backbones with it (Kumar et al. 2022, "Fine-Tuning can
Distort Pretrained Features"); the same clips, steps and learning rates for all. Per setting and seed the last
epoch's mean Pearson r on the validation clips counts, so that nothing is chosen by looking at them. After each
run exactly the named tensors must have changed.

Runs that are there already are not run again, and one that was stopped goes on: the same command continues.
Calls with different settings (`--only`) may run at the same time.
Results are in OUT/finetuning.json; the table is printed at the end. The intervals are Student's t over
seeds (they say how much seeds matter, not how much clips do; those are in the JSON, by bootstrap).
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from accelerate import Accelerator
from rich.console import Console

from viper_e2e.commands import parse_train
from viper_e2e.config import Settings
from viper_e2e.model import ViPER
from viper_e2e.runtime import table
from viper_e2e.scoring import bootstrap, scores_of
from viper_e2e.shards import ShardSet, ShardWriter
from viper_e2e.training import Trainer

DINOV2, WHISPER = "dinov2-small", "whisper-tiny-en-encoder"
VARIANTS = {
    "a": ("head on frozen backbones", None, 1.0, r"(?!)"),
    "b": ("last 2 blocks", "2", 1.0, r"(layer\.1[01]|layers\.[23])\."),
    "c": ("all", "all", 1.0, r""),
    "d": ("all, layer decay 0.75", "all", 0.75, r""),
}
"""Name, depth, layer decay, and which tensors of the backbones may change (and each of them must)."""
NEVER_READ = r"mask_token|embed_positions"
"""Of the backbones: what no forward pass trains."""
STUDENT_T = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
"""Two-sided 95 % by number of seeds."""


def subset(shards: ShardSet, count: int, folder: Path, split: str) -> str:
    """The first clips of a split in a shard of their own; written once."""
    done = folder / f"{split}-{count}"
    if not done.is_dir():
        scratch = done.with_name(done.name + ".new")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        with ShardWriter(scratch, split, shards.labels, shard_size=10**9) as writer:
            for i in range(min(count, len(shards))):
                sample = shards.read(i)
                sound = {} if sample.sound is None else {"wav": sample.sound}
                writer.add(
                    sample.key,
                    {"mp4": sample.video, **sound},
                    file_id=sample.file_id,
                    intensities=sample.intensities,
                    subject=sample.subject,
                )
        scratch.rename(done)
    return f"{done}/{split}-*.tar"


def settings_of(options: argparse.Namespace, variant: str, seed: int, train: str, val: str) -> Settings:
    run, (_, depth, decay, _) = options.out / f"{variant}-{seed}", VARIANTS[variant]
    joint_from = options.epochs - options.joint_epochs
    phases = [f"--unfreeze-at={joint_from}:visual={depth},{joint_from}:audio={depth}"] if depth else []
    words = [
        "--preset=base",
        "--modalities=visual,audio",
        f"--backbone=visual={options.weights / DINOV2}",
        f"--backbone=audio={options.weights / WHISPER}",
        f"--train-shards={train}",
        f"--val-shards={val}",
        f"--run-dir={run}",
        f"--seed={seed}",
        f"--epochs={options.epochs}",
        f"--batch-size={options.batch_size}",
        "--num-workers=1",
        "--mixed-precision=bf16",
        "--lr=0.001",
        f"--backbone-lr={options.backbone_lr}",
        "--reuse-memory=3GB",
        "--model.decoding.num-frames=8",
        "--model.decoding.max-side=320",
        "--model.visual.crop-size=112",
        f"--layer-decay={decay}",
        *phases,
    ]
    return parse_train([*words, *(["--resume"] if run.is_dir() else [])], "finetuning.py")


def run_one(options: argparse.Namespace, variant: str, seed: int, train: str, val: str) -> dict[str, Any]:
    settings = settings_of(options, variant, seed, train, val)
    torch.manual_seed(seed)
    fresh = {name: tensor.clone() for name, tensor in ViPER(settings.model).state_dict().items()}
    trainer = Trainer(settings, Accelerator(cpu=True))
    try:
        if code := trainer.train():
            raise SystemExit(code)
        predictions = trainer.predictions
        if predictions is None:
            # Trained to the end by an earlier call, which did not live to write it down.
            trainer._end_epoch()
            predictions = trainer.predictions
        num_changed = check_changed(fresh, trainer.module.state_dict(), VARIANTS[variant][3])
    finally:
        trainer.close()
    scored = predictions.scored
    intervals = bootstrap(predictions.predicted[scored], predictions.true[scored])
    return {
        "mean_pearson": scores_of(predictions).mean_pearson,
        "bootstrap": asdict(intervals)["mean_pearson"],
        "clips": int(scored.sum()),
        "changed_backbone_tensors": num_changed,
    }


def check_changed(before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor], named: str) -> int:
    """Exactly the named tensors of the backbones have changed; returns how many."""
    backbones = [name for name in before if name.startswith("encoders.")]
    # Frozen weights are stored in bf16: rounded, they must be what they were.
    changed = {name for name in backbones if not torch.equal(before[name].to(after[name].dtype), after[name])}
    wanted = {name for name in backbones if re.search(named, name) and not re.search(NEVER_READ, name)}
    # The softmax of attention cancels what is added to all keys: their biases have no gradient but rounding.
    wrong = {
        name for name in changed ^ wanted if name in changed or not re.search(r"\bk(ey|_proj)\.bias$", name)
    }
    assert not wrong, f"changed or not against the setting: {sorted(wrong)[:5]}"
    return len(changed)


def finished(file: Path) -> dict[str, Any]:
    """What is there already, of another call that runs at the same time too."""
    return json.loads(file.read_text(encoding="utf-8"))["runs"] if file.is_file() else {}


def summary(results: Mapping[str, Any]) -> list[tuple[str, ...]]:
    rows = []
    for variant, (name, *_) in VARIANTS.items():
        by_seed = _by_seed(results, variant)
        against = {
            seed: value - alone
            for seed, alone in _by_seed(results, "a").items()
            if (value := by_seed.get(seed))
        }
        if by_seed:
            each = " ".join(f"{value:.3f}" for value in by_seed.values())
            rows.append(
                (f"({variant}) {name}", _told([*by_seed.values()]), each, _told([*against.values()], "+"))
            )
    return rows


def _by_seed(results: Mapping[str, Any], variant: str) -> dict[str, float]:
    return {key[2:]: results[key]["mean_pearson"] for key in sorted(results) if key.startswith(f"{variant}-")}


def _told(values: Sequence[float], sign: str = "") -> str:
    """Mean, with its 95 % interval where there are several values."""
    if not values:
        return "–"
    text = f"{fmean(values):{sign}.3f}"
    if len(values) in STUDENT_T:
        text += f" ± {STUDENT_T[len(values)] * stdev(values) / len(values) ** 0.5:.3f}"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=Path, required=True, help="folder with train-*.tar and val-*.tar")
    parser.add_argument("--weights", type=Path, required=True, help=f"folder with {DINOV2} and {WHISPER}")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--num-train", type=int, default=96)
    parser.add_argument("--num-val", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--joint-epochs", type=int, default=2, help="the last ones, with the backbones")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--backbone-lr", type=float, default=1e-4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default=",".join(VARIANTS), help="which settings, e.g. a,b")
    options = parser.parse_args()
    train = subset(ShardSet(f"{options.shards}/train-*.tar"), options.num_train, options.out, "train")
    val = subset(ShardSet(f"{options.shards}/val-*.tar"), options.num_val, options.out, "val")
    file = options.out / "finetuning.json"
    for seed in range(options.seeds):
        for variant in options.only.split(","):
            if f"{variant}-{seed}" in finished(file):
                continue
            result = run_one(options, variant, seed, train, val)
            results = finished(file) | {f"{variant}-{seed}": result}
            about = {key: str(value) for key, value in vars(options).items()}
            about |= {"torch": torch.__version__, "machine": platform.machine()}
            content = json.dumps({"about": about, "runs": results}, indent=2) + "\n"
            file.write_text(content, encoding="utf-8")
    title = f"mean Pearson r, {options.num_train} clips to train on, {options.epochs} epochs"
    columns = ("trained", "mean", "each seed", "less (a), by seed")
    Console().print(table(title, columns, summary(finished(file))))


if __name__ == "__main__":
    main()
