"""staged.py: the published recipe, five passes with files in between, against `train.py` from raw shards.

    python benchmarks/staged.py [--preset tiny] [--num-clips 16] [--epochs 5] [--workers 1] [--rounds 3]

Staged, written by us after the authors' scripts: frames of each clip as JPEG (and its sound as wav), faces by
facenet-pytorch's `detect` and crops as JPEG, features of each modality as .npy, then training on the loaded
features. Every pass reads ahead with as many workers as streaming has. Streaming is `train.py` on shards of
the same clips, with clips held in memory after the first epoch. Both load the same backbones from the same
folders (random weights), and have the same float32, smallest face, threads and batch; in the first comparison
both look for faces in every frame, in the second streaming keeps the preset's defaults: every half second, and
for `base` `--mixed-precision auto`. (The preset has no action units, so no folder of them either.)

Every run is a process of its own; the clock starts when everything is imported. The split by cause is told
by timing each piece alone on the same clips; what is left over is overlap (decoding while computing).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from clips import make_clip
from models import from_folders, sized, write_backbones
from PIL import Image
from published_recipe import (
    JPEG_QUALITY,
    extract_frames,
    make_features,
    read_images,
    save_crops,
    train_on_features,
)
from rich.console import Console
from rich.table import Table

from viper_e2e.config import TRAIN_DEFAULTS, ModelConfig, Settings, Size, TrainConfig, with_settings
from viper_e2e.decoding import ClipDecoder
from viper_e2e.experiments import train_alone
from viper_e2e.faces import FaceCropper
from viper_e2e.labels import HUME_REACTION
from viper_e2e.model import ViPER
from viper_e2e.shards import ShardWriter

CONTENDERS = ("staged", "streaming, every frame", "streaming, defaults")


# --- one contender in a process of its own ------------------------------------------------------------


def config_of(preset: str, contender: str, corpus: Path) -> ModelConfig:
    config = from_folders(sized(preset), corpus / "backbones")
    if contender != CONTENDERS[2]:
        config = with_settings(config, {"faces.detect_seconds": 0.0})
    return config


def serve(contender: str, args) -> None:
    """Run once; the answer is one line of JSON."""
    import matplotlib.backends.backend_agg  # what training would import after its first epoch
    import matplotlib.figure  # noqa: F401

    logging.disable(logging.WARNING)
    corpus, work = Path(args.corpus), Path(tempfile.mkdtemp(dir=args.corpus))
    labels = json.loads((corpus / "labels.json").read_text())
    ends: list[tuple[float, float]] = []
    config, since, cpu = config_of(args.preset, contender, corpus), time.perf_counter(), cpu_of_session()

    def told() -> None:
        ends.append((time.perf_counter() - since, cpu_of_session() - cpu))

    if contender == "staged":
        torch.manual_seed(0)
        model = ViPER(config)
        make_features(model, corpus / "videos", work, sorted(labels), args.workers)
        train_on_features(model.train(), work, labels, args, told)
    else:
        defaults = TRAIN_DEFAULTS[args.preset] if contender == CONTENDERS[2] else {}
        stream(config, defaults.get("mixed_precision", "no"), corpus, work, args, told)
    size = sum(path.stat().st_size for path in work.rglob("*") if path.is_file())
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    figures = {
        "folder": work.name,
        "ends": ends,
        "bytes": size,
        "peak": int(peak[1]) / 1e3,
    }
    print("\n" + json.dumps(figures))


def cpu_of_session() -> float:
    """CPU seconds of all processes that this one has started, and its own."""
    ticks, session = 0, os.getsid(0)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def stream(
    config: ModelConfig,
    precision: str,
    corpus: Path,
    work: Path,
    args: argparse.Namespace,
    told: Callable[[], None],
) -> None:
    """`train.py`, in this process; `told` is called when an epoch has been logged."""
    settings = TrainConfig(
        train_shards=f"{corpus}/shards/train-*.tar",
        run_dir=str(work / "run"),
        epochs=args.epochs,
        batch_size=args.batch_size,
        num_workers=args.workers,
        reuse_memory=Size.parse("4GB"),
        mixed_precision=precision,
    )
    done = threading.Event()

    def watch() -> None:
        log, num_told = work / "run" / "metrics.jsonl", 0
        while not done.is_set():
            if log.exists() and log.read_text().count("\n") > num_told:
                num_told += 1
                told()
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        train_alone(Settings(settings, config))
    finally:
        time.sleep(0.05)
        done.set()
        watcher.join()


# --- corpus, pieces, tables ---------------------------------------------------------------------------


def make_corpus(folder: Path, num_clips: int, height: int, seconds: float) -> None:
    """Four different clips under many names, as files and as shards."""
    (folder / "videos").mkdir(parents=True)
    (folder / "shards").mkdir()
    sources = [make_clip(folder / f"{i}.mp4", height, seconds, i, face=True).read_bytes() for i in range(4)]
    rng, labels = np.random.default_rng(0), {}
    with ShardWriter(folder / "shards", "train", HUME_REACTION, shard_size=10**9) as writer:
        for i in range(num_clips):
            name = f"{i:05d}"
            labels[name] = rng.random(len(HUME_REACTION)).round(3).tolist()
            (folder / "videos" / f"{name}.mp4").write_bytes(sources[i % 4])
            members = {"mp4": sources[i % 4]}
            writer.add(name, members, file_id=f"[{name}]", intensities=tuple(labels[name]))
    (folder / "labels.json").write_text(json.dumps(labels))


@torch.no_grad()
def pieces(corpus: Path, config: ModelConfig) -> dict[str, float]:
    """Seconds per clip of what one recipe does and the other does not, each alone."""
    from facenet_pytorch import MTCNN

    video, spare = next(iter((corpus / "videos").glob("*.mp4"))), Path(tempfile.mkdtemp(dir=corpus))
    count, faces = config.decoding.num_frames, config.faces
    decoder, cropper = ClipDecoder(config.decoding), FaceCropper(faces)
    shipped = MTCNN(min_face_size=faces.min_face_size, thresholds=list(faces.thresholds))
    clip = decoder(video)
    images, frames = list(clip.frames), torch.from_numpy(clip.frames)
    seconds = torch.from_numpy(clip.frame_seconds).float()
    boxes = shipped.detect(clip.frames)[0]
    number = iter(range(10**6))

    def timed(run: Callable[[], Any]) -> float:
        times = []
        for _ in range(3):
            since = time.process_time()
            run()
            times.append(time.process_time() - since)
        return statistics.median(times)

    def write_frames() -> None:
        (folder := spare / f"frames{next(number)}").mkdir()
        for i, image in enumerate(images):
            Image.fromarray(image).save(folder / f"{i:02d}.jpg", quality=JPEG_QUALITY)

    writing = timed(write_frames) + timed(lambda: save_crops(images, boxes, spare / f"crops{next(number)}"))
    image_encoders = sum(name in ("visual", "textual") for name in config.modalities)
    read_crops = timed(lambda: read_images(next(spare.glob("crops*"))))
    reading = timed(lambda: read_images(next(spare.glob("frames*")))) + image_encoders * read_crops
    everything = timed(lambda: extract_frames(video, spare / f"all{next(number)}", count))
    return {
        "files not written and read": writing + reading,
        "frames not decoded": everything - timed(write_frames) - timed(lambda: decoder(video)),
        "detector batched": timed(lambda: shipped.detect(clip.frames))
        - timed(lambda: cropper([frames], [seconds])),
    }


def spread(values: list[float], digits: int = 2) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def race(args) -> dict[str, list[dict[str, Any]]]:
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in CONTENDERS}
    for turn in range(args.rounds):
        for name in CONTENDERS[turn % 3 :] + CONTENDERS[: turn % 3]:
            words = [f"--{key.replace('_', '-')}={value}" for key, value in vars(args).items() if value]
            # Not by path: workers import what their parent was started as, and this is heavier than train.py.
            start = (
                f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import staged; staged.main()"
            )
            done = subprocess.run(
                [sys.executable, "-c", start, *words, f"--serve={name}"],
                capture_output=True,
                text=True,
                check=False,
                start_new_session=True,
            )
            if done.returncode:
                raise SystemExit(done.stderr)
            results[name].append(json.loads(done.stdout.splitlines()[-1]))
    return results


def show(console: Console, results: dict[str, list[dict[str, Any]]], args) -> None:
    table = Table("", "first epoch: wall s", "CPU s", "later epoch: wall s", "CPU s", "MB", "peak MB")
    first: dict[str, list[tuple[float, float]]] = {}
    later: dict[str, list[tuple[float, float]]] = {}
    for name, runs in results.items():
        first[name] = [run["ends"][0] for run in runs]
        later[name] = [
            tuple((b - a) / (args.epochs - 1) for a, b in zip(run["ends"][0], run["ends"][-1], strict=True))
            for run in runs
        ]
    for name, runs in results.items():
        row, ratios = [name], ["  of staged"]
        for times in (first, later):
            for own, base in zip(
                zip(*times[name], strict=True), zip(*times["staged"], strict=True), strict=True
            ):
                row.append(spread(own))
                ratios.append(spread([a / b for a, b in zip(own, base, strict=True)]))
        row += [f"{runs[0]['bytes'] / 1e6:.1f}", f"{statistics.median(run['peak'] for run in runs):.0f}"]
        table.add_row(*row)
        if name != "staged":
            table.add_row(*ratios)
    console.print(table)
    split = pieces(Path(args.corpus), config_of(args.preset, "staged", Path(args.corpus)))
    wall = {name: statistics.median(seconds for seconds, _ in times) for name, times in first.items()}
    gain = wall["staged"] - wall["streaming, every frame"]
    causes = Table("cause", "s of the gain", title=f"the gain of {gain:.1f} s in the first epoch, by cause")
    for name, per_clip in split.items():
        causes.add_row(name, f"{per_clip * args.num_clips:.2f}")
    rest = gain - sum(split.values()) * args.num_clips
    causes.add_row("the rest: overlap of decoding and computing, less what streaming adds", f"{rest:.2f}")
    console.print(causes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--preset", default="tiny", choices=("base", "tiny"))
    parser.add_argument("--num-clips", type=int, default=16)
    parser.add_argument("--height", type=int, default=360)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--corpus", help=argparse.SUPPRESS)
    parser.add_argument("--serve", choices=CONTENDERS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.serve, args)
        return
    console = Console(width=130)
    console.print(
        f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {len(os.sched_getaffinity(0))} cores, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, preset {args.preset}, random weights; "
        f"{args.num_clips} clips of {args.seconds:g} s at {args.height}p, {args.workers} workers"
    )
    with tempfile.TemporaryDirectory() as folder:
        args.corpus = folder
        make_corpus(Path(folder), args.num_clips, args.height, args.seconds)
        write_backbones(sized(args.preset), Path(folder) / "backbones")
        before = set(Path(folder).rglob("*"))
        results = race(args)
        own = {run["folder"] for runs in results.values() for run in runs}
        new = {path.relative_to(folder).parts[0] for path in set(Path(folder).rglob("*")) - before} - own
        console.print(f"written outside of the run folders: {', '.join(sorted(new)) or 'nothing'}")
        show(console, results, args)


if __name__ == "__main__":
    main()
