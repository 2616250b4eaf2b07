"""trainer.py: the training loop: from positions in the shards' order to weights in a run folder."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import islice

import torch
from torch import Tensor

from viper_e2e.loading import ClipBatch, Cursor
from viper_e2e.report import EpochRecord, ValidationRecord
from viper_e2e.runtime import console, count_of
from viper_e2e.training.data import reading_of
from viper_e2e.training.guarding import MAX_BAD_STEPS
from viper_e2e.training.task_losses import label_weights
from viper_e2e.training.training_run import TrainingRun
from viper_e2e.training.validation import improved, provenance_of_scores
from viper_e2e.training.yardstick import provenance_of_yardstick


class Trainer(TrainingRun):
    """A run, trained step by step: epochs of optimizer steps, with a validation after each."""

    def train(self) -> int:
        """Train to the end or to a signal; returns the exit code."""
        if self.config.resume and not self._restore() and self.processes.is_main:
            console.print("[yellow]nothing was saved before the run ended; it starts again[/yellow]")
        if self.processes.is_main:
            self._write_settings()
            self._note_provenance()
            self._tell_beginning()
        with self.stop.listening(), self.loader, self.reporter.showing(self.state.step, self.total_steps):
            self.forecast.begin()
            while not self._is_finished() and self._epoch():
                pass
        if self._is_out_of_patience() and self.processes.is_main:
            epoch, count = self.state.cursor.epoch, self.state.epochs_without_better
            console.print(
                f"ended after epoch {epoch}: {count_of(count, 'epoch')} brought no better model (--patience)"
            )
        return self.stop.exit_code

    def _epoch(self) -> bool:
        """From the cursor to the end of its epoch, then validation; False if asked to stop."""
        cursor = self.state.cursor
        self.module.train()
        self.absent_modalities.begin(cursor.position)
        batches = self.loader.epoch(cursor.epoch, cursor.position)
        self.reporter.begin_epoch(
            waited_seconds=self.loader.stream.waiting_seconds, stage_seconds=self.clock.seconds
        )
        while self.state.step < self.total_steps:
            group = list(islice(batches, self.config.accumulation))
            if not group:
                break
            self.learner.measure(group)
            self.hooks.before_step(self, group)
            save = self._step(group)
            self.hooks.after_step(self, group)
            self.state.cursor = Cursor(cursor.seed, cursor.epoch, group[-1].next_position)
            if self.state.bad_steps >= MAX_BAD_STEPS:
                batches.close()
                self._go_back()
                return True
            # While steps go wrong the last checkpoint stays the one to go back to.
            if (save and not self.state.bad_steps) or self.stop.agreed:
                self._save_last()
            if self.stop.agreed:
                return False
        self._end_epoch()
        return True

    def _step(self, group: list[ClipBatch]) -> bool:
        """One step, on which all processes agree; returns whether it is time to save."""
        save, total_weight = self._begin_step(group)
        value = self.learner.step(group, total_weight, self.state)
        self._count_step(
            value if total_weight.any() else None,
            sum(position is not None for b in group for position in b.positions),
        )
        return save or self.saver.is_due(self.state.step)

    def _begin_step(self, group: list[ClipBatch]) -> tuple[bool, Tensor]:
        """Agree on signals and on the clips that cannot be used; whether to save, and each task's clips."""
        skips = self.guard.own_skips(group)
        labels = self.module.labels
        own = torch.tensor([label_weights(labels, b.intensities, b.weights) for b in group])
        table = self.processes.gather_scalars(
            len(skips),
            self.stop.own or 0,
            float(self.saver.is_overdue),
            *own.sum(0).tolist(),
            purpose=f"beginning step {self.state.step}",
        )
        self.stop.agree([int(number) for number in table[:, 1]])
        positions = range(self.state.cursor.position, group[-1].next_position)
        self.guard.count_skips(positions, skips, int(table[:, 0].sum()))
        return bool(table[0, 2]), table[:, 3:].sum(0)

    def _count_step(self, value: float | None, num_clips: int) -> None:
        """``value``: the loss; None where no clip of the step could be used."""
        self.guard.count_late_skips()
        self.state.step += 1
        if value is not None and math.isfinite(value):
            self.state.loss_sum += value
            self.state.loss_steps += 1
        self.reporter.count_step(
            self.state.step,
            math.nan if value is None else value,
            self.learner.lr,
            num_clips * self.processes.count,
            waited_seconds=self.loader.stream.waiting_seconds,
            num_cached=self.clip_cache.num_cached if self.clip_cache.budget_bytes else None,
            stage_seconds=self.clock.seconds,
        )
        self.forecast.see(num_clips)

    # --- the end of an epoch ----------------------------------------------------------------------

    def _end_epoch(self) -> None:
        self.guard.skips.end()
        self.learner.end_epoch()
        epoch, step = self.state.cursor.epoch, self.state.step
        mean_loss = self.state.loss_sum / self.state.loss_steps if self.state.loss_steps else None
        by_corpus = self.curves.record() if self.curves else {}
        val, better = self._validate() if self.val_shards is not None else (None, [])
        tells = epoch == 0 and self.learner.yardstick.tells
        yardstick = self.learner.yardstick.record(len(self.train_shards)) if tells else None
        if self.module.provenance is not None:
            self.module.provenance |= provenance_of_yardstick(yardstick)
        weights = self.learner.task_weights()
        record = EpochRecord(epoch, step, mean_loss, weights, by_corpus, val, yardstick)
        if self.state.cursor.position >= len(self.train_shards):
            self.state.cursor = Cursor(self.config.seed, self.state.cursor.epoch + 1, 0)
            self.state.loss_sum, self.state.loss_steps = 0.0, 0
        self.state.validated_step = self.state.step
        absent = [*self.absent_modalities.notes()]
        self.reporter.report_epoch(record, self.predictions, self.guard.skips, absent)
        for name in better:
            self.saver.save_model(name, self.state)
        self.learner.enter(self.state.cursor.epoch)
        self._save_last()

    def _validate(self) -> tuple[ValidationRecord, list[str]]:
        """What the validation clips say, and names of the checkpoints that are the best by it."""
        assert self.val_shards is not None, "asked before"
        epoch, step = self.state.cursor.epoch, self.state.step
        validating = self.reporter.validating(len(self.val_shards))
        with (
            self.average.swapped_in(),
            self.processes.collective("validation"),
            validating as see,
        ):
            see = self.learner.yardstick.validating(see)
            self.predictions, record = self.validation(
                self.val_shards, reading_of(self.config), epoch, step, store=self.clip_cache, see=see
            )
        record = replace(record, weights="average" if self.average else "")
        better = improved(record.scores, self.state.best)
        self.state.epochs_without_better = 0 if "best" in better else self.state.epochs_without_better + 1
        if self.module.provenance is not None:
            self.module.provenance |= {"step": step} | provenance_of_scores(record.scores)
        return record, better
