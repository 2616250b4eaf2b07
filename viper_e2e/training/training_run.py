"""training_run.py: all that a run is made of, whichever way it learns; checked and built in one place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from viper_e2e.config import Settings, TrainConfig, option_of
from viper_e2e.encoders import PreparedClip, TokenCache
from viper_e2e.errors import ClipError, ViperError
from viper_e2e.loading import (
    ClipCache,
    ClipKey,
    ClipLoader,
    ClipStore,
    RunQuarantine,
    notes_on_reading,
)
from viper_e2e.model import StageClock, ViPER, compute_dtype, resolve_precision
from viper_e2e.runtime import Processes, TellOnce, console, without_collecting
from viper_e2e.shards import ShardSet
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
from viper_e2e.training.guarding import Guard
from viper_e2e.training.reporting import Reporter
from viper_e2e.training.resuming import SavedRun, said, with_absolute_paths
from viper_e2e.training.run_folder import RunFolder
from viper_e2e.training.saving import Saver
from viper_e2e.training.shared_clips import SharedClips
from viper_e2e.training.state import TrainingState
from viper_e2e.training.tables import branch_table, mixture_table
from viper_e2e.training.validation import Validation, cached_in, hold
from viper_e2e.training.yardstick import provenance_of_yardstick


@dataclass(frozen=True)
class TrainingRun:
    """`open_run` builds one. How far it has come is a `TrainingState`, which its `Trainer` has."""

    settings: Settings
    """Settings as computed with; what ``auto`` resolved to is saved in ``config.yaml``, for ``--resume``."""
    changed: Mapping[str, list[Any]]
    """Settings that differ from those the run had so far, and may: before and now."""
    accelerator: Accelerator
    processes: Processes
    folder: RunFolder
    notes: TellOnce

    train_shards: ShardSet
    val_shards: ShardSet | None
    """Both in the order that the run has had so far, if it is resumed."""
    clip_cache: ClipStore
    quarantine: RunQuarantine
    loader: ClipLoader
    """Loader of training clips."""

    module: ViPER
    tuning: FineTuning
    average: WeightEMA
    """Average of the module's weights; empty without ``--ema-decay``."""

    guard: Guard
    validation: Validation
    saver: Saver
    curves: CorpusCurves
    absent_modalities: AbsentModalities
    reporter: Reporter
    clock: StageClock

    @property
    def config(self) -> TrainConfig:
        return self.settings.train

    def steps_in_all(self, state: TrainingState) -> int:
        """Those made by then and those still to come."""
        cursor = state.cursor
        if cursor.epoch >= self.config.epochs:
            return state.step
        later_epochs = (self.config.epochs - cursor.epoch - 1) * self.loader.num_steps()
        steps = state.step + self.loader.num_steps(cursor.position) + later_epochs
        return min(steps, self.config.max_steps or steps)

    def hold(
        self, keys: Sequence[str], clips: Sequence[PreparedClip | ClipError], cache: TokenCache | None
    ) -> None:
        """Hold training clips for the next epochs, where there is room."""
        for name, clip in zip(keys, clips, strict=True) if self.clip_cache.budget_bytes else ():
            key = ClipKey("train", name)
            if isinstance(clip, PreparedClip) and key not in self.clip_cache:
                hold(self.clip_cache, self.module, key, clip, cache)

    # --- its beginning, told by the first process -------------------------------------------------

    def write_settings(self, step: int) -> None:
        """Write down the settings from this step on."""
        for name, (before, now) in self.changed.items():
            console.print(
                f"[yellow]from step {step} on: {option_of(name)} {said(now)}, before {said(before)}[/yellow]"
            )
        if self.changed:
            self.folder.log("changes.jsonl", {"step": step, "changes": self.changed})
        self.folder.write_settings(with_absolute_paths(self.settings))
        write_data(self.folder.path, data_record(self.settings, self.train_shards, self.val_shards))

    def note_provenance(self) -> None:
        """Note the model's provenance, for its checkpoints."""
        told = provenance_of_yardstick(self.folder.read_metrics().yardstick)
        self.module.provenance = provenance_of(self.train_shards, self.val_shards) | told

    def tell_beginning(self) -> None:
        """Print what is trained, on which clips, and what is odd about these."""
        self.notes.table(branch_table(self.module))
        if corpora := self.train_shards.named_corpora:
            self.notes.table(mixture_table(shares_of(self.train_shards), corpora))
        for shards in filter(None, (self.train_shards, self.val_shards)):
            self.notes.problems(shards.problems)
        self.notes.problems(
            notes_on_reading(self.train_shards.remote_reading, (self.train_shards, self.val_shards))
        )


