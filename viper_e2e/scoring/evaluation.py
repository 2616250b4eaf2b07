"""evaluation.py: score every clip of a set of shards once, over all processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from viper_e2e.errors import ClipError
from viper_e2e.loading.loader import ClipBatch, ClipLoader
from viper_e2e.model.predictions import SEEING, Predictions
from viper_e2e.model.prepared import PreparedClip
from viper_e2e.model.viper import ViPER, ViPEROutput
from viper_e2e.scoring.metrics import Scores, batch_sums
from viper_e2e.scoring.metrics import scores as scores_of_sums
from viper_e2e.shards import ShardSet

Row = dict[str, Any]


def evaluate(
    model: ViPER,
    loader: ClipLoader,
    accelerator: Accelerator,
    *,
    on_batch: Callable[[ClipBatch, ViPEROutput], None] | None = None,
    hold: Callable[[str, PreparedClip], None] | None = None,
) -> Predictions:
    """Score each clip of the loader's shards once; every process returns all predictions, in shard order.

    ``on_batch`` sees each batch of this process with its output, ``hold`` each clip with its key once it is
    encoded. The model's mode is restored afterwards.
    """
    batches = scored_rows(model, loader, on_batch=on_batch, hold=hold)
    rows = [row for batch in batches for row in batch]
    if accelerator.num_processes > 1:
        rows = gather_object(rows)
    return predictions_of(rows, model, loader.shards)


def scored_rows(
    model: ViPER,
    loader: ClipLoader,
    *,
    on_batch: Callable[[ClipBatch, ViPEROutput], None] | None = None,
    hold: Callable[[str, PreparedClip], None] | None = None,
) -> Iterator[list[Row]]:
    """What is to be said of the clips of each batch of this process, as JSON; see `evaluate`."""
    was_training = model.training
    model.eval()
    for batch in loader.epoch(0):
        if any(position is not None for position in batch.positions):
            prepared, output = _scored(model, batch)
            if on_batch is not None:
                on_batch(batch, output)
            for key, clip in zip(batch.keys, prepared, strict=True):
                if hold is not None and isinstance(clip, PreparedClip):
                    hold(key, clip)
            yield _rows(batch, output)
    model.train(was_training)


@torch.no_grad()
def _scored(model: ViPER, batch: ClipBatch) -> tuple[list[PreparedClip | ClipError], ViPEROutput]:
    # A function of its own: around a generator, `no_grad` ends where annotations are checked.
    prepared = model.prepare(batch.clips)
    return prepared, model(prepared)


def _rows(batch: ClipBatch, output: ViPEROutput) -> list[Row]:
    columns = {
        "predicted": output.intensities.cpu().double().numpy(),
        "present": output.present.cpu().numpy(),
        "duration": output.duration_seconds.cpu().double().numpy(),
        "face_share": _face_share(output),
    }
    rows = []
    for i, position in enumerate(batch.positions):
        if position is None:
            continue
        error = batch.clips[i] if isinstance(batch.clips[i], ClipError) else output.errors[i]
        row = {"position": position, "error": None if error is None else error.reason}
        rows.append(row | {name: values[i].tolist() for name, values in columns.items()})
    return rows


def _face_share(output: ViPEROutput) -> np.ndarray:
    used, found = output.used.cpu(), (output.face_found & output.used).cpu()
    return (found.sum(1).double() / used.sum(1).clamp(min=1)).numpy()


def predictions_of(rows: Iterable[Row], model: ViPER, shards: ShardSet) -> Predictions:
    """Rows of all clips → predictions in the order of the shards; positions count the clips unshuffled."""
    rows = sorted(rows, key=lambda row: row["position"])
    labels = model.labels
    indices = [row["position"] for row in rows]
    entries = [shards.entry(index) for index in indices]
    valid = np.array([row["error"] is None for row in rows], dtype=bool)
    unlabelled = np.full(len(labels), np.nan)
    sees = any(name in SEEING for name in model.modalities)

    def column(name: str, width: int | None = None) -> np.ndarray:
        shape = (0,) if width is None else (0, width)
        # As float: JSON has null where a number was none.
        return np.array([row[name] for row in rows], dtype=np.float64) if rows else np.zeros(shape)

    return Predictions(
        labels=labels,
        modalities=model.modalities,
        keys=[entry.key for entry in entries],
        file_ids=[entry.file_id for entry in entries],
        shards=[shards.shard_of(index).path_or_url.partition("?")[0] for index in indices],
        predicted=np.where(valid[:, None], column("predicted", len(labels)), np.nan),
        true=np.array(
            [unlabelled if e.intensities is None else e.intensities for e in entries], dtype=np.float64
        ).reshape(len(rows), len(labels)),
        valid=valid,
        errors=[row["error"] for row in rows],
        present=column("present", len(model.modalities)).astype(bool),
        face_share=np.where(valid & sees, column("face_share"), np.nan),
        duration_seconds=np.where(valid, column("duration"), np.nan),
        subjects=[entry.subject for entry in entries],
    )


def score(predictions: Predictions) -> Scores:
    """Pearson, CCC and MSE over all clips that were read and are labelled."""
    sums = batch_sums(
        torch.from_numpy(predictions.predicted),
        torch.from_numpy(predictions.true),
        torch.from_numpy(predictions.scored.astype(np.float64)),
    )
    return scores_of_sums(sums, predictions.labels.names)


def scores_record(scores: Scores) -> dict[str, Any]:
    """Scores as JSON: means first, then one object per measure; undefined values become ``None``."""
    plain = asdict(scores)
    names = plain.pop("names")
    for measure in ("pearson", "ccc", "mse"):
        plain[measure] = {n: _finite(v) for n, v in zip(names, plain[measure], strict=True)}
        plain[f"mean_{measure}"] = _finite(plain[f"mean_{measure}"])
    return plain


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
