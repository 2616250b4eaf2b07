"""training_run.py: all that a run is made of, checked and built; how it is saved, and where it resumes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from viper_e2e.config import Settings, option_of
from viper_e2e.encoders import PreparedClip, TokenCache
from viper_e2e.errors import ClipError, ViperError
from viper_e2e.fusion import RidgeFusion
from viper_e2e.loading import (
    ClipCache,
    ClipKey,
    ClipStore,
    Cursor,
    RunQuarantine,
    notes_on_reading,
)
from viper_e2e.model import Predictions, StageClock, ViPER, compile_model, compute_dtype, resolve_precision
from viper_e2e.runtime import Processes, TellOnce, console, without_collecting
from viper_e2e.training.absent_modalities import AbsentModalities
from viper_e2e.training.corpus_curves import CorpusCurves
from viper_e2e.training.data import (
    limits_of,
    make_loader,
    open_splits,
    reading_of,
    shares_of,
    training_labels,
)
from viper_e2e.training.data_record import data_record, provenance_of, write_data
from viper_e2e.training.ema import WeightEMA
from viper_e2e.training.fine_tuning import FineTuning, prepare_for_training
from viper_e2e.training.gradient_learner import GradientLearner
from viper_e2e.training.guarding import MAX_BAD_STEPS, Guard, StopRequest
from viper_e2e.training.hooks import TrainerHooks
from viper_e2e.training.learner import Learner
from viper_e2e.training.reporting import Reporter
from viper_e2e.training.resuming import SavedRun, said, with_absolute_paths
from viper_e2e.training.reuse_forecast import forecast_for
from viper_e2e.training.ridge_learner import RidgeLearner, settings_of_ridge
from viper_e2e.training.run_folder import RunFolder
from viper_e2e.training.saving import Saver
from viper_e2e.training.shared_clips import SharedClips
from viper_e2e.training.state import TrainingState
from viper_e2e.training.tables import branch_table, mixture_table
from viper_e2e.training.validation import Validation, cached_in, hold
from viper_e2e.training.yardstick import provenance_of_yardstick


class TrainingRun:
    """Building one checks everything that can be checked before anything expensive; `Trainer` runs it."""

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
        if settings.model.fusion.kind == "ridge":
            settings = settings_of_ridge(settings)
        self.settings, self.config, self.accelerator = settings, settings.train, accelerator
        self.processes, self.hooks = processes or Processes(accelerator), hooks or TrainerHooks()
        saved = self._open_shards()
        held = clips.of(self.train_shards, self.val_shards) if clips is not None else None
        self.notes = clips.notes if clips is not None else TellOnce()
        self.clip_cache: ClipStore = held or ClipCache(self.config.reuse_memory.num_bytes)
        self._open_folder()
        self._build_model(saved)
        self._settle_precision()
        self.tuning = FineTuning(self.module, self.config, self.clip_cache, self.notes)
        self.module.set_compute_dtype(compute_dtype(self.config.mixed_precision))
        self.module.set_reading(reading_of(self.config))
        if held is not None:
            held.begin(self.module, is_compiled=self.config.compile)
        self._build_reading()
        self._build_companions()
        self.forecast = forecast_for(self, clips)
        self.stop = StopRequest()
        self.predictions: Predictions | None = None
        """Of the last validation."""

    def _open_shards(self) -> SavedRun | None:
        """In the order that the run has had so far, if it is resumed: returns what is saved of it."""
        self.train_shards, self.val_shards = open_splits(self.config, limits_of(self.settings))
        self.changed: dict[str, list[Any]] = {}
        """Settings that differ from those the run had so far, and may."""
        saved = SavedRun.of(Path(self.config.run_dir)) if self.config.resume else None
        if saved is not None:
            self.train_shards, self.val_shards = saved.in_its_order(self.train_shards, self.val_shards)
            self.changed = saved.check(self.settings, self.train_shards, self.val_shards)
        return saved

    def _open_folder(self) -> None:
        self.run = RunFolder(Path(self.config.run_dir), resume=self.config.resume, owner=self.processes.is_main)
        self.processes.wait("opening the run folder")

    def _build_model(self, saved: SavedRun | None) -> None:
        torch.manual_seed(self.config.seed)
        last = self.run.last if self.config.resume else None
        labels = training_labels(self.train_shards, self.settings.model.fusion.output, last)
        if self.config.rescale and labels.tasks:
            raise ViperError(
                "--rescale: divides intensities by their maximum; the training clips have other tasks"
            )
        with without_collecting():
            self.module = ViPER(self.settings.model, labels)
        self.module.to(self.accelerator.device)
        prepare_for_training(self.module, self.config)
        if saved is not None:
            saved.check_backbones(self.module)

    def _settle_precision(self) -> None:
        """Once per run: what ``auto`` resolves to is saved in its ``config.yaml``, for ``--resume``."""
        precision = self.config.mixed_precision
        if precision == "auto" and self.config.resume:
            precision = self.run.read_precision()
        precision = resolve_precision(precision, self.module, self.processes)
        self.config = replace(self.config, mixed_precision=precision)
        self.settings = replace(self.settings, train=self.config)

    def _build_reading(self) -> None:
        """Where clips come from, and how far the run has come with them."""
        cached = cached_in(self.clip_cache, "train") if self.clip_cache.budget_bytes else None
        self.quarantine = RunQuarantine()
        self.loader = make_loader(
            self.train_shards,
            self.settings,
            process=(self.processes.index, self.processes.count),
            cached=cached,
            quarantine=self.quarantine.train,
        )
        self.state = TrainingState(Cursor(self.config.seed))
        self.total_steps = self._steps_in_all()

    def _build_companions(self) -> None:
        """What looks on while the run trains: guards, judges, saves and tells."""
        is_main = self.processes.is_main
        self.guard = Guard(self.run, self.processes, self.config.on_error, len(self.train_shards))
        self.validation = Validation(
            self.module, self.guard, self.processes, self.quarantine.val, self.config.best_by
        )
        self.average = WeightEMA(self.module, self.config.ema_decay)
        self.saver = Saver(self.run, self.config, self.module, self.average, writes=is_main)
        self.curves = CorpusCurves(self.module, self.train_shards, self.processes)
        self.absent_modalities = AbsentModalities(self.module.modalities, self.processes)
        self.reporter = Reporter(self.run, self.settings, speaks=is_main)
        self.clock = StageClock(self.module)
        self.learner: Learner = (
            RidgeLearner(self)
            if isinstance(self.module.fusion, RidgeFusion)
            else GradientLearner(self, self.total_steps)
        )
        if self.config.compile:
            compile_model(self.module)

    def close(self) -> None:
        """Let go of the run folder."""
        self.run.release()

    # --- where it stands --------------------------------------------------------------------------

    def _is_finished(self) -> bool:
        is_through = self.state.step >= self.total_steps or self._is_out_of_patience()
        return is_through and self.state.validated_step == self.state.step

    def _is_out_of_patience(self) -> bool:
        return self.state.is_out_of_patience(self.config.patience)

    def _steps_in_all(self) -> int:
        """Those made and those still to come."""
        cursor = self.state.cursor
        if cursor.epoch >= self.config.epochs:
            return self.state.step
        later_epochs = (self.config.epochs - cursor.epoch - 1) * self.loader.num_steps()
        steps = self.state.step + self.loader.num_steps(cursor.position) + later_epochs
        return min(steps, self.config.max_steps or steps)

    def hold(
        self, keys: Sequence[str], clips: Sequence[PreparedClip | ClipError], cache: TokenCache | None
    ) -> None:
        """Hold training clips for the next epochs, where there is room."""
        for name, clip in zip(keys, clips, strict=True) if self.clip_cache.budget_bytes else ():
            key = ClipKey("train", name)
            if isinstance(clip, PreparedClip) and key not in self.clip_cache:
                hold(self.clip_cache, self.module, key, clip, cache)

    def _write_settings(self) -> None:
        """Write down the settings from here on; a run that is at its end keeps those it was computed with."""
        if self._is_finished():
            if self.changed:
                more = "--patience" if self._is_out_of_patience() else "--epochs or --max-steps"
                console.print(f"[yellow]nothing is left to train; raise {more}[/yellow]")
            return
        for name, (before, now) in self.changed.items():
            console.print(
                f"[yellow]from step {self.state.step} on: {option_of(name)} {said(now)}, "
                f"before {said(before)}[/yellow]"
            )
        if self.changed:
            self.run.log("changes.jsonl", {"step": self.state.step, "changes": self.changed})
        self.run.write_settings(with_absolute_paths(self.settings))
        write_data(self.run.path, data_record(self.settings, self.train_shards, self.val_shards))

    def _note_provenance(self) -> None:
        """Where the model comes from, as its checkpoints will tell."""
        told = provenance_of_yardstick(self.run.read_metrics().yardstick)
        self.module.provenance = provenance_of(self.train_shards, self.val_shards) | told

    def _tell_beginning(self) -> None:
        """Print what is trained, on which clips, and what is odd about these."""
        self.notes.table(branch_table(self.module))
        if corpora := self.train_shards.named_corpora:
            self.notes.table(mixture_table(shares_of(self.train_shards), corpora))
        for shards in filter(None, (self.train_shards, self.val_shards)):
            self.notes.problems(shards.problems)
        self.notes.problems(
            notes_on_reading(self.train_shards.remote_reading, (self.train_shards, self.val_shards))
        )

    # --- saving and going on ----------------------------------------------------------------------

    def _parts(self) -> dict[str, Any]:
        parts = {**self.learner.parts(), "skips": self.guard.skips, "yardstick": self.learner.yardstick}
        parts |= {"average": self.average} if self.average else {}
        return parts | ({"corpora": self.curves} if self.curves else {})

    def _save_last(self) -> None:
        self.hooks.before_save(self)
        for clip, reason in self.processes.gather_list(self.quarantine.items(), purpose="saving"):
            self.quarantine.add(clip, reason)
        self.learner.gather()
        self.curves.gather()
        self.saver.save_last(self.state, self._parts(), self.quarantine)
        self.hooks.after_save(self)

    def _restore(self) -> bool:
        """Go on from the newest undamaged checkpoint; False where none was ever saved."""
        restored = self.saver.restore(self._parts(), self.quarantine, self.learner.enter)
        if restored is None:
            return False
        self.state = restored
        # Weights were loaded into the encoders: what was cached is no longer surely theirs.
        self.clip_cache.clear()
        self.total_steps = self._steps_in_all()
        self.learner.resume(self.total_steps)
        return True

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
        for key in keys:
            self.quarantine.train.add(key, f"loss or gradient not finite (NaN or infinite) up to step {step}")
        if self.processes.is_main:
            console.print(
                f"[yellow]{MAX_BAD_STEPS} steps in a row were not finite (NaN); back to step {self.state.step} "
                f"without {', '.join(keys)}[/yellow]"
            )
        self.processes.wait("all have gone back")
        self._save_last()