def open_run(
    settings: Settings, accelerator: Accelerator, processes: Processes, clips: SharedClips | None = None
) -> TrainingRun:
    """Check everything that can be checked before anything expensive, then build it.

    ``clips``: what the trainings of a command hold in common; `None`: this one holds its own, in
    `reuse_memory`.
    """
    config = settings.train
    train_shards, val_shards = open_splits(config, limits_of(settings))
    saved = SavedRun.of(Path(config.run_dir)) if config.resume else None
    changed: dict[str, list[Any]] = {}
    if saved is not None:
        train_shards, val_shards = saved.in_its_order(train_shards, val_shards)
        changed = saved.check(settings, train_shards, val_shards)
    held = clips.of(train_shards, val_shards) if clips is not None else None
    notes = clips.notes if clips is not None else TellOnce()
    clip_cache: ClipStore = held or ClipCache(config.reuse_memory.num_bytes)
    folder = RunFolder(Path(config.run_dir), resume=config.resume, owner=processes.is_main)
    processes.wait("opening the run folder")

    module = _module_of(settings, train_shards, folder, accelerator.device)
    if saved is not None:
        saved.check_backbones(module)
    config = _with_precision(config, folder, module, processes)
    settings = replace(settings, train=config)
    tuning = FineTuning(module, config, clip_cache, notes)
    module.set_compute_dtype(compute_dtype(config.mixed_precision))
    module.set_reading(reading_of(config))
    if held is not None:
        held.begin(module, is_compiled=config.compile)

    quarantine = RunQuarantine()
    loader = make_loader(
        train_shards,
        settings,
        process=(processes.index, processes.count),
        cached=cached_in(clip_cache, "train") if clip_cache.budget_bytes else None,
        quarantine=quarantine.train,
    )
    average = WeightEMA(module, config.ema_decay)
    guard = Guard(folder, processes, config.on_error, len(train_shards))
    return TrainingRun(
        settings=settings,
        changed=changed,
        accelerator=accelerator,
        processes=processes,
        folder=folder,
        notes=notes,
        train_shards=train_shards,
        val_shards=val_shards,
        clip_cache=clip_cache,
        quarantine=quarantine,
        loader=loader,
        module=module,
        tuning=tuning,
        average=average,
        guard=guard,
        validation=Validation(module, guard, processes, quarantine.val, config.best_by),
        saver=Saver(folder, config, module, average, writes=processes.is_main),
        curves=CorpusCurves(module, train_shards, processes),
        absent_modalities=AbsentModalities(module.modalities, processes),
        reporter=Reporter(folder, settings, speaks=processes.is_main),
        clock=StageClock(module),
    )


def _module_of(settings: Settings, shards: ShardSet, folder: RunFolder, device: torch.device) -> ViPER:
    """The model as it begins, or begins again, in full precision."""
    config = settings.train
    torch.manual_seed(config.seed)
    labels = training_labels(shards, settings.model.fusion.output, folder.last if config.resume else None)
    if config.rescale and labels.tasks:
        raise ViperError("--rescale: divides intensities by their maximum; the training clips have other tasks")
    with without_collecting():
        module = ViPER(settings.model, labels)
    module.to(device)
    prepare_for_training(module, config)
    return module


def _with_precision(config: TrainConfig, folder: RunFolder, module: ViPER, processes: Processes) -> TrainConfig:
    """Settings with ``auto`` resolved, once per run."""
    is_settled = config.mixed_precision == "auto" and config.resume
    precision = folder.read_precision() if is_settled else config.mixed_precision
    return replace(config, mixed_precision=resolve_precision(precision, module, processes))
