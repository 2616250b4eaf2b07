"""prediction.py: score clips, folders and shards that a person names, one record a clip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from viper_e2e.clip import DecodedClip
from viper_e2e.errors import ClipError, ViperError
from viper_e2e.loading.clip_reader import DecodeSample
from viper_e2e.loading.loader import ClipLoader
from viper_e2e.loading.windows import ClipPlace, decode_windows, shown
from viper_e2e.loading.workers import MAX_RESTARTS, TIME_LIMIT_SECONDS
from viper_e2e.model.records import Record, failed, in_window, records_of
from viper_e2e.model.viper import ViPER
from viper_e2e.scoring.journal import Subset
from viper_e2e.scoring.sources import ClipFiles, find_inputs, name_of
from viper_e2e.shards import ShardSet

__all__ = ["ClipFiles", "find_inputs", "name_of", "predict", "predict_share", "predict_windows"]

LONG_SECONDS = 60.0
"""A clip longer than this is better scored in windows."""


def predict(model: ViPER, source: ClipFiles | ShardSet, **how: Any) -> Iterator[Record]:
    """Records of every clip, in order; ``how`` as in `predict_share`."""
    return (record for _, record in predict_share(model, source, **how))


@torch.no_grad()
def predict_share(
    model: ViPER,
    source: ClipFiles | ShardSet | Subset,
    *,
    batch_size: int = 8,
    num_workers: int = 1,
    clip_timeout_seconds: float = TIME_LIMIT_SECONDS,
    max_restarts: int = MAX_RESTARTS,
    boxes: bool = False,
    process_index: int = 0,
    num_processes: int = 1,
) -> Iterator[tuple[int, Record]]:
    """Index and record of every clip of this process's share, in order.

    Decoding is isolated in worker processes: a clip that crashes or hangs one is reported like any other that
    cannot be read.
    """
    loader = ClipLoader(
        source,
        DecodeSample(model.decoder),
        batch_size=batch_size,
        shuffle=False,
        num_workers=num_workers,
        prefetch=2,
        clip_timeout_seconds=clip_timeout_seconds,
        max_restarts=max_restarts,
        process_index=process_index,
        num_processes=num_processes,
    )
    with loader:
        for batch in loader.epoch(0):
            positions = [position for position in batch.positions if position is not None]
            if not positions:
                continue
            count = len(positions)
            output = model(batch.clips[:count])
            records = records_of(output, batch.keys[:count], model.labels.names, model.modalities, boxes=boxes)
            yield from zip(positions, records, strict=True)


def predict_windows(
    model: ViPER,
    paths: Sequence[ClipPlace],
    window_seconds: float,
    hop_seconds: float,
    *,
    num_workers: int = 1,
    clip_timeout_seconds: float = TIME_LIMIT_SECONDS,
    max_restarts: int = MAX_RESTARTS,
    boxes: bool = False,
) -> Iterator[tuple[int, list[Record]]]:
    """Index and records of every clip, as each is done: one per window, with ``window_seconds: [start, end]``.

    Where a clip can be read no further, what was scored stays, and one record that is not valid stands for the
    rest. Each file is decoded in one pass and its windows are
    scored as they come, so that memory does not depend on its length. Decoding is isolated as in
    `predict_share`; the time limit is one window's. Up to ``num_workers`` clips are decoded at the same time.
    """
    if not 0 < hop_seconds <= window_seconds:
        raise ViperError(
            f"windows of {window_seconds} s every {hop_seconds} s: the hop must be above 0, at most the window"
        )
    begun: dict[int, list[Record]] = {}
    for index, found in decode_windows(
        paths,
        model.decoder,
        window_seconds,
        hop_seconds,
        num_workers=num_workers,
        clip_timeout_seconds=clip_timeout_seconds,
        max_restarts=max_restarts,
    ):
        records = begun.setdefault(index, [])
        if isinstance(found, ClipError):
            reached = records[-1]["end_seconds"] if records else None
            records.append(failed(shown(paths[index]), found.reason, model.modalities, start_seconds=reached))
        elif found is not None:
            records.append(_window_record(model, *found, boxes=boxes))
            continue
        yield index, begun.pop(index)


@torch.no_grad()
def _window_record(model: ViPER, start_seconds: float, clip: DecodedClip, *, boxes: bool) -> Record:
    # A function of its own: around a generator, `no_grad` ends where annotations are checked.
    record = records_of(model([clip]), [clip.name], model.labels.names, model.modalities, boxes=boxes)[0]
    return in_window(record, start_seconds, start_seconds + clip.duration_seconds)
