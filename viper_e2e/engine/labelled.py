"""labelled.py: shards that can be trained on: every clip has labels, and both splits name the same emotions."""

from __future__ import annotations

import numpy as np

from ..config import TrainConfig
from ..errors import ViperError
from ..shards import ShardSet


def open_splits(config: TrainConfig) -> tuple[ShardSet, ShardSet | None]:
    """The shards to train on and, if there are any, those to validate on."""
    train = open_labelled(config.train_shards, "--train-shards")
    if not config.val_shards:
        return train, None
    val = open_labelled(config.val_shards, "--val-shards")
    if val.labels.names != train.labels.names:
        raise ViperError("--val-shards: its emotions differ from those of --train-shards")
    return train, val


def open_labelled(pattern: str, option: str) -> ShardSet:
    """Shards in which every clip has labels."""
    shards = ShardSet(pattern)
    if shards.labels is None or any(shards.entry(i).intensities is None for i in range(len(shards))):
        raise ViperError(f"{option} {pattern}: holds unlabelled clips; they can be scored, not trained on")
    return shards


def label_means(shards: ShardSet) -> tuple[float, ...]:
    """Mean of each emotion's labels over all clips."""
    return tuple(np.mean([shards.entry(i).intensities for i in range(len(shards))], axis=0).tolist())
