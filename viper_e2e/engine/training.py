"""training.py: the training loop: from positions in the shards' order to weights in a run folder."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch.utils.tensorboard import SummaryWriter

from .. import pretrained
from ..checkpoint import CheckpointError, newest_whole, write_folder
from ..clip_reader import DecodeSample
from ..decoding import ClipDecoder
from ..errors import ViperError
from ..loader import ClipBatch, ClipLoader
from ..losses import IntensityLoss, parse_loss
from ..metrics import Scores
from ..model import ViPER
from ..order import Cursor
from ..parsing import Settings
from ..predictions import Predictions
from ..prepared import PreparedClip
from ..report import figures
from ..reuse import ReuseStore, parse_size
from ..shards import ShardSet
from ..skips import SkipBudget
from . import training_state
from .display import branch_table, console, epoch_line, flat_numbers, progress_bar, seeds_table
from .evaluation import evaluate, rescaled, score, scores_record
from .optimizer import build_optimizer, build_schedule
from .run_folder import RunFolder
from .training_state import TrainingState, clip_seed, seed_step

MAX_BAD_STEPS = 3
SIGNALS = {signal.SIGTERM: 143, signal.SIGUSR1: 138, signal.SIGINT: 130}
"""What asks a run to stop after its current step, and the exit code it then has."""


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
        self.train_shards = open_labelled(self.config.train_shards, "--train-shards")
        self.val_shards = None
        if self.config.val_shards:
            self.val_shards = open_labelled(self.config.val_shards, "--val-shards")
            if self.val_shards.labels.names != self.train_shards.labels.names:
                raise ViperError("--val-shards: its emotions differ from those of --train-shards")
        self.loss = IntensityLoss(parse_loss(self.config.loss), len(self.train_shards.labels))
        self.held = ReuseStore(parse_size(self.config.reuse_memory))
        self.run = RunFolder(
            Path(self.config.run_dir), resume=self.config.resume, owner=accelerator.is_main_process
        )
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
        self.skips = SkipBudget()
        self.predictions: Predictions | None = None
        """Of the last validation."""
        self._board: SummaryWriter | None = None
        self._asked_to_stop: signal.Signals | None = None
        self._started_at = self._saved_at = time.monotonic()
        self._clips_done = 0

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
            self._board = SummaryWriter(str(self.run.path / "tensorboard"))
        with (
            self._listening(),
            self.loader,
            progress_bar(disable=not self.accelerator.is_main_process) as self._bar,
        ):
            self._task = self._bar.add_task(
                "training", total=self.total_steps, completed=self.state.step, note=""
            )
            while not self._finished() and self._epoch():
                pass
        return SIGNALS[self._asked_to_stop] if self._asked_to_stop else 0

    def close(self) -> None:
        """Let go of the run folder."""
        if self._board is not None:
            self._board.close()
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
            if stop or self._time_to_save():
                self._save(self.run.last)
            if stop:
                return False
        self._end_epoch()
        return True

    def _step(self, group: list[ClipBatch]) -> bool:
        """One optimizer step; returns whether any process was asked to stop."""
        seed_step(self.config.seed, self.state.step, self.accelerator.process_index)
        self._count_skips(group)
        own_weight = sum(float(batch.weights.sum()) for batch in group)
        total_weight, stopping = self._over_processes(own_weight, float(self._asked_to_stop is not None))
        value = 0.0
        for batch in group:
            with nullcontext() if batch.ends_step else self.accelerator.no_sync(self.model):
                value += self._backward(batch, total_weight)
        norm = self.accelerator.clip_grad_norm_(self._trained(), self.config.clip_norm or math.inf)
        if math.isfinite(value) and (torch.isfinite(norm) or self.accelerator.scaler is not None):
            self.optimizer.step()
            self.state.bad_steps = 0
        else:
            self._count_bad_step(group, value, float(norm))
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

    # --- what goes wrong --------------------------------------------------------------------------

    def _count_skips(self, group: list[ClipBatch]) -> None:
        """Write down unreadable clips, once each; too many stop the run."""
        for batch in group:
            records = batch.skip_records()
            self.skips.read(sum(position is not None for position in batch.positions) - len(records))
            for record in records:
                if self.skips.skip(record):
                    self.run.log("skipped.jsonl", record.to_json())
                if self.config.on_error == "raise":
                    raise ViperError(f"{record.exception} (shard {record.shard}; --on-error raise)")
        self.skips.check()

    def _count_bad_step(self, group: list[ClipBatch], value: float, norm: float) -> None:
        """No optimizer step on a loss or gradient that is no number; three in a row stop the run."""
        self.state.bad_steps += 1
        keys = [key for batch in group for key in batch.keys if key]
        record = {"step": self.state.step, "loss": str(value), "gradient_norm": str(norm), "keys": keys}
        self.run.log("nonfinite.jsonl", record)
        if self.state.bad_steps >= MAX_BAD_STEPS:
            raise ViperError(
                f"step {self.state.step}: loss {value}, gradient norm {norm}, {MAX_BAD_STEPS} steps in a row; "
                f"the clips are in {self.run.path / 'nonfinite.jsonl'}; lower --lr or use --mixed-precision no"
            )

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """A first signal ends the run after its step, a second at once."""

        def ask(number: int, frame: FrameType | None) -> None:
            if self._asked_to_stop is not None:
                raise SystemExit(SIGNALS[signal.Signals(number)])
            self._asked_to_stop = signal.Signals(number)

        previous = {number: signal.signal(number, ask) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

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
        if self.accelerator.is_main_process:
            self._report(record)
        for name in better:
            self._save(self.run.path / "checkpoints" / name, resumable=False)
        self._save(self.run.last)

    def _report(self, record: dict[str, Any]) -> None:
        """Log an epoch, draw it, and say it in one line."""
        self.run.log("metrics.jsonl", record)
        self._bar.console.print(epoch_line(record))
        for name, value in flat_numbers(record):
            self._board.add_scalar(name, value, record["step"])
        self._board.flush()
        self.run.plots.mkdir(exist_ok=True)
        figures.training_curves(self.run.read_log("metrics.jsonl"), self.run.plots / "curves.png")
        if self.predictions is not None and self.predictions.scored.any():
            figures.predicted_against_true(self.predictions, self.run.plots / "predicted_against_true.png")

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
        parts = {"optimizer": self.optimizer, "schedule": self.schedule, "loss": self.loss, "skips": self.skips}
        return parts | ({"scaler": self.accelerator.scaler} if self.accelerator.scaler else {})

    def _save(self, folder: Path, *, resumable: bool = True) -> None:
        self._saved_at = time.monotonic()
        if not self.accelerator.is_main_process:
            return

        def fill(new: Path) -> None:
            pretrained.write(self.module, new)
            if resumable:
                training_state.save(new, self.state, self._parts(), self.loader.quarantined)

        try:
            write_folder(folder, fill)
        except OSError as error:
            # A full or read-only disk must not end days of training; the last good folder is untouched.
            console.print(f"[yellow]{folder}: not saved ({error}); training goes on[/yellow]")

    def _time_to_save(self) -> bool:
        steps, minutes = self.config.save_every_steps, self.config.save_every_minutes
        return bool(
            (steps and self.state.step % steps == 0)
            or (minutes and time.monotonic() - self._saved_at > 60 * minutes)
        )

    def _restore(self) -> None:
        folder, damaged = newest_whole(self.run.last)
        for complaint in damaged:
            console.print(f"[yellow]{complaint}[/yellow]")
        if folder is None:
            raise CheckpointError(
                f"{self.run.last}: no undamaged checkpoint to resume from; start anew in another --run-dir"
            )
        pretrained.read_weights(self.module, folder)
        self.state, quarantined = training_state.load(folder, self._parts())
        self.loader.quarantined.update(quarantined)

    # --- small helpers ----------------------------------------------------------------------------

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

    def _count_step(self, value: float, num_clips: int) -> None:
        self.state.step += 1
        self.state.loss_sum += value
        self.state.loss_steps += 1
        if not self.accelerator.is_main_process:
            return
        self._clips_done += num_clips * self.accelerator.num_processes
        elapsed = time.monotonic() - self._started_at
        note = f"loss {value:.4f} · {self._clips_done / elapsed:.1f} clips/s"
        note += f" · waiting {self.loader.waiting_seconds / elapsed:.0%}"
        self._board.add_scalar("step/loss", value, self.state.step)
        self._board.add_scalar("step/lr", self.schedule.get_last_lr()[0], self.state.step)
        if self.held.budget_bytes:
            note += f" · held {self.held.num_held}"
        self._bar.update(self._task, completed=self.state.step, note=note)


def open_labelled(pattern: str, option: str) -> ShardSet:
    """Shards in which every clip has labels."""
    shards = ShardSet(pattern)
    if shards.labels is None or any(shards.entry(i).intensities is None for i in range(len(shards))):
        raise ViperError(f"{option} {pattern}: holds unlabelled clips; they can be scored, not trained on")
    return shards


def label_means(shards: ShardSet) -> tuple[float, ...]:
    """Mean of each emotion's labels over all clips."""
    return tuple(np.mean([shards.entry(i).intensities for i in range(len(shards))], axis=0).tolist())


def compute_dtype(mixed_precision: str) -> torch.dtype:
    """What frozen weights are stored in, and trained ones are computed in."""
    return {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[mixed_precision]
