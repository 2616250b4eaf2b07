"""pretraining_clips.py: clips as the head of `pretraining.py` reads them: tokens and labels; how it scores."""

from __future__ import annotations

from typing import NamedTuple

import torch
from learning import adopted, mean_pearson
from torch import Tensor

from viper_e2e.encoders import PreparedClip, Stream
from viper_e2e.model import ViPER
from viper_e2e.shards import ShardSet

BATCH = 16
TOKEN_AXES = 128


class Clips(NamedTuple):
    """Of one split, in order of their names, as a head reads them."""

    streams: dict[str, Stream]
    face_found: Tensor
    duration_seconds: Tensor
    targets: Tensor
    subjects: Tensor
    """A number for each."""

    def rows(self, rows: Tensor) -> Clips:
        streams = {name: Stream(*(part[rows] for part in stream)) for name, stream in self.streams.items()}
        return Clips(streams, *(column[rows] for column in self[1:]))

    @property
    def inputs(self) -> tuple[dict[str, Stream], Tensor, Tensor]:
        return self.streams, self.face_found, self.duration_seconds

    @property
    def present(self) -> Tensor:
        return torch.stack([stream.present.any(1) for stream in self.streams.values()], 1)


@torch.no_grad()
def read(module: ViPER, shards: ShardSet, prepared: dict[str, PreparedClip]) -> Clips:
    """Out of the model, so that a clip is what the product would have fused."""
    entries = sorted((shards.entry(i) for i in range(len(shards))), key=lambda entry: entry.key)
    outputs = []
    for i in range(0, len(entries), BATCH):
        clips = [adopted(prepared[entry.key], module, last_alone=False) for entry in entries[i : i + BATCH]]
        outputs.append(module(clips, keep_streams=True))
    streams = {
        name: Stream(*(torch.cat(parts) for parts in zip(*(one.streams[name] for one in outputs), strict=True)))
        for name in module.modalities
    }
    names = sorted({entry.subject for entry in entries})
    return Clips(
        streams,
        torch.cat([output.face_found for output in outputs]),
        torch.cat([output.duration_seconds for output in outputs]),
        torch.tensor([entry.intensities for entry in entries]),
        torch.tensor([names.index(entry.subject) for entry in entries]),
    )


def on_axes(splits: dict[str, Clips]) -> dict[str, Clips]:
    """Tokens on their principal axes over all training clips, labelled or not."""
    moved = {split: dict(clips.streams) for split, clips in splits.items()}
    for name, stream in splits["train"].streams.items():
        tokens = stream.tokens[stream.present & stream.used].double()
        centre = tokens.mean(0)
        _, vectors = torch.linalg.eigh((tokens - centre).T @ (tokens - centre))
        axes = vectors[:, -TOKEN_AXES:].flip(1)
        for split, clips in splits.items():
            old = clips.streams[name]
            projected = ((old.tokens.double() - centre) @ axes).float()
            kept = (old.present & old.used)[..., None]
            moved[split][name] = old._replace(tokens=torch.where(kept, projected, 0.0))
    return {split: clips._replace(streams=moved[split]) for split, clips in splits.items()}


def score(answers: Tensor, clips: Clips) -> float:
    return mean_pearson(answers.numpy(), clips.targets.numpy())
