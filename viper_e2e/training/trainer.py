"""trainer.py: the training loop: from positions in the shards' order to weights in a run folder."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from viper_e2e.config import Settings
from viper_e2e.encoders import PreparedClip, TokenCache
from viper_e2e.errors import ClipError
from viper_e2e.loading import ClipBatch, ClipCache, ClipStore, Cursor, notes_on_reading
from viper_e2e.model import Predictions, StageClock, ViPER, compile_model
from viper_e2e.runtime import Processes, console, tell_problems
from viper_e2e.shards import Mixture
from viper_e2e.training.corpus_curves import CorpusCurves
from viper_e2e.training.data import limits_of, make_loader, open_splits, reading_of, shares_of, training_labels
from viper_e2e.training.data_record import data_record, provenance_of, write_data
from viper_e2e.training.ema import WeightEMA
from viper_e2e.training.fine_tuning import FineTuning, prepare_for_training, rewrapped
from viper_e2e.training.guarding import MAX_BAD_STEPS, Guard, StopRequest
from viper_e2e.training.hooks import TrainerHooks
from viper_e2e.training.optimizer import build_optimizer, build_schedule, recount, schedule_factor
from viper_e2e.training.precision import compute_dtype, resolve_precision, resumed
from viper_e2e.training.reporting import Reporter
from viper_e2e.training.resuming import SavedRun, said, take_rates, with_absolute_paths
from viper_e2e.training.reuse_forecast import forecast_for
from viper_e2e.training.run_folder import RunFolder
from viper_e2e.training.saving import Saver
from viper_e2e.training.shared_clips import SharedClips
from viper_e2e.training.state import TrainingState, clip_seed, seed_step
from viper_e2e.training.tables import branch_table, mixture_table
from viper_e2e.training.task_losses import build_loss, end_step, label_weights, learned_weights
from viper_e2e.training.validation import Validation, hold, improved, main_of
from viper_e2e.training.yardstick import Yardstick, provenance_of_yardstick


class Trainer:
    """One run. Building it checks everything that can be checked before anything expensive."""

    def __init__(
        self,
        settings: Settings,
        accelerator: Accelerator,
        processes: Processes | None = None,
        hooks: TrainerHooks | None = None,
        *,
        clips: SharedClips | None = None,
    ):
        """``clips``: what the trainings of a command hold in common; `None`: this one holds its own, in
        `reuse_memory`."""
        self.settings, self.config, self.accelerator = settings, settings.train, accelerator
        self.processes, self.hooks = processes or Processes(accelerator), hooks or TrainerHooks()
        limits = limits_of(settings)
        self.train_shards, self.val_shards = open_splits(self.config, limits)
        saved = SavedRun.of(Path(self.config.run_dir)) if self.config.resume else None
        self.changed: dict[str, list[Any]] = {}
        """Settings that differ from those the run had so far, and may."""
        if saved is not None:
            self.train_shards, self.val_shards = saved.in_its_order(self.train_shards, self.val_shards)
            self.changed = saved.check(settings, self.train_shards, self.val_shards)
        held = clips.of(self.train_shards, self.val_shards) if clips is not None else None
        self.clip_cache: ClipStore = held or ClipCache(self.config.reuse_memory.num_bytes)
        is_main = self.processes.is_main
        self.run = RunFolder(Path(self.config.run_dir), resume=self.config.resume, owner=is_main)
        self.processes.wait("opening the run folder")
        torch.manual_seed(self.config.seed)
        last = self.run.last if self.config.resume else None
        labels = training_labels(self.train_shards, settings.model.fusion.output, last)
        self.module = ViPER(settings.model, labels).to(accelerator.device)
        prepare_for_training(self.module, self.config)
        if saved is not None:
            saved.check_backbones(self.module)
        self.loss = build_loss(labels, self.train_shards, self.config, self.module.fusion.num_networks)
        self._settle_precision()
        self.tuning = FineTuning(self.module, self.config, self.clip_cache)
        self.module.set_compute_dtype(compute_dtype(self.config.mixed_precision))
        self.module.set_clip_timeout(self.config.clip_timeout_seconds)
        if held is not None:
            held.begin(self.module, is_compiled=self.config.compile)
        self.loss.to(accelerator.device)
        cached = self.clip_cache.get if self.clip_cache.budget_bytes else None
        share = self.processes.index, self.processes.count
        self.loader = make_loader(self.train_shards, self.settings, *share, cached=cached)
        self.state = TrainingState(Cursor(self.config.seed))
        self.total_steps = self._steps_in_all()
        optimizer = build_optimizer(self.module, self.config)
        self.schedule = build_schedule(optimizer, self._factors)
        with self.processes.collective("preparing the model"):
            self.model, self.optimizer = accelerator.prepare(self.module, optimizer)
        self.average = WeightEMA(self.module, self.config.ema_decay)
        if self.config.compile:
            compile_model(self.module)
        self.guard = Guard(self.run, self.processes, self.config.on_error, len(self.train_shards))
        self.validation = Validation(
            self.module, self.guard, self.processes, self.loader.quarantined, self.config.best_by
        )
        self.saver = Saver(self.run, self.config, self.module, self.average, writes=is_main)
        self.yardstick = Yardstick(self.module, self.processes, validates=self.val_shards is not None)
        self.curves = CorpusCurves(self.module, self.train_shards, self.processes)
        self.reporter = Reporter(self.run, self.settings, speaks=is_main)
        self.clock = StageClock(self.module)
        self.forecast = forecast_for(self, clips)
        self.stop = StopRequest()
        self.predictions: Predictions | None = None
        """Of the last validation."""

    def _settle_precision(self) -> None:
        """Once per run: what ``auto`` came to stands in its ``config.yaml``, for ``--resume`` to go on with."""
        precision = self.config.mixed_precision
        if precision == "auto" and self.config.resume:
            precision = resumed(self.run)
        precision = resolve_precision(precision, self.module, self.processes)
        self.config = replace(self.config, mixed_precision=precision)
        self.settings = replace(self.settings, train=self.config)

    # --- the loop ---------------------------------------------------------------------------------

    def train(self) -> int:
        """Train to the end or to a signal; returns the exit code."""
        if self.config.resume and not self._restore() and self.processes.is_main:
            console.print("[yellow]nothing was saved before the run ended; it starts anew[/yellow]")
        if self.processes.is_main:
            self._write_settings()
            told = provenance_of_yardstick(self.run.read_log("metrics.jsonl"))
            self.module.provenance = provenance_of(self.train_shards, self.val_shards) | told
            console.print(branch_table(self.module))
            if isinstance(self.train_shards, Mixture):
                console.print(mixture_table(shares_of(self.train_shards), self.train_shards.corpora))
            for shards in filter(None, (self.train_shards, self.val_shards)):
                tell_problems(shards.problems)
            tell_problems(notes_on_reading(self.train_shards.far, (self.train_shards, self.val_shards)))
        with self.stop.listening(), self.loader, self.reporter.showing(self.state.step, self.total_steps):
            self.forecast.begin()
            while not self._finished() and self._epoch():
                pass
        if self._is_out_of_patience() and self.processes.is_main:
            epoch, count = self.state.cursor.epoch, self.state.epochs_without_better
            console.print(f"ended after epoch {epoch}: {count} epochs brought no better model (--patience)")
        return self.stop.exit_code

    def _write_settings(self) -> None:
        """Of what is computed from here on; a run that is at its end keeps what it was computed with."""
        if self._finished():
            if self.changed:
                console.print("[yellow]nothing is left to train; more --epochs or --max-steps go on[/yellow]")
            return
        for name, (before, now) in self.changed.items():
            console.print(
                f"[yellow]from step {self.state.step} on: --{name.replace('_', '-')} {said(now)}, "
                f"before {said(before)}[/yellow]"
            )
        if self.changed:
            self.run.log("changes.jsonl", {"step": self.state.step, "changes": self.changed})
        self.run.write_settings(with_absolute_paths(self.settings))
        write_data(self.run.path, data_record(self.settings, self.train_shards, self.val_shards))

    def close(self) -> None:
        """Let go of the run folder."""
        self.run.release()

    def _finished(self) -> bool:
        is_through = self.state.step >= self.total_steps or self._is_out_of_patience()
        return is_through and self.state.validated_step == self.state.step

    def _is_out_of_patience(self) -> bool:
        return self.state.is_out_of_patience(self.config.patience)

    def _epoch(self) -> bool:
        """From wherever the cursor stands to the end of its epoch, then validation; False if asked to stop."""
        cursor = self.state.cursor
        self.model.train()
        batches = self.loader.epoch(cursor.epoch, cursor.position)
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
        # What the first process has seen, so that every process takes the same way from here.
        verdicts = self.processes.table(
            float(math.isfinite(value) and fits), value, purpose=f"ending step {state.step}"
        )
        value = float(verdicts[0, 1])
        is_good = bool(verdicts[:, 0].all())
        if is_good:
            self.optimizer.step()
            if self.optimizer.step_was_skipped:  # by fp16's scaler, which has lowered its scale
                state.overflows += 1
            else:
                self.average.update()
                state.overflows, state.bad_steps, state.bad_keys = 0, 0, []
                state.last_good_step = state.step
            self.guard.watch_loss(state, value, group)
        else:
            if self.accelerator.scaler is not None:
                # The gradients were unscaled above; without this the next step may not be.
                self.accelerator.scaler.update()
                state.overflows += math.isfinite(value)
            self.guard.count_bad_step(state, value, float(norm), group)
        end_step(self.loss, takes_effect=is_good and not self.optimizer.step_was_skipped)
        self.optimizer.zero_grad()
        self.schedule.step()
        self._count_step(
            value if total_weight.any() else None,
            sum(position is not None for b in group for position in b.positions),
        )
        return save or self.saver.is_due(state.step)

    def _begin_step(self, group: list[ClipBatch]) -> tuple[bool, Tensor]:
        """Agree on signals and on the clips that cannot be used; whether to save, and each task's clips."""
        skips = self.guard.own_skips(group)
        labels = self.module.labels
        own = torch.tensor([label_weights(labels, b.intensities, b.weights) for b in group])
        table = self.processes.table(
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
        seeds = [clip_seed(self.config.seed, batch.epoch, name) for name in batch.visits]
        cache = TokenCache() if self.clip_cache.budget_bytes else None
        output = self.model(prepared, seeds, cache=cache)
        self.yardstick.add(batch)
        self.curves.add(batch, output.intensities)
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

    def _trained(self) -> list[torch.nn.Parameter]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def _count_step(self, value: float | None, num_clips: int) -> None:
        """``value``: the loss; None where no clip of the step could be used."""
        self.state.step += 1
        if value is not None and math.isfinite(value):
            self.state.loss_sum += value
            self.state.loss_steps += 1
        self.reporter.count_step(
            self.state.step,
            math.nan if value is None else value,
            float(self.schedule.get_last_lr()[0]),
            num_clips * self.processes.count,
            waited_seconds=self.loader.waiting_seconds,
            num_cached=self.clip_cache.num_cached if self.clip_cache.budget_bytes else None,
            stage_seconds=self.clock.seconds,
        )
        self.forecast.see(num_clips)

    # --- the end of an epoch ----------------------------------------------------------------------

    def _end_epoch(self) -> None:
        self.guard.skips.end()
        self.yardstick.fit_head()
        epoch, step = self.state.cursor.epoch, self.state.step
        mean_loss = self.state.loss_sum / self.state.loss_steps if self.state.loss_steps else None
        record: dict[str, Any] = {"epoch": epoch, "step": step, "train_loss": mean_loss}
        record |= {"task_weights": weights} if (weights := learned_weights(self.loss)) else {}
        if self.curves:
            record["train"] = self.curves.record()
        better = []
        if self.val_shards is not None:
            validating = self.reporter.validating(len(self.val_shards))
            with (
                self.average.swapped_in(),
                self.processes.collective("validation"),
                validating as see,
                self.yardstick.validating(see) as see_all,
            ):
                self.predictions, scores, record["val"] = self.validation(
                    self.val_shards, reading_of(self.config), epoch, step, store=self.clip_cache, see=see_all
                )
            record["val"] |= {"weights": "average"} if self.average else {}
            better = improved(scores, self.state.best, main_of(record["val"]))
            self.state.epochs_without_better = 0 if "best" in better else self.state.epochs_without_better + 1
            if self.module.provenance is not None:
                means = {name: record["val"][f"mean_{name}"] for name in ("pearson", "ccc", "mse")}
                self.module.provenance |= {"step": step, "scores": means}
        if epoch == 0 and self.yardstick.tells:
            record["yardstick"] = self.yardstick.record(len(self.train_shards))
            if self.module.provenance is not None:
                self.module.provenance |= provenance_of_yardstick([record])
        if self.state.cursor.position >= len(self.train_shards):
            self.state.cursor = Cursor(self.config.seed, self.state.cursor.epoch + 1, 0)
            self.state.loss_sum, self.state.loss_steps = 0.0, 0
        self.state.validated_step = self.state.step
        self.reporter.report_epoch(record, self.predictions, self.guard.skips)
        for name in better:
            self.saver.save_model(name)
        self._enter_epoch(self.state.cursor.epoch)
        self._save_last()

    def _enter_epoch(self, epoch: int) -> None:
        """Train what this epoch trains, before anything of it is saved or loaded."""
        new = self.tuning.enter(epoch, self.optimizer, self.schedule, self._factors)
        self.yardstick.enter(epoch)
        if new:
            with self.processes.collective("preparing the model"):
                self.model = rewrapped(self.accelerator, self.model, self.optimizer)
            self.average.join()
            if self.processes.is_main:
                console.print(f"from epoch {epoch + 1} on: {', '.join(new)}")

    # --- saving and going on ----------------------------------------------------------------------

    def _parts(self) -> dict[str, Any]:
        parts = {
            "optimizer": self.optimizer,
            "schedule": self.schedule,
            "loss": self.loss,
            "skips": self.guard.skips,
            "yardstick": self.yardstick,
        }
        parts |= {"average": self.average} if self.average else {}
        parts |= {"corpora": self.curves} if self.curves else {}
        return parts | ({"scaler": self.accelerator.scaler} if self.accelerator.scaler else {})

    def _save_last(self) -> None:
        self.hooks.before_save(self)
        quarantined = self.processes.gather_list([*self.loader.quarantined.items()], purpose="saving")
        self.loader.quarantined.update(quarantined)
        self.yardstick.gather()
        self.curves.gather()
        self.saver.save_last(self.state, self._parts(), self.loader.quarantined)
        self.hooks.after_save(self)

    def _restore(self) -> bool:
        """Go on from the newest undamaged checkpoint; False where none was ever saved."""
        restored = self.saver.restore(self._parts(), self._enter_epoch)
        if restored is None:
            return False
        self.state, quarantined = restored
        # Weights were loaded into the encoders: what was cached is no longer surely theirs.
        self.clip_cache.clear()
        take_rates(self.optimizer, self.schedule, self.module, self.config)
        self.loader.quarantined.update(quarantined)
        self.total_steps = self._steps_in_all()
        # With another number of processes or epochs, the rest of the run has another number of steps.
        recount(self.optimizer, self.schedule, self._factors)
        return True

    def _factors(self, first_step: int) -> Callable[[int], float]:
        return schedule_factor(self.config, self.loader.num_steps(), self.total_steps, first_step)

    def _steps_in_all(self) -> int:
        """Those made and those still to come."""
        cursor = self.state.cursor
        if cursor.epoch >= self.config.epochs:
            return self.state.step
        later_epochs = (self.config.epochs - cursor.epoch - 1) * self.loader.num_steps()
        steps = self.state.step + self.loader.num_steps(cursor.position) + later_epochs
        return min(steps, self.config.max_steps or steps)

    def _go_back(self) -> None:
        """Return to the last checkpoint and leave out the clips of the steps that came without a number."""
        keys, step = self.state.bad_keys, self.state.step - 1
        self.processes.wait("going back")
        if not self._restore():
            self.guard.give_up(
                f"step {step}: {MAX_BAD_STEPS} steps in a row were not finite (NaN), no checkpoint yet"
            )
        self.state.went_back_at, self.state.bad_steps, self.state.bad_keys = step, 0, []
        self.state.overflows = 0
        self.loader.quarantined |= dict.fromkeys(
            keys, f"loss or gradient not finite (NaN or infinite) up to step {step}"
        )
        if self.processes.is_main:
            console.print(
                f"[yellow]{MAX_BAD_STEPS} steps in a row were not finite (NaN); back to step {self.state.step} "
                f"without {', '.join(keys)}[/yellow]"
            )
        self.processes.wait("all have gone back")
        self._save_last()

    def _keep_all(
        self, keys: Sequence[str], clips: Sequence[PreparedClip | ClipError], cache: TokenCache | None
    ) -> None:
        """Hold clips for the next epochs, where there is room."""
        for key, clip in zip(keys, clips, strict=True) if self.clip_cache.budget_bytes else ():
            if isinstance(clip, PreparedClip) and key not in self.clip_cache:
                hold(self.clip_cache, self.module, key, clip, cache)
