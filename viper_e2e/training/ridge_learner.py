"""ridge_learner.py: `viper train --head ridge`: one pass over the clips, then the head in closed form."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from viper_e2e.config import Frozen, Settings, backbones_of, option_of
from viper_e2e.encoders import TokenCache
from viper_e2e.errors import ViperError
from viper_e2e.fusion import MIN_CLIPS, RidgeFusion
from viper_e2e.loading import ClipBatch
from viper_e2e.training.pooled_features import PooledRows
from viper_e2e.training.state import TrainingState
from viper_e2e.training.yardstick import Yardstick

if TYPE_CHECKING:
    from viper_e2e.training.training_run import TrainingRun

MAX_BYTES = 1_000_000_000
"""Most bytes of float32 features of training clips. More is an error: a head that left clips out would
not say so."""


OF_STEPS = (
    *("epochs", "patience", "accumulation", "lr", "backbone_lr", "layer_decay", "weight_decay", "schedule"),
    *("warmup_fraction", "halve_epochs", "clip_norm", "loss", "reuse_memory"),
    *("class_weights", "label_smoothing", "focal_gamma", "task_weights"),
    *("model.fusion.change", "model.fusion.dim", "model.fusion.num_latents", "model.fusion.latent_dim"),
    *("model.fusion.depth", "model.fusion.self_attends_per_block", "model.fusion.num_cross_heads"),
    *("model.fusion.hidden_dim", "model.fusion.hidden_dropout", "model.fusion.num_latent_heads"),
    *("model.fusion.dropout", "modality_dropout"),
)
"""Settings of learning by steps, of later epochs, and of the head that learns so: nothing here reads them."""


class RidgeLearner:
    """A `Learner` of the head alone, in a run of one epoch; stopped midway, it resumes like any other.

    The checkpoint of a run that was stopped holds the ridge of the clips that have passed.
    """

    lr = None

    def __init__(self, run: TrainingRun):
        """``run``: with settings of `settings_of_ridge`."""
        assert isinstance(run.module.fusion, RidgeFusion), "chosen by its kind"
        self.run, self.head = run, run.module.fusion
        rows = PooledRows(run.module, MAX_BYTES, max_clips=None)
        if len(run.train_shards) > rows.max_clips:
            raise ViperError(
                f"--head ridge: the pooled tokens of {len(run.train_shards):,} clips do not fit into "
                f"{MAX_BYTES / 1e9:g} GB, those of {rows.max_clips:,} do: train on fewer shards, or with fewer "
                "--modalities"
            )
        # What is fitted is the yardstick itself: collected and saved like it, but not told beside itself.
        self.yardstick = Yardstick(run.module, run.processes, validates=True, tells=False, rows=rows)

    def task_weights(self) -> dict[str, float]:
        return {}

    def enter(self, epoch: int) -> None:
        self.yardstick.enter(epoch)

    def measure(self, group: list[ClipBatch]) -> None:
        """No gradient takes memory."""

    def step(self, group: list[ClipBatch], total_weight: Tensor, state: TrainingState) -> None:
        run = self.run
        with torch.no_grad():
            for batch in group:
                prepared, cache = run.module.prepare(batch.clips), TokenCache()
                batch = run.guard.without_failed(batch, prepared, run.quarantine.train)
                output = run.module(prepared, cache=cache, keep_streams=True)
                self.yardstick.add(batch, output)
                run.absent_modalities.add(output, batch.weights)
                run.hold(batch.keys, prepared, cache)

    def end_epoch(self) -> None:
        self._fit()

    def gather(self) -> None:
        if self.yardstick.is_collecting:
            self._fit(at_least=MIN_CLIPS)
        self.yardstick.gather()

    def parts(self) -> dict[str, Any]:
        return {}

    def resume(self, total_steps: int) -> None:
        """No rates to be set."""

    def _fit(self, at_least: int = 0) -> None:
        """Every process fits the same rows. ``at_least``: fewer leave the head as it is."""
        table = self.yardstick.rows.gather(self.run.processes)
        if len(table.targets) >= at_least:
            self.head.linear.take(self.yardstick.rows.fit(table))


def settings_of_ridge(settings: Settings) -> Settings:
    """Settings with the one epoch that it takes; `ViperError` for those that have no effect on it."""
    for complaint in complaints_of_ridge(settings):
        raise ViperError(f"--head ridge: {complaint}")
    return replace(settings, train=replace(settings.train, epochs=1))


def complaints_of_ridge(settings: Settings) -> Iterator[str]:
    """Complaints about settings that have no effect on a closed form over frozen tokens."""
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
