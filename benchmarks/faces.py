"""faces.py: face detection, ours dense and at every 4th frame, against facenet-pytorch's `detect` as shipped.

    python benchmarks/faces.py [CLIP …] [--num-clips 1,4,16] [--rounds 5] [--min-face-size 40]

Every contender gets the same frames, smallest face, thresholds and threads. Contenders take turns in every
round, in changing order; CPU seconds are medians with their range. "IoU with dense" is that of the boxes
on frames where both have a face; "jitter" is the IoU of dense boxes of neighbouring frames, the detector's
own restlessness, which is what interpolation may be judged against.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import torch
from facenet_pytorch import MTCNN
from rich.console import Console
from rich.table import Table

from viper_e2e.config import FaceConfig
from viper_e2e.faces import FaceCropper, FaceTrack

NUM_FRAMES = 32
FRAME_SECONDS = 0.125
"""Spacing of the frames, so that a detection every 0.5 s is one at every 4th frame."""


def read_frames(path: Path, max_side: int) -> np.ndarray:
    """32 frames spread over a clip, scaled as the decoder of the module does."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    chosen = [frames[i] for i in np.linspace(0, len(frames) - 1, NUM_FRAMES).round().astype(int)]
    scale = min(1.0, max_side / max(chosen[0].width, chosen[0].height))
    size = {"width": round(chosen[0].width * scale), "height": round(chosen[0].height * scale)}
    return np.stack([frame.reformat(**size, format="rgb24").to_ndarray() for frame in chosen])


