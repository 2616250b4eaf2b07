"""training.py: the training loop: from positions in the shards' order to weights in a run folder."""

from __future__ import annotations

import math
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs

from ..clip_reader import DecodeSample
from ..decoding import ClipDecoder
from ..loader import ClipBatch, ClipLoader
from ..losses import IntensityLoss, parse_loss
from ..metrics import Scores
from ..model import ViPER
from ..order import Cursor
from ..parsing import Settings
from ..predictions import Predictions
from ..prepared import PreparedClip
from ..reuse import ReuseStore, parse_size
from ..shards import ShardSet
from .display import branch_table, console, seeds_table
from .evaluation import evaluate, rescaled, score, scores_record
from .guarding import Guard, StopRequest
from .labelled import label_means, open_splits
from .optimizer import build_optimizer, build_schedule
from .reporting import Reporter
from .run_folder import RunFolder
from .saving import Saver
from .training_state import TrainingState, clip_seed, seed_step


def train(settings: Settings) -> int:
    """Train as the settings say; returns the exit code: 0, or the signal's if one asked to stop."""
    accelerator = Accelerator(
        mixed_precision=settings.train.mixed_precision,
        step_scheduler_with_optimizer=False,
        # The detector's weights are buffers: the same everywhere, and not to be sent at every step.
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )
    code, last_scores = 0, []
    for run in seeded(settings):
        trainer = Trainer(run, accelerator)
        try:
            code = trainer.train()
        finally:
            trainer.close()
        if code or trainer.predictions is None:
            break
        last_scores.append(score(trainer.predictions))
    if len(last_scores) > 1 and accelerator.is_main_process:
        console.print(seeds_table(last_scores))
    accelerator.end_training()
    return code


def seeded(settings: Settings) -> list[Settings]:
    """The runs that ``seeds`` asks for: one, or one per seed in ``run_dir/seed-N``."""
    config = settings.train
    if config.seeds == 1:
        return [settings]
    numbers = range(config.seed, config.seed + config.seeds)
    return [
        Settings(
            replace(config, seed=n, seeds=1, run_dir=f"{config.run_dir}/seed-{n}"), deepcopy(settings.model)
        )
        for n in numbers
    ]


