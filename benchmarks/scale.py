"""scale.py: seconds and peak memory of opening ten million clips and walking their order.

    python benchmarks/scale.py [--clips 10000000] [--shard-clips 100000] [--workers 2]

Shards are simulated: indexes with seven labels, a subject and an mp4 for each clip, beside tars that are
holes. Each row is a process of its own: `start` is what `viper train` does of it before the first batch
(indexes, labels, doubled keys, what is shared with 10,000 validation clips, what tells the shards by content,
the epoch's order and its first batch); `resume` the same from the middle of the epoch; `walk` goes through the
whole order. `json` is one shard by an index that has no columns beside it, for comparison. Memory is the peak
of resident memory, files that are mapped included; what importing takes is told apart.
"""

from __future__ import annotations

import argparse
import platform
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

LABELS = ("Adoration", "Amusement", "Anxiety", "Disgust", "Empathic-Pain", "Fear", "Surprise")


def make_shard(path: Path, number: int, num_clips: int, *, with_columns: bool = True) -> int:
    """A tar that is a hole, and its index; bytes of what was written beside it."""
    from viper_e2e.labels import LabelSet
    from viper_e2e.shards import (
        Coded,
        Columns,
        MemberColumn,
        SampleTable,
        ShardIndex,
        Texts,
        columns_path,
        columns_to_bytes,
        index_path,
        index_to_json,
    )

    random = np.random.default_rng(number)
    sizes = random.integers(200_000, 2_000_000, num_clips)
    offsets = 512 + np.concatenate([[0], np.cumsum((sizes + 1535) // 512 * 512)[:-1]])
    hashes = random.integers(0, 256, (num_clips, 32), dtype=np.uint8)
    subjects = [f"s{subject}" for subject in random.integers(0, 50_000, num_clips)]
    columns = Columns(
        Texts.of([f"clip{number * num_clips + i:09d}" for i in range(num_clips)]),
        None,
        {"mp4": MemberColumn(offsets, sizes, hashes)},
        random.random((num_clips, len(LABELS))),
        np.ones(num_clips, bool),
        Coded.of(subjects),
        {},
        {},
    )
    size = int(offsets[-1] + sizes[-1]) // 512 * 512 + 2048
    with path.open("wb") as file:
        file.truncate(size)
    index = ShardIndex(str(path), size, SampleTable(columns), LabelSet(LABELS), "train")
    if not with_columns:
        content = index_to_json(index)
        Path(index_path(str(path))).write_bytes(content)
        return len(content)
    # The index as JSON is what columns are looked for beside; its content is not read.
    Path(index_path(str(path))).write_bytes(b" " * 5_000_000)
    content = columns_to_bytes(index, 5_000_000, f"{number:064x}")
    Path(columns_path(str(path))).write_bytes(content)
    return len(content)


def peak_mb() -> float:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1e3


def work(what: str, folder: str, num_workers: int) -> None:
    from viper_e2e.config import TrainConfig
    from viper_e2e.loading import ClipLoader, Reading
    from viper_e2e.training import open_splits, training_labels

    imported = peak_mb()
    since, busy_since = time.perf_counter(), time.process_time()
    pattern = f"{folder}/json-*.tar" if what == "json" else f"{folder}/train-*.tar"
    config = TrainConfig(train_shards=pattern, val_shards=f"{folder}/val-*.tar")
    train, _ = open_splits(config)
    training_labels(train, "linear")
    train.content_id()
    loader = ClipLoader(train, str, Reading(16, num_workers))
    start = len(train) // 2 // 16 * 16 if what == "resume" else 0
    slots = loader._slots(loader.order(3), start)
    for _ in range(16):
        next(slots)
    if what == "walk":
        order = loader.order(4)
        for position in range(len(order)):
            order[position]
    seconds, busy = time.perf_counter() - since, time.process_time() - busy_since
    told = f"{what:<8}{len(train):>12,} clips {seconds:8.1f} s, {busy:.1f} s of CPU"
    print(f"{told} {peak_mb():8.0f} MB, imports {imported:.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--clips", type=int, default=10_000_000)
    parser.add_argument("--shard-clips", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", help="where shards are made, 130 bytes a clip (default: temporary)")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(args.work, args.folder, args.workers)
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        num_shards = args.clips // args.shard_clips
        written = [
            make_shard(Path(folder, f"train-{number:06d}.tar"), number, args.shard_clips)
            for number in range(num_shards)
        ]
        make_shard(Path(folder, "val-000000.tar"), num_shards * 1000, 10_000)
        as_json = make_shard(Path(folder, "json-000000.tar"), 0, args.shard_clips, with_columns=False)
        print(
            f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, Python {platform.python_version()}; "
            f"{num_shards} shards of {args.shard_clips:,} clips; bytes a clip: "
            f"{sum(written) / args.clips:.0f} in columns, {as_json / args.shard_clips:.0f} as JSON"
        )
        for what in ("start", "resume", "walk", "json"):
            command = [sys.executable, __file__, "--work", what, "--folder", folder]
            print(
                subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout,
                end="",
                flush=True,
            )


if __name__ == "__main__":
    main()
