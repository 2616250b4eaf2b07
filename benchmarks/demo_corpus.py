"""demo_corpus.py: properties of the demo corpus: faces found, people told apart, expressions held.

    python benchmarks/demo_corpus.py [--corpus demo/corpus] [--backbone ../shared/weights/dinov2-small]
                                     [--frames 4] [--crop-size 112] [--num-clips N]

Reads a corpus that `datasets/demo.py` wrote. In every clip with a face in view, evenly spaced frames are
searched by the detector as `viper train` uses it; what it finds in clips without a face is counted apart. With
`--backbone` the crops go through that frozen vision transformer, and each clip's mean class token is compared
with those of all other clips of all people: the nearest (by cosine) should be of the same person, because that
is what makes a real corpus hard: who somebody is drowns what they show. Without it only faces are counted.
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from pathlib import Path

import av
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from viper_e2e.config import BackboneConfig, FaceConfig, VisualConfig
from viper_e2e.encoders import VisualEncoder
from viper_e2e.faces import FaceCropper


def read_frames(path: Path, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Evenly spaced frames of a clip, and their times in seconds."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    chosen = [frames[i] for i in np.linspace(0, len(frames) - 1, count).round().astype(int)]
    pictures = np.stack([frame.to_ndarray(format="rgb24") for frame in chosen])
    return torch.from_numpy(pictures), torch.tensor([float(frame.time) for frame in chosen])


@torch.inference_mode()
def look_at(rows: list[dict[str, str]], options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray | None]:
    """Share of frames with a face, per clip, and the mean class token of the crops, per clip."""
    cropper = FaceCropper(FaceConfig(detect_seconds=0.0))
    encoder = None
    if options.backbone:
        config = VisualConfig(BackboneConfig(str(options.backbone)), crop_size=options.crop_size)
        encoder = VisualEncoder.build(config).eval()
    found, tokens = [], []
    for row in rows:
        frames, seconds = read_frames(
            options.corpus / "videos" / f"{row['File_ID'].strip('[]')}.mp4", options.frames
        )
        (track,) = cropper([frames], [seconds])
        found.append(float(track.face_found.float().mean()))
        if encoder is not None:
            crops = cropper.crop(frames, track.boxes, encoder.crop_spec)
            tokens.append(encoder.embed(crops).float().mean(0).numpy())
    return np.array(found), np.array(tokens) if tokens else None


def nearest_is_same(tokens: np.ndarray, subjects: list[str]) -> np.ndarray:
    """For each clip whose person has another one: whether its nearest neighbour is of the same person."""
    unit = tokens / np.linalg.norm(tokens, axis=1, keepdims=True)
    likeness = unit @ unit.T
    np.fill_diagonal(likeness, -np.inf)
    same = np.array(subjects)[likeness.argmax(1)] == np.array(subjects)
    several = Counter(subjects)
    return same[[several[subject] > 1 for subject in subjects]]


def main() -> None:
    options = _options()
    with (options.corpus / "parameters.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    table = Table("", "measured", title=f"{options.corpus}: {len(rows)} clips", title_justify="left")
    for split, people in people_by_split(rows).items():
        table.add_row(f"people in {split}", f"{len(people)} ({sum(people.values())} clips)")
    held = np.mean([float(row["constant"]) for row in rows])
    table.add_row("clips whose expression does not change", f"{held:.1%}")
    if options.num_clips:
        rows = [rows[i] for i in np.linspace(0, len(rows) - 1, options.num_clips).round().astype(int)]
    with_face = [row for row in rows if float(row["present.face"])]
    without = [row for row in rows if not float(row["present.face"])]
    found, tokens = look_at(with_face, options)
    table.add_row("face found: share of clips", f"{np.mean(found > 0):.1%} of {len(found)}")
    table.add_row("face found: share of frames", f"{found.mean():.1%} of {options.frames * len(found)}")
    if without:
        options.backbone, encoder_free = None, options.backbone
        wrong, _ = look_at(without, options)
        options.backbone = encoder_free
        table.add_row("face found where there is none", f"{np.mean(wrong > 0):.1%} of {len(wrong)} clips")
    if tokens is not None:
        same = nearest_is_same(tokens, [row["Subject"] for row in with_face])
        table.add_row("nearest clip is of the same person", f"{same.mean():.1%} of {len(same)} clips")
    Console(width=110).print(table)


def people_by_split(rows: list[dict[str, str]]) -> dict[str, Counter[str]]:
    """How many clips there are of each person."""
    splits = dict.fromkeys(row["Split"] for row in rows)
    return {split: Counter(row["Subject"] for row in rows if row["Split"] == split) for split in splits}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0].split(": ", 1)[1])
    parser.add_argument("--corpus", type=Path, default=Path("demo/corpus"))
    parser.add_argument("--backbone", type=Path, help="folder of a frozen vision transformer")
    parser.add_argument("--frames", type=int, default=4, help="of each clip (default 4)")
    parser.add_argument("--crop-size", type=int, default=224, help="pixels (default 224)")
    parser.add_argument("--num-clips", type=int, help="so many clips, evenly spread (default: all)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