class Trainer:
    """One run. Building it checks everything that can be checked before anything expensive."""

    def __init__(self, settings: Settings, accelerator: Accelerator):
        self.settings, self.config, self.accelerator = settings, settings.train, accelerator
        self.train_shards, self.val_shards = open_splits(self.config)
        self.loss = IntensityLoss(parse_loss(self.config.loss), len(self.train_shards.labels))
        self.held = ReuseStore(parse_size(self.config.reuse_memory))
        is_main = accelerator.is_main_process
        self.run = RunFolder(Path(self.config.run_dir), resume=self.config.resume, owner=is_main)
        accelerator.wait_for_everyone()
        torch.manual_seed(self.config.seed)
        labels = replace(self.train_shards.labels, means=label_means(self.train_shards))
        self.module = ViPER(settings.model, labels).to(accelerator.device)
        self.module.set_compute_dtype(compute_dtype(self.config.mixed_precision))
        self.loss.to(accelerator.device)
        self.loader = self._loader(self.train_shards, shuffle=True)
        steps_per_epoch = self.loader.num_steps()
        self.total_steps = min(
            steps_per_epoch * self.config.epochs, self.config.max_steps or steps_per_epoch * self.config.epochs
        )
        optimizer = build_optimizer(self.module, self.config)
        self.schedule = build_schedule(optimizer, self.config, steps_per_epoch, self.total_steps)
        self.model, self.optimizer = accelerator.prepare(self.module, optimizer)
        self.state = TrainingState(Cursor(self.config.seed))
        self.guard = Guard(self.run, self.config.on_error)
        self.saver = Saver(self.run, self.config, self.module, writes=is_main)
        self.reporter = Reporter(self.run, speaks=is_main)
        self.stop = StopRequest()
        self.predictions: Predictions | None = None
        """Of the last validation."""

    # --- the loop ---------------------------------------------------------------------------------

    def train(self) -> int:
        """Train to the end or to a signal; returns the exit code."""
        if self.config.resume:
            self._restore()
        if self.accelerator.is_main_process:
            self.run.write_settings(self.settings.to_dict())
            console.print(branch_table(self.module))
            for problem in self.train_shards.problems:
                console.print(f"[yellow]{problem}[/yellow]")
        with self.stop.listening(), self.loader, self.reporter.showing(self.state.step, self.total_steps):
            while not self._finished() and self._epoch():
                pass
        return self.stop.exit_code

    def close(self) -> None:
        """Let go of the run folder."""
        self.run.release()

    def _finished(self) -> bool:
        return self.state.step >= self.total_steps and self.state.validated_step == self.state.step

    def _epoch(self) -> bool:
        """One epoch from wherever the cursor stands, then validation; False if asked to stop."""
        cursor = self.state.cursor
        self.model.train()
        batches = self.loader.epoch(cursor.epoch, cursor.position)
        while self.state.step < self.total_steps:
            group = list(islice(batches, self.config.accumulation))
            if not group:
                break
            stop = self._step(group)
            self.state.cursor = Cursor(cursor.seed, cursor.epoch, group[-1].next_position)
            if stop or self.saver.is_due(self.state.step):
                self._save_last()
            if stop:
                return False
        self._end_epoch()
        return True

    def _step(self, group: list[ClipBatch]) -> bool:
        """One optimizer step; returns whether any process was asked to stop."""
        seed_step(self.config.seed, self.state.step, self.accelerator.process_index)
        self.guard.count_skips(group)
        own_weight = sum(float(batch.weights.sum()) for batch in group)
        total_weight, stopping = self._over_processes(own_weight, float(self.stop.signal is not None))
        value = 0.0
        for batch in group:
            with nullcontext() if batch.ends_step else self.accelerator.no_sync(self.model):
                value += self._backward(batch, total_weight)
        norm = self.accelerator.clip_grad_norm_(self._trained(), self.config.clip_norm or math.inf)
        if math.isfinite(value) and (torch.isfinite(norm) or self.accelerator.scaler is not None):
            self.optimizer.step()
            self.state.bad_steps = 0
        else:
            self.guard.count_bad_step(self.state, group, value, float(norm))
        self.optimizer.zero_grad()
        self.schedule.step()
        self._count_step(value, sum(position is not None for b in group for position in b.positions))
        return stopping > 0

    def _backward(self, batch: ClipBatch, total_weight: float) -> float:
        prepared = self.module.prepare(batch.clips)
        output = self.model(prepared, [clip_seed(self.config.seed, batch.epoch, key) for key in batch.keys])
        device = output.intensities.device
        loss = self.loss(
            rescaled(output.intensities) if self.config.rescale else output.intensities,
            batch.intensities.to(device),
            batch.weights.to(device),
            torch.tensor(total_weight, device=device),
            self.accelerator.gather if self.accelerator.num_processes > 1 else None,
            self.accelerator.process_index,
        )
        self.accelerator.backward(loss.loss)
        for key, clip in zip(batch.keys, prepared, strict=True):
            if self.held.budget_bytes and isinstance(clip, PreparedClip) and key not in self.held:
                self.held.offer(key, self.module.hold(clip))
        return loss.value.item()

    def _trained(self) -> list[torch.nn.Parameter]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def _over_processes(self, *numbers: float) -> list[float]:
        tensor = torch.tensor(numbers, dtype=torch.float64, device=self.accelerator.device)
        return self.accelerator.reduce(tensor, reduction="sum").tolist()

    def _count_step(self, value: float, num_clips: int) -> None:
        self.state.step += 1
        self.state.loss_sum += value
        self.state.loss_steps += 1
        self.reporter.count_step(
            self.state.step,
            value,
            self.schedule.get_last_lr()[0],
            num_clips * self.accelerator.num_processes,
            waited_seconds=self.loader.waiting_seconds,
            num_held=self.held.num_held if self.held.budget_bytes else None,
        )

    # --- the end of an epoch ----------------------------------------------------------------------

    def _end_epoch(self) -> None:
        record: dict[str, Any] = {
            "epoch": self.state.cursor.epoch,
            "step": self.state.step,
            "train_loss": self.state.loss_sum / max(1, self.state.loss_steps),
        }
        better = []
        if self.val_shards is not None:
            with self._loader(self.val_shards, shuffle=False) as loader:
                self.predictions = evaluate(self.module, loader, self.accelerator, rescale=self.config.rescale)
            scores = score(self.predictions)
            record["val"] = scores_record(scores)
            better = self._improved(scores)
        if self.state.cursor.position >= len(self.train_shards):
            self.state.cursor = Cursor(self.config.seed, self.state.cursor.epoch + 1, 0)
        self.state.loss_sum, self.state.loss_steps = 0.0, 0
        self.state.validated_step = self.state.step
        self.reporter.report_epoch(record, self.predictions)
        for name in better:
            self.saver.save_model(name)
        self._save_last()

    def _improved(self, scores: Scores) -> list[str]:
        """Names of the checkpoints for which these scores are the best so far."""
        better = []
        for name, value in (("best", scores.mean_pearson), ("best_mse", -scores.mean_mse)):
            if math.isfinite(value) and value > self.state.best.get(name, -math.inf):
                self.state.best[name] = value
                better.append(name)
        return better

    # --- saving and going on ----------------------------------------------------------------------

    def _parts(self) -> dict[str, Any]:
        parts = {
            "optimizer": self.optimizer,
            "schedule": self.schedule,
            "loss": self.loss,
            "skips": self.guard.skips,
        }
        return parts | ({"scaler": self.accelerator.scaler} if self.accelerator.scaler else {})

    def _save_last(self) -> None:
        self.saver.save_last(self.state, self._parts(), self.loader.quarantined)

    def _restore(self) -> None:
        self.state, quarantined = self.saver.restore(self._parts())
        self.loader.quarantined.update(quarantined)

    def _loader(self, shards: ShardSet, *, shuffle: bool) -> ClipLoader:
        config = self.config
        return ClipLoader(
            shards,
            DecodeSample(ClipDecoder(self.settings.model.decoding)),
            batch_size=config.batch_size,
            seed=config.seed,
            shuffle=shuffle,
            shuffle_window=config.shuffle_window,
            num_workers=config.num_workers,
            prefetch=config.prefetch,
            process_index=self.accelerator.process_index,
            num_processes=self.accelerator.num_processes,
            accumulation=config.accumulation if shuffle else 1,
            clip_timeout_seconds=config.clip_timeout_seconds,
            held=self.held.get if shuffle and self.held.budget_bytes else None,
        )


def compute_dtype(mixed_precision: str) -> torch.dtype:
    """What frozen weights are stored in, and trained ones are computed in."""
    return {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[mixed_precision]
