"""yardstick.py: a ridge on the very tokens a run trains on: the score that the run should not stay below."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from viper_e2e.encoders import Stream
from viper_e2e.fusion import (
    MIN_CLIPS,
    EnsembleFusion,
    RidgeFit,
    block_sizes,
    fit_banded_ridge,
    fit_known,
    fit_ridge,
    num_features,
    pool,
    pooled_rows,
    predict,
)
from viper_e2e.loading import ClipBatch
from viper_e2e.model import ViPER
from viper_e2e.runtime import Processes
from viper_e2e.scoring import batch_sums, scores_record
from viper_e2e.scoring import scores as scores_of_sums

MAX_CLIPS = 5_000
MAX_BYTES = 400_000_000
"""Of float32 features; to fit them takes about eight times as much for a moment."""


class Table(NamedTuple):
    """Clips in the order of their epoch."""

    positions: Int[Tensor, " N"]
    features: Float[Tensor, "N F"]
    """Of `pooling.pooled_rows`, float32."""
    present: Bool[Tensor, "N M"]
    targets: Float[Tensor, "N E"]


class PooledRows:
    """Pooled features and labels of labelled clips, collected as their tokens pass through the model.

    Nothing is encoded for it, and nothing is drawn: modalities that are hidden from the fusion are seen here.
    """

    def __init__(self, module: ViPER, max_bytes: int = MAX_BYTES, max_clips: int | None = MAX_CLIPS):
        """Room for the clips at the first positions of an epoch, as many as fit."""
        self.widths = {name: encoder.embed_dim for name, encoder in module.encoders.items()}
        fitting = max_bytes // (4 * num_features(self.widths))
        self.max_clips = fitting if max_clips is None else min(max_clips, fitting)
        self.num_outputs = len(module.labels)
        self._passing: tuple[Tensor, Tensor] | None = None
        self.clear()

    def clear(self) -> None:
        self._tables = [
            Table(
                torch.zeros(0, dtype=torch.long),
                torch.zeros(0, num_features(self.widths)),
                torch.zeros(0, len(self.widths), dtype=torch.bool),
                torch.zeros(0, self.num_outputs),
            )
        ]

    @torch.no_grad()
    def see(
        self,
        streams: dict[str, Stream],
        face_found: Bool[Tensor, "B T"],
        duration_seconds: Float[Tensor, " B"],
    ) -> None:
        """Look at a pass, as `ViPER.watch`; the last one counts."""
        pooled = pool(streams, face_found, duration_seconds)
        self._passing = pooled_rows(pooled), torch.stack([s.present for s in pooled.values()], 1)

    def add(self, batch: ClipBatch) -> None:
        """The clips of a batch that has just passed, without those that lack labels or a finite row."""
        assert self._passing is not None, "the batch must have passed through the model"
        features, present = (rows.detach().cpu() for rows in self._passing)
        self._passing = None
        assert len(features) == len(batch.positions)
        positions = torch.tensor([-1 if p is None else p for p in batch.positions])
        counts = (batch.weights.cpu() > 0) & (positions >= 0) & (positions < self.max_clips)
        counts &= features.isfinite().all(1)
        rows = positions, features.float(), present, batch.intensities.detach().cpu().float()
        self._tables.append(Table(*(column[counts] for column in rows)))

    def own(self) -> Table:
        """Rows of this process, in the order in which they came."""
        self._tables = [Table(*(torch.cat(columns) for columns in zip(*self._tables, strict=True)))]
        return self._tables[0]

    def gather(self, processes: Processes) -> Table:
        """Rows of all processes, put in order, so that the number of processes does not matter."""
        tables = processes.gather_list([self.own()], purpose="gathering pooled tokens")
        joined = Table(*(torch.cat(columns) for columns in zip(*tables, strict=True)))
        order = joined.positions.argsort()
        return Table(*(column[order] for column in joined))

    def restore(self, columns: Mapping[str, Tensor]) -> None:
        """Go on from saved rows."""
        self.clear()
        self._tables.append(Table(**columns))

    def known(self, table: Table) -> Bool[Tensor, "N F"]:
        sizes = torch.tensor([num_features({name: width}) for name, width in self.widths.items()])
        return table.present.repeat_interleave(sizes, 1)

    def fit(self, table: Table) -> RidgeFit:
        return fit_known(fit_ridge, table.features, table.targets, self.known(table))

    def fit_banded(self, table: Table) -> RidgeFit:
        """With a penalty for each part of each modality."""
        sizes = block_sizes(self.widths)
        return fit_known(
            lambda features, targets, known: fit_banded_ridge(features, targets, sizes, known),
            table.features,
            table.targets,
            self.known(table),
        )


class Yardstick:
    """Collects during a run's first epoch, is fitted at its end and scored on the validation clips.

    Backbones that train change while rows are collected: it is the score on the tokens of the first epoch:
    of frozen backbones where they begin to train later.
    """

    def __init__(
        self,
        module: ViPER,
        processes: Processes,
        *,
        validates: bool,
        tells: bool = True,
        rows: PooledRows | None = None,
    ):
        """``validates``: whether there are clips to score it on. ``tells`` False: whether or not, it only
        collects."""
        self.module, self.processes, self.validates, self.tells = module, processes, validates, tells
        self.rows = rows or PooledRows(module)
        self.head = module.fusion if isinstance(module.fusion, EnsembleFusion) else None
        """Has a ridge as its part, which needs the rows whether or not there is anything to tell."""
        self.is_collecting = self._has_gap = False
        self._epoch = 0
        self._num_fitted = 0
        self._validation: PooledRows | None = None
        self._gathered: Table | None = None
        self.enter(0)

    def enter(self, epoch: int) -> None:
        """Collect in the first epoch, also where it is entered again midway, and in later ones for a head with
        a ridge whose tokens go on changing; let go of what came from other epochs.

        No step moves that ridge: one of tokens as they were would answer for tokens that are no more. What is
        told stays the first epoch's.
        """
        if self.head is not None:
            changes = not all(encoder.is_frozen for encoder in self.module.encoders.values())
            self.is_collecting = epoch == 0 or changes
        else:
            self.is_collecting = epoch == 0 and self.validates
        if epoch != self._epoch or not self.is_collecting:
            self.rows.clear()
        self._epoch, self._gathered = epoch, None
        self.module.watch = self.rows.see if self.is_collecting else None

    def fit_head(self) -> None:
        """At the end of an epoch, by all processes: the ridge of a head that has one."""
        if self.head is None or not self.is_collecting:
            return
        table = self.rows.gather(self.processes)
        if len(table.targets) >= MIN_CLIPS:
            self._num_fitted = len(table.targets)
            self.head.fit(self.rows.fit_banded(table))

    def add(self, batch: ClipBatch) -> None:
        if self.is_collecting:
            self.rows.add(batch)

    @contextmanager
    def validating(self, see: Callable[[ClipBatch], None]) -> Iterator[Callable[[ClipBatch], None]]:
        """Collect validation clips too; yields what is to see each of their batches in place of ``see``."""
        if not (self._epoch == 0 and self.is_collecting and self.validates and self.tells):
            yield see
            return
        rows = self._validation = PooledRows(self.module)

        def both(batch: ClipBatch) -> None:
            rows.add(batch)
            see(batch)

        self.module.watch = rows.see
        try:
            yield both
        finally:
            self.module.watch = self.rows.see

    def record(self, num_clips: int) -> dict[str, Any]:
        """Its scores for ``metrics.jsonl``, or the ``reason`` why there are none; all processes must ask.

        ``num_clips``: of the training shards.
        """
        if not self.validates:
            reason = {"reason": "there are no --val-shards to score it on"}
            # Where a ridge is part of the head, the clips that it has seen must still be known.
            is_bounded = self._num_fitted > 0 and self.rows.max_clips < num_clips
            return reason | ({"num_train_clips": self._num_fitted, "of_clips": num_clips} if is_bounded else {})
        if self._has_gap:
            return {"reason": "the run went on in its first epoch from a checkpoint of an older version"}
        assert self._validation is not None
        train, val = self.rows.gather(self.processes), self._validation.gather(self.processes)
        self._validation = None
        if len(train.targets) < MIN_CLIPS:
            return {"reason": f"it needs {MIN_CLIPS} labelled clips that can be read"}
        record = {"num_train_clips": len(train.targets), "num_features": train.features.shape[1]}
        if self.rows.max_clips < num_clips:
            record["of_clips"] = num_clips
        if not self.processes.is_main:
            return record
        predicted = predict(self.rows.fit(train), val.features, self.rows.known(val))
        sums = batch_sums(predicted, val.targets, torch.ones(len(val.targets)))
        return record | scores_record(scores_of_sums(sums, self.module.labels.names))

    # --- as a part of the saved state -------------------------------------------------------------

    def gather(self) -> None:
        """Before saving, by all processes."""
        self._gathered = self.rows.gather(self.processes) if self.is_collecting else None

    def state_dict(self) -> dict[str, Tensor]:
        """As of the last `gather`; empty after the first epoch."""
        return {} if self._gathered is None else self._gathered._asdict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Into the first process, whatever their number was; ``enter`` comes before."""
        self._has_gap = self.is_collecting and not state
        self.rows.clear()
        if self.is_collecting and state and self.processes.is_main:
            self.rows.restore(state)


