"""data.py: data to train and validate on: shards in which every clip has labels, and their loaders."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from viper_e2e.config import Settings, TrainConfig
from viper_e2e.decoding import ClipDecoder
from viper_e2e.errors import ViperError
from viper_e2e.labels import LabelSet
from viper_e2e.loading import ClipLoader, DecodeSample, OrderSettings, ProcessShare, Quarantine, Reading, Share
from viper_e2e.model import labels_of, newest_whole
from viper_e2e.runtime import first_of
from viper_e2e.shards import (
    RemoteReading,
    ShardLimits,
    ShardSet,
    parse_corpora,
)
from viper_e2e.splits import folds_from, inner_split, notes_on, notes_on_overlap
from viper_e2e.tasks import Task
from viper_e2e.training.label_moments import (
    MAX_ROWS_AT_ONCE,
    LabelMoments,
    known_rows,
    moments_in_parts,
    moments_of,
)

LEAST_UNIT_SPREAD = 0.05
"""Labels in [0, 1] that spread less than this (standard deviation) are too narrow for a sigmoid of [0, 1]."""

MAX_NAMES = 10
"""So many clips are named in a message; more are counted."""


def open_splits(config: TrainConfig, limits: ShardLimits | None = None) -> tuple[ShardSet, ShardSet | None]:
    """The shards to train on and, if there are any, those to validate on, their labels in one order.

    These are other shards, a fold of the same ones, or some of the training clips themselves.
    """
    _refuse_two_validations(config)
    train = open_corpora(config.train_shards, "--train-shards", limits)
    if config.fold or config.inner_val:
        return _split(train, config)
    if not config.val_shards:
        wanting = [*(["--patience"] if config.patience else []), *(["--best-by"] if config.best_by else [])]
        if wanting:
            raise ViperError(f"{wanting[0]}: needs validation clips; give --val-shards or --inner-val")
        return train, None
    val = open_corpora(config.val_shards, "--val-shards", limits)
    if any(corpus.weight is not None for corpus in val.corpora):
        raise ViperError("--val-shards: each clip is scored once; leave out the weights: NAME:PATTERN")
    val = val.labelled_as(train.known_labels, "--train-shards")
    return train, val.with_problems((*notes_on_overlap(train, val), *val.problems))


def _refuse_two_validations(config: TrainConfig) -> None:
    given = [f"--fold {config.fold}"] if config.fold else []
    given += [f"--inner-val {config.inner_val:g}"] if config.inner_val and not config.fold else []
    if given and config.val_shards:
        raise ViperError(f"--val-shards and {given[0]}: both name clips to validate on; leave one out")


def _split(shards: ShardSet, config: TrainConfig) -> tuple[ShardSet, ShardSet]:
    """Without the fold that is held out; that one, or with `inner_val` some of the rest, is validated on."""
    train, val, by = shards, None, "Subject"
    notes: tuple[str, ...] = ()
    if config.fold:
        folds = folds_from(shards, config.folds)
        train, val = folds.held_out(shards, config.fold)
        by, notes = folds.by, tuple(notes_on(shards, folds))
    if config.inner_val:
        train, val, note = inner_split(train, config.inner_val, by)
        notes += (note,)
    assert val is not None, "one of the two was asked for"
    return train.with_problems((*train.problems, *notes)), val.with_problems(())


def limits_of(settings: Settings) -> ShardLimits:
    """Limits on shards of a run, and settings for remote ones."""
    max_clip_bytes = settings.model.decoding.limits.max_bytes_in_memory
    return ShardLimits(max_clip_bytes=max_clip_bytes, remote_reading=RemoteReading.of(settings.train))


def shards_of(run: Settings) -> tuple[ShardSet, ShardSet | None]:
    """Shards that a run trains and validates on."""
    return open_splits(run.train, limits_of(run))


def open_corpora(text: str, option: str, limits: ShardLimits | None = None) -> ShardSet:
    """The labelled clips of one corpus, or of several that are named."""
    given = parse_corpora(text, option)
    found = {one.name: open_labelled(one.patterns, option, limits) for one in given}
    if not given[0].name:
        return found[""]
    return ShardSet.mixed(found, option, {one.name: one.weight for one in given})


def open_labelled(patterns: Sequence[str], option: str, limits: ShardLimits | None = None) -> ShardSet:
    """The labelled clips of shards; those without labels are named among its ``problems``."""
    shards = ShardSet(patterns, limits=limits)
    keep = shards.is_labelled()
    if shards.labels is None or not any(keep):
        raise ViperError(
            f"{option} {' '.join(patterns)}: has no labelled clips; they can be scored, but not trained on"
        )
    if all(keep):
        return shards
    names = [shards.entry(i).key for i in np.flatnonzero(~keep).tolist()]
    some = first_of(names, MAX_NAMES)
    note = (
        f"{option}: {len(names)} of {len(shards)} clips have no labels and are left out: {some}; "
        "fill in their labels and pack again to use them"
    )
    return shards.only(keep).with_problems((*shards.problems, note))


def training_labels(shards: ShardSet, output: str, last: Path | None = None) -> LabelSet:
    """The label set of the training shards, with the means of their labels and the scale to learn them at.

    ``output``: of the head, as in `FusionConfig`. ``last``: of a resumed run, whose scale stays.
    """
    labels = shards.known_labels
    moments = _moments(shards, labels)
    for (task, _), own in zip(labels.parts, moments, strict=True):
        if not own.num_clips:
            raise ViperError(f"--train-shards: no clip has a label of the task {task.name!r}; pack without it")
    labels = replace(labels, means=_label_means(shards, moments))
    folder = newest_whole(last)[0] if last is not None else None
    if folder is not None:
        saved = labels_of(folder)
        return scaled_as(labels.with_thresholds(saved.thresholds), saved)
    scales = [_scale_of(task, own, output) for (task, _), own in zip(labels.parts, moments, strict=True)]
    centres, widths = (tuple(value for scale in scales for value in scale[side]) for side in (0, 1))
    return replace(labels, centres=centres, widths=widths) if any(widths) else labels


def _moments(shards: ShardSet, labels: LabelSet) -> list[LabelMoments]:
    """The label moments of each task."""
    if len(shards) > MAX_ROWS_AT_ONCE:
        return [moments_in_parts(shards.label_parts, own) for _, own in labels.parts]
    rows = shards.label_rows()
    return [moments_of(known_rows(rows, own)) for _, own in labels.parts]


def _label_means(shards: ShardSet, moments: Sequence[LabelMoments]) -> tuple[float, ...]:
    """The mean of each column over the clips that have it."""
    if len(shards) > MAX_ROWS_AT_ONCE:
        return tuple(float(mean) for own in moments for mean in own.means)
    return tuple(np.nanmean(shards.label_rows(), axis=0).tolist())


def _scale_of(task: Task, moments: LabelMoments, output: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Centres and widths of one task; classes and labels are learned as they are."""
    if task.kind in ("class", "labels"):
        return (0.0,) * task.size, (0.0,) * task.size
    return scale_of_moments(moments, task.in_unit_interval, output)


