"""trainer.py: the training loop: from positions in the shards' order to weights in a run folder."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from itertools import islice

import torch
from torch import Tensor

from viper_e2e.encoders import PreparedClip, TokenCache
from viper_e2e.errors import ClipError
from viper_e2e.loading import ClipBatch, ClipKey, Cursor
from viper_e2e.report import EpochRecord, ValidationRecord
from viper_e2e.runtime import console, count_of
from viper_e2e.training.data import reading_of
from viper_e2e.training.guarding import MAX_BAD_STEPS
from viper_e2e.training.optimizer import can_step
from viper_e2e.training.state import clip_seed, seed_step
from viper_e2e.training.task_losses import end_step, label_weights, learned_weights
from viper_e2e.training.training_run import TrainingRun
from viper_e2e.training.validation import hold, improved, provenance_of_scores
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
        self.model.train()
        self.absent_modalities.begin(cursor.position)
        batches = self.loader.epoch(cursor.epoch, cursor.position)
        self.reporter.begin_epoch(
            waited_seconds=self.loader.stream.waiting_seconds, stage_seconds=self.clock.seconds
        )
        while self.state.step < self.total_steps:
            group = list(islice(batches, self.config.accumulation))
            if not group:
                break
            self._measure(group)
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

    def _measure(self, group: list[ClipBatch]) -> None:
        self.tuning.measure(group, self.optimizer, self.accelerator, self.average)

    def _step(self, group: list[ClipBatch]) -> bool:
        """One optimizer step, on which all processes agree; returns whether it is time to save."""
        state = self.state
        seed_step(self.config.seed, state.step, self.processes.index)
        save, total_weight = self._begin_step(group)
        value = 0.0
        for batch in group:
            with nullcontext() if batch.ends_step else self.accelerator.no_sync(self.model):
                value += self._backward(batch, total_weight)
        norm = self.accelerator.clip_grad_norm_(self._trained(), self.config.clip_norm or math.inf)
        fits = bool(torch.isfinite(norm)) or self.guard.may_overflow(state, self.accelerator.scaler)
        fits = fits and can_step(self.optimizer)
        # What the first process has seen, so that every process takes the same way from here.
        verdicts = self.processes.gather_scalars(
            float(math.isfinite(value) and fits), value, purpose=f"ending step {state.step}"
        )
        value = float(verdicts[0, 1])
        is_good = bool(verdicts[:, 0].all())
        if is_good:
            self._take_step(value, group)
        else:
            self._leave_out_step(value, float(norm), group)
        end_step(self.loss, takes_effect=is_good and not self.optimizer.step_was_skipped)
        self.optimizer.zero_grad()
        with nullcontext() if is_good else _counted():
            self.schedule.step()
        self._count_step(
            value if total_weight.any() else None,
            sum(position is not None for b in group for position in b.positions),
        )
        return save or self.saver.is_due(state.step)

    def _take_step(self, value: float, group: list[ClipBatch]) -> None:
        state = self.state
        self.optimizer.step()
        if self.optimizer.step_was_skipped:  # by fp16's scaler, which has lowered its scale
            state.overflows += 1
        else:
            self.average.update()
            state.overflows, state.bad_steps, state.bad_keys = 0, 0, []
            state.last_good_step = state.step
        self.guard.watch_loss(state, value, group)

    def _leave_out_step(self, value: float, norm: float, group: list[ClipBatch]) -> None:
        if self.accelerator.scaler is not None:
            # The gradients were unscaled for their norm; without this the next step may not be.
            self.accelerator.scaler.update()
            self.state.overflows += math.isfinite(value)
        self.guard.count_bad_step(self.state, value, norm, group)

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

    def _backward(self, batch: ClipBatch, total_weight: Tensor) -> float:
        prepared = self.module.prepare(batch.clips)
        batch = self._without_failed(batch, prepared)
        seeds = [clip_seed(self.config.seed, batch.epoch, name) for name in batch.visits]
        cache = TokenCache() if self.clip_cache.budget_bytes else None
        output = self.model(prepared, seeds, cache=cache, keep_streams=self.yardstick.is_collecting)
        self.yardstick.add(batch, output)
        self.curves.add(batch, output.intensities)
        self.absent_modalities.add(output, batch.weights)
        device = output.intensities.device
        loss = self.loss(
            output.by_network,
            batch.intensities.to(device),
            batch.weights.to(device),
            total_weight.float().to(device),  # not every device has float64
            partial(self.processes.gather, purpose="the loss") if self.processes.count > 1 else None,
            self.processes.index,
        )
        with self.processes.collective("the gradients"):
            self.accelerator.backward(loss.loss)
        self._keep_all(batch.keys, prepared, cache)
        return loss.value.item()

    def _without_failed(self, batch: ClipBatch, prepared: Sequence[PreparedClip | ClipError]) -> ClipBatch:
        """Clips that fail only here (decoded again, larger) are left out like those that fail before. The step
        has counted them, so that its gradient is smaller by their share."""
        failed = batch.failed_later(prepared)
        if not failed:
            return batch
        for row, error in failed.items():
            self.late_skips.append(batch.skip_record(row, error))
            if error.stage == "worker":
                self.quarantine.train.add(batch.keys[row], error.reason)
        self.guard.refuse(self.late_skips)
        return batch.without(failed)

    def _trained(self) -> list[torch.nn.Parameter]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def _count_step(self, value: float | None, num_clips: int) -> None:
        """``value``: the loss; None where no clip of the step could be used."""
        self.guard.count_late_skips(self.late_skips)
        self.late_skips.clear()
        self.state.step += 1
        if value is not None and math.isfinite(value):
            self.state.loss_sum += value
            self.state.loss_steps += 1
        self.reporter.count_step(
            self.state.step,
            math.nan if value is None else value,
            float(self.schedule.get_last_lr()[0]),
            num_clips * self.processes.count,
            waited_seconds=self.loader.stream.waiting_seconds,
            num_cached=self.clip_cache.num_cached if self.clip_cache.budget_bytes else None,
            stage_seconds=self.clock.seconds,
        )
        self.forecast.see(num_clips)

    def _keep_all(
        self, keys: Sequence[str], clips: Sequence[PreparedClip | ClipError], cache: TokenCache | None
    ) -> None:
        """Hold clips for the next epochs, where there is room."""
        for name, clip in zip(keys, clips, strict=True) if self.clip_cache.budget_bytes else ():
            key = ClipKey("train", name)
            if isinstance(clip, PreparedClip) and key not in self.clip_cache:
                hold(self.clip_cache, self.module, key, clip, cache)

    # --- the end of an epoch ----------------------------------------------------------------------

    def _end_epoch(self) -> None:
        self.guard.skips.end()
        self.yardstick.fit_head()
        epoch, step = self.state.cursor.epoch, self.state.step
        mean_loss = self.state.loss_sum / self.state.loss_steps if self.state.loss_steps else None
        by_corpus = self.curves.record() if self.curves else {}
        val, better = self._validate() if self.val_shards is not None else (None, [])
        tells = epoch == 0 and self.yardstick.tells
        yardstick = self.yardstick.record(len(self.train_shards)) if tells else None
        if self.module.provenance is not None:
            self.module.provenance |= provenance_of_yardstick(yardstick)
        weights = learned_weights(self.loss)
        record = EpochRecord(epoch, step, mean_loss, weights, by_corpus, val, yardstick)
        if self.state.cursor.position >= len(self.train_shards):
            self.state.cursor = Cursor(self.config.seed, self.state.cursor.epoch + 1, 0)
            self.state.loss_sum, self.state.loss_steps = 0.0, 0
        self.state.validated_step = self.state.step
        absent = [*self.absent_modalities.notes()]
        self.reporter.report_epoch(record, self.predictions, self.guard.skips, absent)
        for name in better:
            self.saver.save_model(name, self.state)
        self._enter_epoch(self.state.cursor.epoch)
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
            see = self.yardstick.validating(see)
            self.predictions, record = self.validation(
                self.val_shards, reading_of(self.config), epoch, step, store=self.clip_cache, see=see
            )
        record = replace(record, weights="average" if self.average else "")
        better = improved(record.scores, self.state.best)
        self.state.epochs_without_better = 0 if "best" in better else self.state.epochs_without_better + 1
        if self.module.provenance is not None:
            self.module.provenance |= {"step": step} | provenance_of_scores(record.scores)
        return record, better


@contextmanager
def _counted() -> Iterator[None]:
    """A step that was left out counts as one in the schedule, of which torch warns where it is the first."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
        yield