def moving_portrait(max_side: int) -> np.ndarray:
    """A photographed face (NASA portrait of Eileen Collins) under a camera that pans."""
    from skimage import data

    height = max_side * 9 // 16
    portrait = torch.from_numpy(data.astronaut()[:400]).permute(2, 0, 1)[None].float()
    image = torch.nn.functional.pad(portrait, (300, 300, 0, 0), mode="replicate")
    image = torch.nn.functional.interpolate(
        image, (height, height * 1112 // 400), mode="bilinear", antialias=True
    )
    image = image[0].permute(1, 2, 0).round().to(torch.uint8).numpy()
    slack = image.shape[1] - max_side
    lefts = (slack * (0.5 + 0.2 * np.sin(np.linspace(0, 6, NUM_FRAMES)))).astype(int)
    return np.stack([image[:, left : left + max_side] for left in lefts])


def iou(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    sides = (torch.minimum(one[:, 2:], other[:, 2:]) - torch.maximum(one[:, :2], other[:, :2])).clamp(min=0)
    shared = sides.prod(1)
    return shared / ((one[:, 2:] - one[:, :2]).prod(1) + (other[:, 2:] - other[:, :2]).prod(1) - shared)


def facenet(detector: MTCNN, clips: list[np.ndarray], min_probability: float) -> list[FaceTrack]:
    """`detect` clip by clip, the largest batch that it takes; its first box, as the published pipeline."""
    tracks = []
    for frames in clips:
        boxes, probabilities = detector.detect(frames)
        height, width = frames.shape[1:3]
        rows, sure = [], []
        for box, probability in zip(boxes, probabilities, strict=True):
            found = box is not None and probability[0] >= min_probability
            rows.append(box[0].clip(0, [width, height] * 2) if found else [0, 0, width, height])
            sure.append(float(probability[0]) if found else 0.0)
        sure = torch.tensor(sure)
        tracks.append(FaceTrack(torch.tensor(np.array(rows, np.float32)), sure, (sure > 0).to(torch.uint8)))
    return tracks


def race(contenders: dict[str, Callable[[], list[FaceTrack]]], rounds: int) -> tuple[dict, dict]:
    """Seconds of every round, and the tracks found, per contender."""
    tracks = {name: run() for name, run in contenders.items()}  # also warms up
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds):
        for name in list(contenders)[:: 1 if turn % 2 else -1]:
            start = time.process_time()
            contenders[name]()
            seconds[name].append(time.process_time() - start)
    return seconds, tracks


def agreement(tracks: list[FaceTrack], dense: list[FaceTrack]) -> tuple[float, float]:
    """Mean IoU where both found a face, and the share of dense faces that is lost."""
    overlaps, lost, faces = [], 0, 0
    for track, truth in zip(tracks, dense, strict=True):
        both = track.face_found & truth.face_found
        overlaps.append(iou(track.boxes, truth.boxes)[both])
        lost += int((truth.face_found & ~track.face_found).sum())
        faces += int(truth.face_found.sum())
    return float(torch.cat(overlaps).mean()), lost / max(faces, 1)


def jitter(dense: list[FaceTrack]) -> float:
    pairs = [iou(t.boxes[1:], t.boxes[:-1])[t.face_found[1:] & t.face_found[:-1]] for t in dense]
    return float(torch.cat(pairs).mean())


def measure(source: list[np.ndarray], num_clips: int, rounds: int, min_face_size: int) -> Table:
    clips = [source[i % len(source)] for i in range(num_clips)]
    frames = [torch.from_numpy(clip) for clip in clips]
    times = [torch.arange(NUM_FRAMES) * FRAME_SECONDS] * num_clips
    dense_config = FaceConfig(detect_seconds=0.0, min_face_size=min_face_size)
    dense = FaceCropper(dense_config)
    sparse = FaceCropper(FaceConfig(detect_seconds=4 * FRAME_SECONDS, min_face_size=min_face_size))
    shipped = MTCNN(min_face_size=min_face_size, thresholds=list(dense_config.thresholds))
    seconds, tracks = race(
        {
            "facenet-pytorch detect": lambda: facenet(shipped, clips, dense_config.min_probability),
            "ours, every frame": lambda: dense(frames, times),
            "ours, every 4th frame": lambda: sparse(frames, times),
        },
        rounds,
    )
    truth = tracks["ours, every frame"]
    table = Table(title=f"{num_clips} clips × {NUM_FRAMES} frames; jitter IoU {jitter(truth):.3f}")
    for column in (
        "",
        "seconds",
        "range",
        "speed-up",
        "speed-up per round",
        "detected",
        "IoU with dense",
        "lost",
    ):
        table.add_column(column, justify="left" if not column else "right")
    for name, taken in seconds.items():
        ratios = [a / b for a, b in zip(seconds["facenet-pytorch detect"], taken, strict=True)]
        overlap, lost = agreement(tracks[name], truth)
        detected = sum(int((track.source == 1).sum()) for track in tracks[name])
        table.add_row(
            name,
            f"{statistics.median(taken):.3f}",
            f"{min(taken):.3f}–{max(taken):.3f}",
            f"{statistics.median(ratios):.2f}×",
            f"{min(ratios):.2f}–{max(ratios):.2f}",
            f"{detected}/{NUM_FRAMES * num_clips}",
            f"{overlap:.3f}",
            f"{lost:.1%}",
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", nargs="*", type=Path, help="videos; none: a photographed face, panned over")
    parser.add_argument("--num-clips", default="1,4,16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--max-side", type=int, default=640)
    parser.add_argument("--min-face-size", type=int, default=FaceConfig().min_face_size)
    options = parser.parse_args()
    source = [read_frames(path, options.max_side) for path in options.clips] or [
        moving_portrait(options.max_side)
    ]
    console = Console(width=130)
    console.print(
        f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, smallest face "
        f"{options.min_face_size} px; frames: "
        + ", ".join(f"{clip.shape[2]}×{clip.shape[1]}" for clip in source)
        + ("" if options.clips else " (generated: a panned portrait)")
    )
    for count in map(int, options.num_clips.split(",")):
        console.print(measure(source, count, options.rounds, options.min_face_size))


if __name__ == "__main__":
    main()