def scaled_as(labels: LabelSet, saved: LabelSet) -> LabelSet:
    """``labels`` with the scale of a saved set, emotion by emotion."""
    if saved.centres is None or saved.widths is None or set(saved.names) != set(labels.names):
        return replace(labels, centres=None, widths=None)
    places = [saved.names.index(name) for name in labels.names]
    centres, widths = (tuple(row[i] for i in places) for row in (saved.centres, saved.widths))
    return replace(labels, centres=centres, widths=widths)


def scale_of_moments(
    moments: LabelMoments, in_unit_interval: bool, output: str
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Centre and width of each emotion's labels; width 0 where they fill [0, 1] and are learned as they are.

    The width is that of evenly spread labels with the same deviation, so that the loss and the head's first
    steps are those of labels in [0, 1]; under a sigmoid it is all of their range, which is all it can reach.
    """
    spreads, low, high = moments.deviations.copy(), moments.lows, moments.highs
    # Of numbers that are all the same, rounding leaves a deviation of its own.
    spreads[spreads <= 1e-12 * np.maximum(np.abs(low), np.abs(high))] = 0.0
    fill_unit = in_unit_interval & ((spreads == 0.0) | (spreads >= LEAST_UNIT_SPREAD))
    centres, widths = moments.means, math.sqrt(12) * spreads
    if output == "sigmoid":
        centres, widths = (low + high) / 2, high - low
    widths = np.where(spreads == 0.0, 1.0, widths)
    return tuple(np.where(fill_unit, 0.0, centres).tolist()), tuple(np.where(fill_unit, 0.0, widths).tolist())


def reading_of(config: TrainConfig) -> Reading:
    """Settings for reading clips."""
    return Reading(
        config.batch_size,
        config.num_workers,
        config.prefetch,
        config.clip_timeout_seconds,
        config.max_worker_restarts,
    )


def make_loader(
    shards: ShardSet,
    settings: Settings,
    *,
    process: tuple[int, int] = (0, 1),
    cached: Callable[[str], Any] | None = None,
    quarantine: Quarantine | None = None,
) -> ClipLoader:
    """A process's share of shards to train on, shuffled, mixed and decoded as the settings say.

    ``process``: its number, and how many there are.
    """
    config = settings.train
    return ClipLoader(
        shards,
        DecodeSample(ClipDecoder.for_model(settings.model)),
        reading_of(config),
        order=OrderSettings(config.seed, shuffle_window=config.shuffle_window, shares=shares_of(shards)),
        share=ProcessShare(*process, config.accumulation),
        cached=cached,
        quarantine=quarantine,
    )


def shares_of(shards: ShardSet) -> list[Share]:
    """The share of each corpus that has a name."""
    firsts = accumulate(map(len, shards.named_corpora), initial=0)
    return [
        Share(corpus.name, corpus.shard_sizes, first, corpus.weight)
        for corpus, first in zip(shards.named_corpora, firsts, strict=False)
    ]
