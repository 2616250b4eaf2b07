"""learning.py: what is learned from few clips: the head and recipe against a ridge on the same tokens.

    python benchmarks/learning.py --weights ../shared/weights --out runs/learning
        [--clips 64,160,320,640] [--seeds 3] [--only ridge,default] [--epochs 20] [--plot docs/learning.svg]

The demo corpus (`datasets/demo.py`, 640 training clips, 60 for validation, 160 for test; nobody is in two
splits) is made once under OUT, and its clips pass once through frozen DINOv2-small and Whisper-tiny (T 16,
crops of 112 pixels, float32; kept in OUT/tokens.pt). Every variant then trains, by the product's own trainer
and `--preset base`, on those tokens in memory: on the columns that its settings would have read (`VARIANTS`).
Clips 1 to N of the corpus are the corpus of N clips. `FINE_TUNED` begins on those tokens and goes on from the
shards: what comes before trained blocks is made in the first epoch that trains them, once for all runs of a
call (2 GB). `JOINED` is the model that `--ensemble 5` would write. `END_TO_END` trains from the shards alone,
which takes hours where the others take minutes. These three are run only where `--only` names them.

A row is the mean Pearson correlation over the emotions on the test clips, of the checkpoint that validated
best. Its interval is by bootstrap over test subjects, of the predictions of the first seed. Rows that are in
OUT/learning.jsonl already are not trained again: the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from learning_report import draw, print_table
from learning_variants import ALL, END_TO_END, FINE_TUNED, JOINED, MEMBERS, VARIANTS, Variant

from viper_e2e.commands import parse_train
from viper_e2e.config import FINE_TUNED_SHARE, Settings, Size
from viper_e2e.encoders import PreparedClip, TokenCache
from viper_e2e.errors import ClipError
from viper_e2e.experiments import join
from viper_e2e.loading import ClipKey
from viper_e2e.model import ViPER, ViPEROutput
from viper_e2e.packing import pack
from viper_e2e.runtime import Processes, console
from viper_e2e.runtime import counting as progress_bar
from viper_e2e.shards import ShardSet
from viper_e2e.training import SharedClips, hold, open_trainer

BACKBONES = {"visual": "dinov2-small", "audio": "whisper-tiny-en-encoder"}
ROOT = Path(__file__).resolve().parent.parent
SHARED = Size.parse("8GB")
CLIPS = {"train": 640, "val": 60, "test": 160}
SIZES = ("--model.decoding.num-frames=16", "--model.visual.crop-size=112", "--model.decoding.max-side=320")


# --- tokens ---------------------------------------------------------------------------------------


def settings_of(options: argparse.Namespace, variant: Variant, run: Path, train: str, *words: str) -> Settings:
    given = [
        f"--preset={variant.preset}",
        f"--modalities={','.join(variant.modalities)}",
        f"--train-shards={train}",
        f"--val-shards={options.out}/shards/val-*.tar",
        f"--run-dir={run}",
        "--num-workers=0",
        f"--mixed-precision={options.mixed_precision}",
        *words,
    ]
    if variant.preset == "base":
        given += [f"--backbone={name}={options.weights / BACKBONES[name]}" for name in variant.modalities]
        given += SIZES
    first = options.epochs - max(1, round(FINE_TUNED_SHARE * options.epochs))
    given += [word.format(first=first) for word in variant.words]
    if variant in FINE_TUNED.values():
        given.append(f"--epochs={options.epochs}")
    settings = parse_train(given, "learning.py")
    # Not among the words, which a ridge would refuse.
    train = replace(settings.train, epochs=options.epochs, reuse_memory=Size.parse("8GB"))
    return replace(settings, train=train)


def tokens_of(options: argparse.Namespace) -> dict[str, dict[str, PreparedClip]]:
    """As `encode`, once per OUT: the file is this script's own, of its own making."""
    file = options.out / "tokens.pt"
    if not file.exists():
        torch.save(encode(options), file)
    return torch.load(file, weights_only=False)


def encode(options: argparse.Namespace) -> dict[str, dict[str, PreparedClip]]:
    """Split → key → the clip, reduced to its tokens of all layers that any variant reads."""
    everything = f"{options.out}/shards/train-*.tar"
    model = ViPER(settings_of(options, VARIANTS["default"], options.out / "none", everything).model).eval()
    clips: dict[str, dict[str, PreparedClip]] = {split: {} for split in CLIPS}
    with progress_bar("encoding") as progress:
        done = 0
        for split in clips:
            shards = ShardSet(f"{options.out}/shards/{split}-*.tar")
            for i in range(len(shards)):
                (clip,) = model.prepare(shards.read(i))
                if isinstance(clip, ClipError):
                    raise SystemExit(str(clip))
                cache = TokenCache()
                with torch.no_grad():
                    model([clip], cache=cache)
                clips[split][shards.entry(i).key] = model.cacheable(clip, cache)
                progress(done := done + 1, sum(CLIPS.values()))
    return clips


