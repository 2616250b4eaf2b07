"""labelled.py: what is trained and validated on: shards in which every clip has labels, and their loaders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..clip_reader import DecodeSample
from ..config import TrainConfig
from ..decoding import ClipDecoder
from ..errors import ViperError
from ..loader import ClipLoader
from ..parsing import Settings
from ..shards import ShardLimits, ShardSet


def open_splits(config: TrainConfig, limits: ShardLimits | None = None) -> tuple[ShardSet, ShardSet | None]:
    """The shards to train on and, if there are any, those to validate on."""
    train = open_labelled(config.train_shards, "--train-shards", limits)
    if not config.val_shards:
        return train, None
    val = open_labelled(config.val_shards, "--val-shards", limits)
    if val.labels.names != train.labels.names:
        raise ViperError("--val-shards: its emotions differ from those of --train-shards")
    return train, val


def open_labelled(pattern: str, option: str, limits: ShardLimits | None = None) -> ShardSet:
    """Shards in which every clip has labels."""
    shards = ShardSet(pattern, limits=limits)
    if shards.labels is None or any(shards.entry(i).intensities is None for i in range(len(shards))):
        raise ViperError(f"{option} {pattern}: holds unlabelled clips; they can be scored, not trained on")
    return shards


def label_means(shards: ShardSet) -> tuple[float, ...]:
    """Mean of each emotion's labels over all clips."""
    return tuple(np.mean([shards.entry(i).intensities for i in range(len(shards))], axis=0).tolist())


def make_loader(
    shards: ShardSet,
    settings: Settings,
    process_index: int,
    num_processes: int,
    *,
    shuffle: bool,
    held: Callable[[str], Any] | None = None,
) -> ClipLoader:
    """A process's share of shards, decoded as the settings say; ``shuffle`` for training."""
    config = settings.train
    return ClipLoader(
        shards,
        DecodeSample(ClipDecoder(settings.model.decoding)),
        batch_size=config.batch_size,
        seed=config.seed,
        shuffle=shuffle,
        shuffle_window=config.shuffle_window,
        num_workers=config.num_workers,
        prefetch=config.prefetch,
        process_index=process_index,
        num_processes=num_processes,
        accumulation=config.accumulation if shuffle else 1,
        clip_timeout_seconds=config.clip_timeout_seconds,
        held=held,
    )