# --- in words ---------------------------------------------------------------------------------------


def line(record: Mapping[str, Any]) -> str:
    """What a record says, in a line."""
    among = f"the first {record['num_train_clips']:,} of {record['of_clips']:,}" if "of_clips" in record else ""
    if "reason" in record:
        head = f"; the ridge in this head is fitted to {among} clips" if among else ""
        return f"yardstick (ridge on the same tokens): none, {record['reason']}{head}"
    pearson = record["mean_pearson"]
    told = "undefined" if pearson is None else f"mean Pearson {pearson:.4f}"
    clips = among or f"{record['num_train_clips']:,}"
    return f"yardstick (ridge on the same tokens): {told}  {clips} clips, {record['num_features']:,} features"


def provenance_of_yardstick(log: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What a run's checkpoints say of it; nothing where it has no score. ``log``: the run's metrics."""
    record: Mapping[str, Any] = next((line["yardstick"] for line in log if "yardstick" in line), {})
    if record.get("mean_pearson") is None:
        return {}
    return {"yardstick": {name: record[name] for name in ("mean_pearson", "num_train_clips")}}


WHAT_HELPS = (
    "What usually helps: a smaller head (--model.fusion.dim 64 --model.fusion.latent-dim 64 "
    "--model.fusion.num-latents 8), frozen backbones (--freeze all), more clips of more people, more "
    "epochs if the training loss still falls; or take the ridge itself: --head ridge"
)


def verdict(log: list[dict[str, Any]]) -> str | None:
    """A line for a run that ended below its yardstick; see `WHAT_HELPS`. ``log``: its metrics."""
    ridge = next((r["yardstick"].get("mean_pearson") for r in log if r.get("yardstick")), None)
    reached = [r["val"]["mean_pearson"] for r in log if r.get("val")]
    best = max((value for value in reached if value is not None), default=None)
    if ridge is None or best is None or best >= ridge:
        return None
    return (
        f"below the yardstick: a ridge on the same tokens has a mean Pearson of {ridge:.4f}, this model at its "
        f"best {best:.4f}; it learns its clips by heart, or has not learned them yet."
    )