def last_alone_columns(name: str, width: int) -> slice:
    """Where in tokens of the preset's layers those of `LAST_ALONE` stand.

    Visual tokens are the class token of three layers, then the patch mean of three; sound's are two layers.
    """
    return slice(width // 3, width // 2) if name == "visual" else slice(width // 2, width)


def adopted(clip: PreparedClip, module: ViPER, *, last_alone: bool) -> PreparedClip:
    """For another model with the same frozen weights; ``last_alone``: the columns that `LAST_ALONE` reads."""
    tokens = dict(clip.tokens)
    if last_alone:
        for name, made in clip.tokens.items():
            columns = last_alone_columns(name, made.tokens.shape[1])
            tokens[name] = made._replace(tokens=made.tokens[:, columns].contiguous())
    owners = {name: encoder.weights_id() for name, encoder in module.encoders.items()}
    return replace(clip, tokens=tokens, made_by=owners)


# --- one row --------------------------------------------------------------------------------------


def train_one(
    options: argparse.Namespace,
    key: str,
    num_clips: int,
    seed: int,
    clips: Mapping[str, Any],
    shared: SharedClips,
) -> dict[str, Any]:
    """``clips``: of `encode`; what is in `END_TO_END` reads the shards instead, what is in `FINE_TUNED` both.
    ``shared``: what the runs of these hold in common."""
    if key in JOINED:
        return train_joined(options, num_clips, clips, shared)
    variant, begins_frozen = ALL[key], key in VARIANTS
    run = options.out / f"run-{key}-{num_clips}-{seed}"
    shutil.rmtree(run, ignore_errors=True)
    settings = settings_of(options, variant, run, subset(options.out, num_clips), f"--seed={seed}")
    began = time.perf_counter()
    trainer = open_trainer(settings, Accelerator(cpu=True), clips=shared if key in FINE_TUNED else None)
    if key in FINE_TUNED:
        begins_frozen = all(encoder.is_frozen for encoder in trainer.run.module.encoders.values())
    try:
        splits = {"train": trainer.run.train_shards, "val": trainer.run.val_shards} if begins_frozen else {}
        for split, shards in splits.items():
            for name in (shards.entry(i).key for i in range(len(shards))):
                clip = adopted(clips[split][name], trainer.run.module, last_alone=variant.is_old)
                trainer.run.clip_cache.offer(ClipKey(split, name), clip)
        if code := trainer.train():
            raise SystemExit(code)
    finally:
        trainer.close()
    seconds = time.perf_counter() - began
    model = ViPER.from_pretrained(trainer.run.folder.best).eval()
    test = ShardSet(f"{options.out}/shards/test-*.tar")
    if key in VARIANTS:
        batch = [
            adopted(clips["test"][test.entry(i).key], model, last_alone=variant.is_old)
            for i in range(len(test))
        ]
        predicted = intensities_of(model, batch)
    elif key in FINE_TUNED:
        predicted = held_intensities(model, trainer.run.module, shared, test)
    else:
        predicted = intensities_of(model, [test.read(i) for i in range(len(test))])
    yardsticks = [
        line["yardstick"] for line in trainer.run.folder.read_log("metrics.jsonl") if "yardstick" in line
    ]
    return {
        **scores(predicted, test),
        "val": trainer.state.best["best"],
        "yardstick_val": yardsticks[-1].get("mean_pearson") if yardsticks else None,
        "parameters": sum(p.numel() for p in model.fusion.parameters()),
        "seconds": seconds,
    }


def train_joined(
    options: argparse.Namespace, num_clips: int, clips: Mapping[str, Any], shared: SharedClips
) -> dict[str, Any]:
    """The default of `MEMBERS` seeds, each as `train_one`, as one model."""
    rows = [train_one(options, "default", num_clips, seed, clips, shared) for seed in range(MEMBERS)]
    members = [options.out / f"run-default-{num_clips}-{seed}/checkpoints/best" for seed in range(MEMBERS)]
    target = options.out / f"run-ensemble-{num_clips}/checkpoints/best"
    shutil.rmtree(target, ignore_errors=True)
    join(members, (), target, Processes(Accelerator(cpu=True)))
    model = ViPER.from_pretrained(target).eval()
    test = ShardSet(f"{options.out}/shards/test-*.tar")
    batch = [adopted(clips["test"][test.entry(i).key], model, last_alone=False) for i in range(len(test))]
    return {
        **scores(intensities_of(model, batch), test),
        "val": None,
        "yardstick_val": rows[0]["yardstick_val"],
        "parameters": sum(p.numel() for p in model.fusion.parameters()),
        "seconds": sum(row["seconds"] for row in rows),
    }


def scores(predicted: np.ndarray, test: ShardSet) -> dict[str, Any]:
    true = np.array([test.entry(i).intensities for i in range(len(test))])
    subjects = [test.entry(i).subject for i in range(len(test))]
    return {
        "mean_pearson": mean_pearson(predicted, true),
        "interval": interval(predicted, true, subjects),
    }


@torch.no_grad()
def intensities_of(model: Callable[[Sequence[Any]], ViPEROutput], clips: Sequence[Any]) -> np.ndarray:
    return torch.cat([model(clips[i : i + 16]).intensities for i in range(0, len(clips), 16)]).numpy()


@torch.no_grad()
def held_intensities(model: ViPER, trained: ViPER, shared: SharedClips, test: ShardSet) -> np.ndarray:
    """Of all clips, each passed through what comes before the trained blocks once for all runs of a call.

    ``trained``: whose backbones have ended training as deep as those of the model may have.
    """
    for name, backbone in trained.backbones.items():
        model.backbones[name].set_training_depth(backbone.depth)
    model.set_compute_dtype(torch.float32)
    held, made = shared.of(test), []
    held.begin(model.eval())
    for i in range(len(test)):
        key, cache = ClipKey("train", test.entry(i).key), TokenCache()
        (clip,) = model.prepare([held.get(key) or test.read(i)])
        made.append(model([clip], cache=cache).intensities)
        if key not in held and isinstance(clip, PreparedClip):
            hold(held, model, key, clip, cache)
    return torch.cat(made).numpy()


def subset(out: Path, num_clips: int) -> str:
    """A pattern of shards that hold the first so many training clips: packed with that many in each."""
    return f"{out}/shards-{num_clips}/train-*.tar"


def mean_pearson(predicted: np.ndarray, true: np.ndarray) -> float:
    return float(np.mean([np.corrcoef(p, t)[0, 1] for p, t in zip(predicted.T, true.T, strict=True)]))


def interval(predicted: np.ndarray, true: np.ndarray, subjects: Sequence[str]) -> tuple[float, float]:
    """95 % by bootstrap over subjects, all clips of a drawn one together."""
    rng, names = np.random.default_rng(0), np.array(subjects)
    of = [np.flatnonzero(names == name) for name in sorted(set(subjects))]
    draws = []
    for _ in range(500):
        rows = np.concatenate([of[i] for i in rng.integers(len(of), size=len(of))])
        draws.append(mean_pearson(predicted[rows], true[rows]))
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


# --- corpus and rows --------------------------------------------------------------------------


def make_corpus(options: argparse.Namespace) -> None:
    """The demo corpus, and shards of its first clips for each size; what is there is left as it is."""
    corpus = options.out / "corpus"
    if not (corpus / "labels.csv").exists():
        counts = [f"--{split}={count}" for split, count in CLIPS.items()]
        subprocess.run([sys.executable, ROOT / "datasets/demo.py", "--out", corpus, *counts], check=True)
    header, *rows = (corpus / "labels.csv").read_text(encoding="utf-8").splitlines()
    for num_clips in (*options.clips, None):
        folder = options.out / ("shards" if num_clips is None else f"shards-{num_clips}")
        if folder.exists():
            continue
        train = [row for row in rows if row.split(",")[1] == "train"][:num_clips]
        others = [row for row in rows if row.split(",")[1] != "train"]
        labels = options.out / "labels.csv"
        labels.write_text("\n".join([header, *train, *others]) + "\n", encoding="utf-8")
        if report := pack(corpus / "videos", labels, folder).exit_code:
            raise SystemExit(report)


def known(file: Path) -> dict[str, dict[str, Any]]:
    """Rows by key that this or another call has measured."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return {row["key"]: row for row in map(json.loads, lines)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--weights", type=Path, required=True, help=f"folder with {' and '.join(BACKBONES.values())}"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--clips", default="64,160,320,640", help="numbers of training clips")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument(
        "--mixed-precision",
        default="no",
        choices=("no", "bf16"),
        help="of backbones that are trained, which bf16 halves the time of; use one OUT for each",
    )
    parser.add_argument("--only", default=",".join(VARIANTS), help=f"some of {', '.join(ALL)}")
    parser.add_argument("--plot", type=Path, help="where the plot goes, e.g. docs/learning.svg")
    options = parser.parse_args()
    options.clips = [int(number) for number in options.clips.split(",")]
    if unknown := [key for key in options.only.split(",") if key not in ALL]:
        parser.error(f"--only {','.join(unknown)}: there is no such row; there are {', '.join(ALL)}")
    options.out.mkdir(parents=True, exist_ok=True)
    make_corpus(options)
    file = options.out / "learning.jsonl"
    results = known(file)
    missing = [
        (key, n, seed)
        for key in options.only.split(",")
        for seed in range(options.seeds)
        for n in options.clips
        # A closed form knows no seed; joined heads are of several.
        if f"{key}/{n}/{seed}" not in results and not (seed and ("ridge" in key or key in JOINED))
    ]
    clips = tokens_of(options) if any(key not in END_TO_END for key, *_ in missing) else {}
    shared = SharedClips(SHARED.num_bytes)
    for key, n, seed in missing:
        # Another call may have come to it in the meantime.
        if f"{key}/{n}/{seed}" in known(file):
            continue
        row = {"key": f"{key}/{n}/{seed}", **train_one(options, key, n, seed, clips, shared)}
        with file.open("a", encoding="utf-8") as log:
            log.write(json.dumps(row) + "\n")
        console.print(f"{row['key']}: {row['mean_pearson']:.4f} in {row['seconds']:.0f} s")
    results = known(file)
    print_table(options, results)
    if options.plot is not None:
        draw(options, results)


if __name__ == "__main__":
    main()
