"""pooled_features.py: collects pooled tokens and labels of clips for a ridge while a model trains on them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from viper_e2e.fusion import (
    RidgeFit,
    block_sizes,
    fit_banded_ridge,
    fit_known,
    fit_ridge,
    magnitudes,
    num_features,
    pool,
    pooled_rows,
)
from viper_e2e.loading import ClipBatch
from viper_e2e.model import ViPER, ViPEROutput
from viper_e2e.runtime import Processes

MAX_CLIPS = 5_000
MAX_BYTES = 400_000_000
"""Most bytes of float32 features; a fit takes about eight times as many for a moment."""


class Table(NamedTuple):
    """Clips in the order of their epoch."""

    positions: Int[Tensor, " N"]
    features: Float[Tensor, "N F"]
    """Rows of `pooling.pooled_rows`, float32."""
    present: Bool[Tensor, "N M"]
    targets: Float[Tensor, "N E"]


class PooledRows:
    """Pooled features and labels of labelled clips, collected from the model's outputs.

    Nothing is encoded for it, and nothing is drawn: modalities that are hidden from the fusion are seen here.
    """

    def __init__(self, module: ViPER, max_bytes: int = MAX_BYTES, max_clips: int | None = MAX_CLIPS):
        """Room for the clips at the first positions of an epoch, as many as fit."""
        self.widths = {name: encoder.embed_dim for name, encoder in module.encoders.items()}
        fitting = max_bytes // (4 * num_features(self.widths))
        self.max_clips = fitting if max_clips is None else min(max_clips, fitting)
        self.num_outputs = len(module.labels)
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
    def add(self, batch: ClipBatch, output: ViPEROutput) -> None:
        """The clips of a batch, without those that lack labels or a finite row.

        ``output``: with its streams.
        """
        assert output.streams is not None, "the model was asked for them"
        pooled = pool(output.streams, output.face_found, output.duration_seconds)
        features = pooled_rows(pooled).cpu()
        present = torch.stack([stream.present for stream in pooled.values()], 1).cpu()
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
        known = self.known(table)
        scale = magnitudes(table.features, known, self.widths)
        return fit_known(partial(fit_ridge, magnitudes=scale), table.features, table.targets, known, scale)

    def fit_banded(self, table: Table) -> RidgeFit:
        """Fit with a penalty for each part of each modality."""
        known, blocks = self.known(table), block_sizes(self.widths)
        scale = magnitudes(table.features, known, self.widths)
        fit = partial(fit_banded_ridge, block_sizes=blocks, magnitudes=scale)
        return fit_known(
            lambda features, targets, known: fit(features, targets, known=known),
            table.features,
            table.targets,
            known,
            scale,
        )
