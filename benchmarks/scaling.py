"""scaling.py: time and memory against the length of a clip, the number of clips, the batch, the processes.

    python benchmarks/scaling.py [--part length,index,batch,processes]

`length`: decode and score one clip of 3 s to 30 min (the preset `tiny`, frozen). `index`: open 100 to 10,000
small clips in shards and compute an epoch's order. `batch`: forward and backward of 1 to 32 clips. Each
row is measured in a process of its own; CPU seconds and its peak resident memory. `processes`: `train.py` for
two epochs, alone and as two processes under torchrun, each of one thread.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
SECONDS = (3, 10, 60, 600, 1800)
COUNTS = (100, 1_000, 10_000)
BATCHES = (1, 4, 16, 32)


def peak_mb() -> float:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1e3


# --- what one process measures ------------------------------------------------------------------------


def score(path: str) -> dict[str, Any]:
    import torch
    from models import sized

    from viper_e2e.model import ViPER

    model = ViPER(sized("tiny")).eval()
    with torch.no_grad():
        model([path])
        since = time.process_time()
        model([path])
    return {"CPU s": time.process_time() - since, "frames decoded": model.decoder.frames_decoded}


def open_shards(pattern: str) -> dict[str, Any]:
    from viper_e2e.loading import EpochOrder
    from viper_e2e.shards import ShardSet

    since = time.process_time()
    shards = ShardSet(pattern)
    opened = time.process_time() - since
    since = time.process_time()
    order = EpochOrder(shards.shard_sizes, seed=0, epoch=0, shuffle=True, shuffle_window=2048)
    first = order[0]
    ordered = time.process_time() - since
    since = time.process_time()
    shards.read(first)
    return {"open, CPU s": opened, "order, CPU s": ordered, "read one, CPU s": time.process_time() - since}


def step(path: str, batch_size: str) -> dict[str, Any]:
    import torch

    from viper_e2e.config import PRESETS
    from viper_e2e.model import ViPER

    torch.manual_seed(0)
    model = ViPER(PRESETS["tiny"]()).train()
    clips = [model.decoder(path)] * int(batch_size)
    model(clips).intensities.sum().backward()
    since = time.process_time()
    model(clips).intensities.sum().backward()
    return {"CPU s per clip": (time.process_time() - since) / int(batch_size)}


PARTS = {"score": score, "open_shards": open_shards, "step": step}


def alone(part: str, *words: str) -> dict[str, Any]:
    """Run a part in a process of its own."""
    command = [sys.executable, __file__, "--serve", part, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


# --- tables -------------------------------------------------------------------------------------------


def show(console: Console, title: str, rows: dict[str, dict[str, Any]]) -> None:
    table = Table("", *next(iter(rows.values())), title=title)
    for name, row in rows.items():
        table.add_row(name, *(f"{v:.3g}" if isinstance(v, float) else f"{v:,}" for v in row.values()))
    console.print(table)


def lengths(console: Console, folder: Path) -> None:
    from clips import lengthen, make_clip

    short = make_clip(folder / "short.mp4", 360, 10, face=True)
    rows = {}
    for seconds in SECONDS:
        path = folder / f"{seconds}.mp4"
        if seconds < 10:
            make_clip(path, 360, seconds, face=True)
        else:
            lengthen(short, path, seconds // 10)
        rows[f"{seconds} s"] = alone("score", str(path))
    show(console, "one clip, decoded and scored: x264, 360p, GOP 60", rows)


def counts(console: Console, folder: Path) -> None:
    from viper_e2e.labels import HUME_REACTION
    from viper_e2e.shards import ShardWriter

    rows, rng = {}, np.random.default_rng(0)
    for count in COUNTS:
        (target := folder / str(count)).mkdir()
        with ShardWriter(target, "train", HUME_REACTION, shard_size=2 * 10**6) as writer:
            for i in range(count):
                values = tuple(rng.random(len(HUME_REACTION)).round(3).tolist())
                writer.add(f"{i:06d}", {"mp4": b"\0" * 2_000}, file_id=f"[{i}]", intensities=values)
        rows[f"{count:,}"] = alone("open_shards", f"{target}/train-*.tar")
    show(console, "shards of small clips", rows)


def batches(console: Console, folder: Path) -> None:
    from clips import make_clip

    path = make_clip(folder / "batch.mp4", 360, 10, face=True)
    show(
        console,
        "forward and backward, preset tiny, all trained",
        {f"{size} clips": alone("step", str(path), str(size)) for size in BATCHES},
    )


def processes(console: Console, folder: Path) -> None:
    from staged import make_corpus

    num_clips = 96  # enough for what the start costs not to be most of it
    make_corpus(folder / "corpus", num_clips, 360, 10)
    rows = {}
    for count in (1, 2):
        words = [f"--train-shards={folder}/corpus/shards/train-*.tar", f"--run-dir={folder}/run{count}"]
        words += ["--preset=tiny", "--epochs=2", f"--batch-size={8 // count}", "--num-workers=1"]
        start = (
            ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"] if count > 1 else []
        )
        since = time.perf_counter()
        done = subprocess.run(
            [sys.executable, *start, str(ROOT / "train.py"), *words],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1"},
        )
        if done.returncode:
            raise SystemExit(done.stderr)
        losses = [json.loads(line) for line in (folder / f"run{count}/metrics.jsonl").read_text().splitlines()]
        rows[f"{count}"] = {"wall s": time.perf_counter() - since, "loss": losses[-1]["train_loss"]}
    title = f"train.py, tiny, {num_clips} clips, 2 epochs, global batch 8; start of Python included"
    show(console, title, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--part", default="length,index,batch,processes")
    parser.add_argument("--serve", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        logging.disable(logging.WARNING)
        part, *words = args.serve
        result = PARTS[part](*words)
        print(json.dumps({**result, "peak MB": round(peak_mb())}))
        return
    console = Console(width=120)
    console.print(f"{time.strftime('%Y-%m-%d')}, {len(os.sched_getaffinity(0))} cores")
    parts = {"length": lengths, "index": counts, "batch": batches, "processes": processes}
    for name in args.part.split(","):
        with tempfile.TemporaryDirectory() as folder:
            parts[name](console, Path(folder))


if __name__ == "__main__":
    main()
