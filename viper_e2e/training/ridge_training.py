"""ridge_training.py: `viper train --head ridge`: one pass over the clips, then the head in closed form."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from accelerate import Accelerator

from viper_e2e.config import Frozen, Settings, backbones_of, option_of
from viper_e2e.encoders import TokenCache
from viper_e2e.errors import ViperError
from viper_e2e.fusion import MIN_CLIPS, RidgeFusion
from viper_e2e.loading import ClipBatch
from viper_e2e.runtime import Processes
from viper_e2e.training.pooled_features import PooledRows
from viper_e2e.training.shared_clips import SharedClips
from viper_e2e.training.trainer import Trainer
from viper_e2e.training.yardstick import Yardstick

MAX_BYTES = 1_000_000_000
"""Of float32 features of training clips; `ViperError` beyond: a head that left clips out would not say so."""


OF_STEPS = (
    *("epochs", "patience", "accumulation", "lr", "backbone_lr", "layer_decay", "weight_decay", "schedule"),
    *("warmup_fraction", "halve_epochs", "clip_norm", "loss", "reuse_memory"),
    *("model.fusion.change", "model.fusion.dim", "model.fusion.num_latents", "model.fusion.latent_dim"),
    *("model.fusion.depth", "model.fusion.self_attends_per_block", "model.fusion.num_cross_heads"),
    *("model.fusion.hidden_dim", "model.fusion.hidden_dropout", "model.fusion.num_latent_heads"),
    *("model.fusion.dropout", "modality_dropout"),
)
"""Settings of learning by steps, of later epochs, and of the head that learns so: nothing here reads them."""


class RidgeTrainer(Trainer):
    """A run of one epoch in which nothing is learned by steps; stopped midway, it resumes like any other.

    The checkpoint of a run that was stopped holds the ridge of the clips that have passed.
    """

    def __init__(
        self,
        settings: Settings,
        accelerator: Accelerator,
        processes: Processes | None = None,
        *,
        clips: SharedClips | None = None,
    ):
        for complaint in complaints_of_ridge(settings):
            raise ViperError(f"--head ridge: {complaint}")
        settings = replace(settings, train=replace(settings.train, epochs=1))
        super().__init__(settings, accelerator, processes, clips=clips)
        rows = PooledRows(self.module, MAX_BYTES, max_clips=None)
        if len(self.train_shards) > rows.max_clips:
            raise ViperError(
                f"--head ridge: the pooled tokens of {len(self.train_shards):,} clips do not fit into "
                f"{MAX_BYTES / 1e9:g} GB, those of {rows.max_clips:,} do: train on fewer shards, or with fewer "
                "--modalities"
            )
        # What is fitted is the yardstick itself: collected and saved like it, but not told beside itself.
        self.yardstick = Yardstick(self.module, self.processes, validates=True, tells=False, rows=rows)

    def _measure(self, group: list[ClipBatch]) -> None:
        """No step of an optimizer takes memory."""

    def _step(self, group: list[ClipBatch]) -> bool:
        save, _ = self._begin_step(group)
        with torch.no_grad():
            for batch in group:
                prepared, cache = self.module.prepare(batch.clips), TokenCache()
                batch = self._without_failed(batch, prepared)
                output = self.module(prepared, cache=cache, keep_streams=True)
                self.yardstick.add(batch, output)
                self.absent_modalities.add(output, batch.weights)
                self._keep_all(batch.keys, prepared, cache)
        self._count_step(None, sum(position is not None for b in group for position in b.positions))
        return save or self.saver.is_due(self.state.step)

    def _end_epoch(self) -> None:
        self._fit()
        super()._end_epoch()

    def _save_last(self) -> None:
        if self.yardstick.is_collecting:
            self._fit(at_least=MIN_CLIPS)
        super()._save_last()

    def _fit(self, at_least: int = 0) -> None:
        """Every process fits the same rows. ``at_least``: fewer leave the head as it is."""
        table = self.yardstick.rows.gather(self.processes)
        if len(table.targets) >= at_least:
            assert isinstance(self.module.fusion, RidgeFusion), "chosen by its kind"
            self.module.fusion.linear.take(self.yardstick.rows.fit(table))


def complaints_of_ridge(settings: Settings) -> Iterator[str]:
    """What was asked for and has no part in a closed form over frozen tokens."""
    depths, backbones = settings.train.unfreeze, backbones_of(settings.model)
    trained = [name for name, b in backbones.items() if b.lora_rank or depths.of(name) != Frozen()]
    if trained or settings.train.unfreeze_at:
        names = ", ".join(trained) or str(settings.train.unfreeze_at)
        yield f"trains no backbones, and {names} would be; give --freeze all, without --unfreeze and --lora"
    if settings.train.augment:
        yield "clips pass once and as they are; leave out --augment"
    if settings.train.ema_decay:
        yield "there are no steps to average over; leave out --ema-decay"
    # Its one epoch may be asked for: a run's `config.yaml` does.
    unread = [n for n in OF_STEPS if n in settings.given and not (n == "epochs" and settings.train.epochs == 1)]
    if unread:
        names = ", ".join(map(option_of, unread))
        yield f"learns nothing by steps and passes once; without effect, so leave out: {names}"
