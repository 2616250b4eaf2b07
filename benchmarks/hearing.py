"""hearing.py: what Whisper's padding is worth: accuracy and time of `audio.padding` `full` against `clip`.

    python benchmarks/hearing.py --shards demo/shards --whisper ../shared/weights/whisper-tiny-en-encoder \\
        [--num-train 320] [--num-test 160] [--num-frames 32] [--span-seconds 2]

Every clip is decoded once and encoded by both, frozen, taking turns, on one thread of one process (CPU time).
Ridge regression on the pooled tokens (mean, deviation, change; its penalty by leave-one-out) is fitted on
train and scored on test, whose subjects train does not know; clips without sound are left out. Intervals: 95 %,
bootstrapped over subjects; of the difference, over the same subjects for both.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from time import process_time

import numpy as np
import torch
from rich.console import Console

from viper_e2e.config import AudioConfig, BackboneConfig, DecodingConfig, ModelConfig
from viper_e2e.decoding import ClipDecoder
from viper_e2e.encoders import AudioEncoder, ClipSound, Stream
from viper_e2e.fusion import fit_ridge, known_features, pool, pooled_rows, predict
from viper_e2e.runtime import table
from viper_e2e.shards import ShardSet

PADDINGS = ("full", "clip")
RESAMPLES = 2000


class Heard:
    """One split: features of each padding, targets, subjects, seconds of sound and of encoding."""

    def __init__(
        self, shards: ShardSet, encoders: dict[str, AudioEncoder], decoding: DecodingConfig, count: int
    ):
        decoder = ClipDecoder.for_model(ModelConfig(modalities=("audio",), decoding=decoding))
        self.features: dict[str, list[torch.Tensor]] = {name: [] for name in encoders}
        self.took_seconds: dict[str, list[float]] = {name: [] for name in encoders}
        self.clip_seconds: list[float] = []
        self.subjects: list[str] = []
        targets = []
        for i in range(min(count, len(shards))):
            sample = shards.read(i)
            clip = decoder(sample.video, sound=sample.sound, name=sample.key)
            if not clip.sound:
                continue
            instants = clip.frame_seconds if clip.sound_instants is None else clip.sound_instants
            runs = [(run.start_seconds, torch.from_numpy(run.samples)) for run in clip.sound]
            sound = ClipSound(runs, torch.from_numpy(instants).float(), clip.sound_seconds)
            # The first of the two finds caches cold: they change places from clip to clip.
            for name in list(encoders)[:: 1 if i % 2 else -1]:
                start = process_time()
                with torch.no_grad():
                    out = encoders[name]([sound])
                self.took_seconds[name].append(process_time() - start)
                stream = Stream(out.tokens, out.present, torch.ones_like(out.present), out.seconds)
                pooled = pool(
                    {"audio": stream},
                    torch.ones_like(out.present),
                    torch.tensor([clip.duration_seconds], dtype=torch.float32),
                )
                assert known_features(pooled).all()
                self.features[name].append(pooled_rows(pooled)[0])
            self.clip_seconds.append(clip.sound_seconds)
            self.subjects.append(sample.subject or sample.key)
            targets.append(sample.intensities)
        self.targets = torch.tensor(targets)


def mean_pearson(predicted: np.ndarray, true: np.ndarray) -> float:
    p, t = predicted - predicted.mean(0), true - true.mean(0)
    return float(((p * t).sum(0) / np.sqrt((p * p).sum(0) * (t * t).sum(0)).clip(1e-12)).mean())


def over_subjects(subjects: list[str], seed: int = 0) -> list[np.ndarray]:
    """Rows of subjects drawn with replacement, many times."""
    rng, names = np.random.default_rng(seed), sorted(set(subjects))
    rows = [np.flatnonzero(np.array(subjects) == name) for name in names]
    return [
        np.concatenate([rows[k] for k in rng.integers(len(rows), size=len(rows))]) for _ in range(RESAMPLES)
    ]


def told(value: float, drawn: list[float], sign: str = "") -> str:
    low, high = np.percentile(drawn, [2.5, 97.5])
    return f"{value:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=Path, required=True, help="folder with train-*.tar and test-*.tar")
    parser.add_argument("--whisper", required=True, help="hub id or folder of a Whisper model")
    parser.add_argument("--num-train", type=int, default=320, help="clips")
    parser.add_argument("--num-test", type=int, default=160)
    parser.add_argument("--num-frames", type=int, default=32, help="tokens per clip")
    parser.add_argument("--span-seconds", type=float, default=2.0, help="heard per token")
    options = parser.parse_args()
    torch.set_num_threads(1)
    decoding = DecodingConfig(num_frames=options.num_frames, span_seconds=options.span_seconds)
    heard = decoding.sound, decoding.span_seconds, decoding.sample_rate
    encoders = {
        name: AudioEncoder.build(AudioConfig(BackboneConfig(options.whisper), padding=name), *heard).eval()
        for name in PADDINGS
    }
    splits = {"train": options.num_train, "test": options.num_test}
    train, test = (
        Heard(ShardSet(f"{options.shards}/{split}-*.tar"), encoders, decoding, n) for split, n in splits.items()
    )
    assert not set(train.subjects) & set(test.subjects), "test subjects are to be unseen"
    true, draws = test.targets.numpy(), over_subjects(test.subjects)
    scores, rows = {}, []
    for name in PADDINGS:
        fit = fit_ridge(torch.stack(train.features[name]), train.targets)
        predicted = predict(fit, torch.stack(test.features[name])).numpy()
        scores[name] = mean_pearson(predicted, true), [mean_pearson(predicted[d], true[d]) for d in draws]
        seconds = np.array(train.took_seconds[name] + test.took_seconds[name])
        times = np.array(train.took_seconds["full"] + test.took_seconds["full"]) / seconds
        less = (
            ""
            if name == "full"
            else told(
                scores[name][0] - scores["full"][0],
                [a - b for a, b in zip(scores[name][1], scores["full"][1], strict=True)],
                "+",
            )
        )
        quartiles = np.percentile(times, [25, 75])
        rows.append(
            (
                name,
                told(*scores[name]),
                less,
                f"{1000 * np.median(seconds):.0f}",
                f"{np.median(times):.1f} ({quartiles[0]:.1f}–{quartiles[1]:.1f})",
            )
        )
    title = (
        f"{len(train.subjects)} clips of {len(set(train.subjects))} subjects, test {len(test.subjects)} of "
        f"{len(set(test.subjects))}; {np.mean(train.clip_seconds + test.clip_seconds):.1f} s of sound each"
    )
    columns = ("padding", "mean Pearson", "less full", "CPU ms per clip", "times as fast (quartiles)")
    Console(width=120).print(table(title, columns, rows))


if __name__ == "__main__":
    main()
