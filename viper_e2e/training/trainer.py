"""trainer.py: the training loop: from positions in the shards' order to weights in a run folder."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from viper_e2e.config import Settings
from viper_e2e.loading import ClipBatch, Cursor
from viper_e2e.model import Predictions, compile_model
from viper_e2e.report import EpochRecord, ValidationRecord
from viper_e2e.runtime import Processes, console, count_of
from viper_e2e.training.data import reading_of
from viper_e2e.training.gradient_learner import GradientLearner
from viper_e2e.training.guarding import MAX_BAD_STEPS, StopRequest
from viper_e2e.training.hooks import TrainerHooks
from viper_e2e.training.learner import Learner
from viper_e2e.training.reuse_forecast import ReuseForecast, forecast_for
from viper_e2e.training.ridge_learner import RidgeLearner, settings_of_ridge
from viper_e2e.training.shared_clips import SharedClips
from viper_e2e.training.state import TrainingState
from viper_e2e.training.task_losses import label_weights
from viper_e2e.training.training_run import TrainingRun, open_run
from viper_e2e.training.validation import improved, provenance_of_scores
from viper_e2e.training.yardstick import provenance_of_yardstick


def open_trainer(
    settings: Settings,
    accelerator: Accelerator,
    processes: Processes | None = None,
    hooks: TrainerHooks | None = None,
    *,
    clips: SharedClips | None = None,
) -> Trainer:
    """A run with what it learns by, chosen by its head; as `open_run`."""
    is_ridge = settings.model.fusion.kind == "ridge"
    settings = settings_of_ridge(settings) if is_ridge else settings
    run = open_run(settings, accelerator, processes or Processes(accelerator), clips)
    state = TrainingState(Cursor(run.config.seed))
    total_steps = run.steps_in_all(state)
    learner: Learner = RidgeLearner(run) if is_ridge else GradientLearner(run, total_steps)
    if run.config.compile:
        compile_model(run.module)
    return Trainer(run, learner, state, forecast_for(run, total_steps, clips), hooks or TrainerHooks())


class Trainer:
    """The loop of a run: epochs of steps, with a validation after each."""

    def __init__(
        self,
        run: TrainingRun,
        learner: Learner,
        state: TrainingState,
        forecast: ReuseForecast,
        hooks: TrainerHooks,
    ):
        """``state``: of a run that begins; one that is resumed finds its own."""
        self.run, self.learner, self.state, self.forecast, self.hooks = run, learner, state, forecast, hooks
        self.total_steps = run.steps_in_all(state)
        self.stop = StopRequest()
        self.predictions: Predictions | None = None
        """Predictions of the last validation."""

    def train(self) -> int:
        """Train to the end or to a signal; returns the exit code."""
        run = self.run
        if run.config.resume and not self._restore() and run.processes.is_main:
            console.print("[yellow]nothing was saved before the run ended; it starts again[/yellow]")
        if run.processes.is_main:
            if not self._is_finished():
                run.write_settings(self.state.step)
            elif run.changed:
                more = "--patience" if self._is_out_of_patience() else "--epochs or --max-steps"
                console.print(f"[yellow]nothing is left to train; raise {more}[/yellow]")
            run.note_provenance()
            run.tell_beginning()
        with (
            self.stop.listening(),
            run.loader,
            run.reporter.showing(self.state.step, self.total_steps),
        ):
            self.forecast.begin()
            while not self._is_finished() and self._epoch():
                pass
        if self._is_out_of_patience() and run.processes.is_main:
            epoch, count = self.state.cursor.epoch, self.state.epochs_without_better
            console.print(
                f"ended after epoch {epoch}: {count_of(count, 'epoch')} brought no better model (--patience)"
            )
        return self.stop.exit_code

    def close(self) -> None:
        """Let go of the run folder."""
        self.run.folder.release()

    def _is_finished(self) -> bool:
        is_through = self.state.step >= self.total_steps or self._is_out_of_patience()
        return is_through and self.state.validated_step == self.state.step

    def _is_out_of_patience(self) -> bool:
        return self.state.is_out_of_patience(self.run.config.patience)

    def _epoch(self) -> bool:
        """Train from the cursor to the end of its epoch, then validate; False if asked to stop."""
        run = self.run
        cursor = self.state.cursor
        run.module.train()
        run.absent_modalities.begin(cursor.position)
        batches = run.loader.epoch(cursor.epoch, cursor.position)
        run.reporter.begin_epoch(
            waited_seconds=run.loader.stream.waiting_seconds, stage_seconds=run.clock.seconds
        )
        while self.state.step < self.total_steps:
            group = list(islice(batches, run.config.accumulation))
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
        return save or self.run.saver.is_due(self.state.step)

    def _begin_step(self, group: list[ClipBatch]) -> tuple[bool, Tensor]:
        """Agree on signals and on the clips that cannot be used; whether to save, and each task's clips."""
        run, state = self.run, self.state
        skips = run.guard.own_skips(group)
        labels = run.module.labels
        own = torch.tensor([label_weights(labels, b.intensities, b.weights) for b in group])
        table = run.processes.gather_scalars(
            len(skips),
            self.stop.own or 0,
            float(run.saver.is_overdue),
            *own.sum(0).tolist(),
            purpose=f"beginning step {state.step}",
        )
        self.stop.agree([int(number) for number in table[:, 1]])
        positions = range(state.cursor.position, group[-1].next_position)
        run.guard.count_skips(positions, skips, int(table[:, 0].sum()))
        return bool(table[0, 2]), table[:, 3:].sum(0)

    def _count_step(self, value: float | None, num_clips: int) -> None:
        """``value``: the loss; None where no clip of the step could be used."""
        run, state = self.run, self.state
        run.guard.count_late_skips()
        state.step += 1
        if value is not None and math.isfinite(value):
            state.loss_sum += value
            state.loss_steps += 1
        run.reporter.count_step(
            state.step,
            math.nan if value is None else value,
            self.learner.lr,
            num_clips * run.processes.count,
            waited_seconds=run.loader.stream.waiting_seconds,
            num_cached=run.clip_cache.num_cached if run.clip_cache.budget_bytes else None,
            stage_seconds=run.clock.seconds,
        )
        self.forecast.see(num_clips)

    # --- the end of an epoch ----------------------------------------------------------------------

    def _end_epoch(self) -> None:
        run, state = self.run, self.state
        run.guard.skips.end()
        self.learner.end_epoch()
        epoch, step = state.cursor.epoch, state.step
        mean_loss = state.loss_sum / state.loss_steps if state.loss_steps else None
        by_corpus = run.curves.record() if run.curves else {}
        val, better = self._validate() if run.val_shards is not None else (None, [])
        tells = epoch == 0 and self.learner.yardstick.tells
        yardstick = self.learner.yardstick.record(len(run.train_shards)) if tells else None
        if run.module.provenance is not None:
            run.module.provenance |= provenance_of_yardstick(yardstick)
        weights = self.learner.task_weights()
        record = EpochRecord(epoch, step, mean_loss, weights, by_corpus, val, yardstick)
        if state.cursor.position >= len(run.train_shards):
            state.cursor = Cursor(run.config.seed, state.cursor.epoch + 1, 0)
            state.loss_sum, state.loss_steps = 0.0, 0
        state.validated_step = state.step
        absent = [*run.absent_modalities.notes()]
        run.reporter.report_epoch(record, self.predictions, run.guard.skips, absent)
        for name in better:
            run.saver.save_model(name, state)
        self.learner.enter(state.cursor.epoch)
        self._save_last()

    def _validate(self) -> tuple[ValidationRecord, list[str]]:
        """Validate; returns the record, and the names of checkpoints that are the best by it."""
        run, state = self.run, self.state
        assert run.val_shards is not None, "asked before"
        epoch, step = state.cursor.epoch, state.step
        validating = run.reporter.validating(len(run.val_shards))
        with (
            run.average.swapped_in(),
            run.processes.collective("validation"),
            validating as see,
        ):
            see = self.learner.yardstick.validating(see)
            self.predictions, record = run.validation(
                run.val_shards,
                reading_of(run.config),
                epoch,
                step,
                store=run.clip_cache,
                see=see,
            )
        record = replace(record, weights="average" if run.average else "")
        better = improved(record.scores, state.best)
        state.epochs_without_better = 0 if "best" in better else state.epochs_without_better + 1
        if run.module.provenance is not None:
            run.module.provenance |= {"step": step} | provenance_of_scores(record.scores)
        return record, better

    # --- saving and going on ----------------------------------------------------------------------

    def _parts(self) -> dict[str, Any]:
        parts = {**self.learner.parts(), "skips": self.run.guard.skips, "yardstick": self.learner.yardstick}
        parts |= {"average": self.run.average} if self.run.average else {}
        return parts | ({"corpora": self.run.curves} if self.run.curves else {})

    def _save_last(self) -> None:
        run = self.run
        self.hooks.before_save(self)
        for clip, reason in run.processes.gather_list(run.quarantine.items(), purpose="saving"):
            run.quarantine.add(clip, reason)
        self.learner.gather()
        run.curves.gather()
        run.saver.save_last(self.state, self._parts(), run.quarantine)
        self.hooks.after_save(self)

    def _restore(self) -> bool:
        """Go on from the newest undamaged checkpoint; False where none was ever saved."""
        run = self.run
        restored = run.saver.restore(self._parts(), run.quarantine, self.learner.enter)
        if restored is None:
            return False
        self.state = restored
        # Weights were loaded into the encoders: what was cached is no longer surely theirs.
        run.clip_cache.clear()
        self.total_steps = run.steps_in_all(self.state)
        self.learner.resume(self.total_steps)
        return True

    def _go_back(self) -> None:
        """Return to the last checkpoint and leave out the clips of the steps that came without a number."""
        run = self.run
        keys, step = self.state.bad_keys, self.state.step - 1
        run.processes.wait("going back")
        if not self._restore():
            run.guard.give_up(
                f"step {step}: {MAX_BAD_STEPS} steps in a row were not finite (NaN), no checkpoint yet"
            )
        self.state.went_back_at, self.state.bad_steps, self.state.bad_keys = step, 0, []
        self.state.overflows = 0
        for key in keys:
            run.quarantine.train.add(key, f"loss or gradient not finite (NaN or infinite) up to step {step}")
        if run.processes.is_main:
            console.print(
                f"[yellow]{MAX_BAD_STEPS} steps in a row were not finite (NaN); back to step {self.state.step} "
                f"without {', '.join(keys)}[/yellow]"
            )
        run.processes.wait("all have gone back")
        self._save_last()
