"""alignment.py: face crops by their box against crops aligned to the eyes, judged by ridge on frozen tokens.

    python datasets/demo.py --out demo/corpus
    python benchmarks/alignment.py --corpus demo/corpus --weights FOLDER/dinov2-small --out runs/alignment \\
        [--num-train 320] [--num-test 160] [--only box,eyes]

The same clips, frames, detections and encoder (DINOv2-small, frozen, 8 crops of 112 pixels) for each way
of cropping; pooled tokens (mean, deviation, change) into closed-form ridge, its penalty by leave-one-out. Told
are Pearson's r on test clips of people that training never saw, as a mean over the emotions that show in the
face, with 95 % intervals by bootstrap over people (the same draws for all ways, so that differences have
theirs), and how steady crops are: the mean absolute change from one crop to the next, of 255. Clips that are
encoded already are not encoded again.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from viper_e2e.config import BackboneConfig, DecodingConfig, FaceConfig, VisualConfig
from viper_e2e.decoding import ClipDecoder
from viper_e2e.encoders import Stream, VisualEncoder
from viper_e2e.faces import FaceCropper, FaceTrack, align
from viper_e2e.fusion import fit_ridge, pool, pooled_rows, predict

SEEN_IN_THE_FACE = ("Adoration", "Disgust", "Fear", "Surprise")
WAYS = {
    "box": ("the face's box", "box", 0.0, 0.42, 0.4),
    "wide": ("the box, a fifth wider on every side", "box", 0.2, 0.42, 0.4),
    "eyes": ("eyes level, 0.42 of the side apart, at 0.4 of its height", "eyes", 0.0, 0.42, 0.4),
    "high": ("eyes level, 0.42 of the side apart, at 0.33 of its height", "eyes", 0.0, 0.42, 0.33),
    "far": ("eyes level, a third of the side apart, at 0.4 of its height", "eyes", 0.0, 1 / 3, 0.4),
}
"""What it is, `CropSpec.align`, margin of the box, distance and height of the eyes."""
NUM_FRAMES, SIZE = 8, 112


def rows_of(corpus: Path, split: str, count: int) -> list[dict[str, str]]:
    """Clips of a split, evenly spread over its people."""
    with (corpus / "labels.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["Split"] == split]
    return [rows[i * len(rows) // count] for i in range(min(count, len(rows)))]


def encode(
    path: Path, ways: list[str], decoder: ClipDecoder, faces: FaceCropper, encoder: VisualEncoder
) -> dict[str, tuple[Tensor, float]]:
    """Pooled tokens of a clip and the change between its crops, by way."""
    clip = decoder(path)
    frames, seconds = torch.from_numpy(clip.frames), torch.from_numpy(clip.frame_seconds).float()
    track = faces([frames], [seconds])[0]
    made = {}
    for way in ways:
        _, kind, margin, align.EYE_DISTANCE, align.EYE_HEIGHT = WAYS[way]
        crops = faces.crop(
            frames, widened(track, margin), replace(encoder.crop_spec, align=kind), track.landmarks
        )
        steps = (crops[1:] - crops[:-1]).abs() * torch.tensor(encoder.crop_spec.std)[:, None, None] * 255
        tokens = encoder.embed(crops)[None].float()
        stream = Stream(tokens, *[torch.ones(1, len(frames), dtype=torch.bool)] * 2, seconds[None])
        pooled = pool({"visual": stream}, track.face_found[None], torch.tensor([clip.duration_seconds]))
        made[way] = pooled_rows(pooled)[0], float(steps.mean())
    return made


def widened(track: FaceTrack, margin: float) -> Tensor:
    around = (track.boxes[:, 2:] - track.boxes[:, :2]) * margin * track.face_found[:, None]
    return torch.cat([track.boxes[:, :2] - around, track.boxes[:, 2:] + around], 1)


def encoded(rows: list[dict[str, str]], options: argparse.Namespace) -> dict[str, tuple[Tensor, list[float]]]:
    """Features (a row per clip) and changes of all clips, from OUT where they are there."""
    decoder = ClipDecoder(DecodingConfig(num_frames=NUM_FRAMES, sound="none"))
    faces, encoder = FaceCropper(FaceConfig()), None
    options.out.mkdir(parents=True, exist_ok=True)
    kept = []
    for row in rows:
        name = row["File_ID"].strip("[]")
        file = options.out / f"{name}.pt"
        made = torch.load(file) if file.exists() else {}
        if missing := [way for way in options.only if way not in made]:
            if encoder is None:
                backbone = BackboneConfig(str(options.weights))
                encoder = VisualEncoder.build(VisualConfig(backbone=backbone, crop_size=SIZE)).eval()
            (video,) = (options.corpus / "videos").glob(f"{name}.*")
            made |= encode(video, missing, decoder, faces, encoder)
            torch.save(made, file)
        kept.append(made)
    return {
        way: (torch.stack([made[way][0] for made in kept]), [made[way][1] for made in kept])
        for way in options.only
    }


def mean_pearson(predicted: np.ndarray, true: np.ndarray) -> float:
    return float(np.mean([np.corrcoef(p, t)[0, 1] for p, t in zip(predicted.T, true.T, strict=True)]))


def draws_over(people: list[str], count: int = 1000) -> list[np.ndarray]:
    """Rows of so many samples, with replacement, of people."""
    rng, names = np.random.default_rng(0), sorted(set(people))
    rows = {name: np.flatnonzero(np.array(people) == name) for name in names}
    return [np.concatenate([rows[name] for name in rng.choice(names, len(names))]) for _ in range(count)]


def interval(statistic: Callable[[np.ndarray], float], draws: list[np.ndarray]) -> str:
    low, high = np.percentile([statistic(rows) for rows in draws], [2.5, 97.5])
    return f"[{low:.3f}, {high:.3f}]"


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--num-train", type=int, default=320)
    parser.add_argument("--num-test", type=int, default=160)
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(WAYS))
    options = parser.parse_args()
    train, test = (
        rows_of(options.corpus, *s) for s in (("train", options.num_train), ("test", options.num_test))
    )
    made = encoded(train + test, options)
    labels = torch.tensor([[float(row[name]) for name in SEEN_IN_THE_FACE] for row in train + test])
    true, draws = labels[len(train) :].numpy(), draws_over([row["Subject"] for row in test])
    scored = {}
    for way, (features, _) in made.items():
        fit = fit_ridge(features[: len(train)], labels[: len(train)])
        scored[way] = predict(fit, features[len(train) :]).numpy()
    print(f"{len(train)} clips to train on, {len(test)} of {len({r['Subject'] for r in test})} other people")
    print("crop | mean Pearson r, 95 % interval | less the first | change from crop to crop, of 255")
    first = options.only[0]
    for way in options.only:
        r = interval(lambda rows, way=way: mean_pearson(scored[way][rows], true[rows]), draws)
        less = interval(
            lambda rows, way=way: (
                mean_pearson(scored[way][rows], true[rows]) - mean_pearson(scored[first][rows], true[rows])
            ),
            draws,
        )
        difference = mean_pearson(scored[way], true) - mean_pearson(scored[first], true)
        own = mean_pearson(scored[way], true)
        print(f"{WAYS[way][0]} | {own:.3f} {r} | {difference:+.3f} {less} | {np.mean(made[way][1]):.2f}")


if __name__ == "__main__":
    main()
