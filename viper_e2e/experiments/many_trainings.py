"""many_trainings.py: many trainings in one command; every clip is decoded and encoded once for all of them."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

from viper_e2e.config import Settings
from viper_e2e.errors import ExitCode, ViperError
from viper_e2e.experiments.closing_lines import finished_lines, stopped_line, unsaved_line
from viper_e2e.experiments.ensembling import check_joinable
from viper_e2e.experiments.outcome import Failed, Outcome, RunT
from viper_e2e.model import Predictions, ViPER, check_compiler, compute_dtype, keep_compiled_in
from viper_e2e.runtime import Processes, TellOnce, console, heed_launcher
from viper_e2e.scoring import Hooks, score
from viper_e2e.shards import ShardSet
from viper_e2e.training import (
    DivergedError,
    RunFolder,
    SharedClips,
    Trainer,
    cached_in,
    check_is_free,
    check_to_resume,
    has_ended,
    keeping,
    open_trainer,
    reading_of,
    verdict,
    what_helps,
)


def train_alone(settings: Settings) -> int:
    """Train one run as the settings say; returns the exit code: 0, or the signal's if one asked to stop."""
    check_to_resume(settings)
    check_joinable(settings)
    with ManyTrainings(settings, command=["viper", "train", *settings.words], shares=False) as alone:
        alone.check_free([settings])
        alone.train(settings)
        return alone.code or alone.code_of(failed=False)


class ManyTrainings:
    """Trains one run after the other on what one pass of decoding and frozen encoders gives.

    A context of `train_alone`, of seeds, of folds, and of all that compares settings::

        with ManyTrainings(settings, command=["viper", "cv", *words]) as many:
            for run, ended in many.each(runs):     # an Outcome, or Failed; fewer if a signal asked to stop
                if isinstance(ended, Outcome):
                    predictions = many.predict(ended, held_out)   # from tokens that are held already
            return many.code                       # 0, or that of the signal

    Each run is bitwise the one that `viper train` makes alone with these settings. A run whose settings have
    ``resume`` continues where it stopped, begins where nothing is there yet, and is not trained again once it
    has ended. What is shared, and when it cannot be, says `SharedClips`.
    """

    def __init__(self, settings: Settings, *, command: Sequence[str], shares: bool = True, count: int = 1):
        """``settings``: what all have in common: precision, processes, memory, compiler. ``command``: the
        words with which all of it continues, ``--resume`` aside. ``shares`` False: each holds its own clips.
        ``count``: of the trainings there will be, for reports."""
        self.settings, self.command = settings, command
        self._has_advised = False
        heed_launcher()
        train = settings.train
        self.accelerator = Accelerator(
            # The module computes in its own precision; only the loss of float16 has to be scaled outside of it.
            mixed_precision="fp16" if train.mixed_precision == "fp16" else "no",
            step_scheduler_with_optimizer=False,
            # The detector's weights are buffers: equal everywhere, so they need not be sent at every step.
            kwargs_handlers=[
                DistributedDataParallelKwargs(broadcast_buffers=False),
                InitProcessGroupKwargs(timeout=timedelta(seconds=train.process_timeout_seconds)),
            ],
        )
        self.processes = Processes(self.accelerator)
        given = train.reuse_memory.num_bytes
        budget = given if given or "reuse_memory" in settings.given else None
        self.notes = TellOnce()
        """Notes of all trainings so far."""
        speaks = self.processes.is_main
        self.clips = (
            SharedClips(budget, notes=self.notes, speaks=speaks, num_trainings=count) if shares else None
        )
        self.code: int = ExitCode.OK
        """0, or that of the signal that asked to stop."""
        self.undrawn: list[str] = []
        """Plots that could not be drawn of the trainings that have ended."""
        self._precision = train.mixed_precision
        scaler = self.accelerator.scaler
        self._first_scale = None if scaler is None else deepcopy(scaler.state_dict())

    def __enter__(self) -> ManyTrainings:
        train = self.settings.train
        if train.mixed_precision == "fp16" and self.accelerator.scaler is None and self.processes.is_main:
            console.print(
                "[yellow]--mixed-precision fp16: on this device the loss is not scaled, so small gradients "
                "become 0; bf16 or no needs no scaling[/yellow]"
            )
        if train.compile:
            keep_compiled_in(Path(train.run_dir) / "compiled")
            with self.processes.telling_failures():
                check_compiler(self.accelerator.device)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.accelerator.end_training()

    def check_free(self, runs: Iterable[Settings]) -> None:
        """`ViperError` if there is already a run that is not to be continued: before the first is trained."""
        with self.processes.telling_failures():
            for run in runs if self.processes.is_main else ():
                if not run.train.resume:
                    check_is_free(Path(run.train.run_dir))

    def each(
        self, runs: Iterable[RunT], begun: Callable[[], None] = lambda: None
    ) -> Iterator[tuple[RunT, Outcome | Failed]]:
        """Train one run after the other; each as it has ended, in their order. A run that diverges is told and
        fails alone. After a signal has asked to stop none follows, and `code` is not 0. ``begun``: see `train`.
        """
        for run in runs:
            ended: Outcome | Failed | None
            try:
                ended = self.train(run.settings, begun)
            except DivergedError as error:
                self.tell(f"{run.name} failed: {error}")
                ended = Failed(error.why)
            if ended is None:
                return
            yield run, ended

    def train(self, run: Settings, begun: Callable[[], None] = lambda: None) -> Outcome | None:
        """Train one run to its end; `None` once a signal has asked to stop, reported with the command that
        goes on. ``begun`` is called when all that can be checked beforehand is. After a `DivergedError` the
        next one may be trained; `ViperError` where its checkpoints or logs could not be written."""
        run = self._resolved(run)
        diverged: DivergedError | None = None
        with self.processes.telling_failures():
            if self.clips is not None and has_ended(run):
                begun()
                return self._outcome(run, was_there=True)
            if self._first_scale is not None:
                # The scale that another training ended with must not carry over.
                self.accelerator.scaler.load_state_dict(deepcopy(self._first_scale))
            trainer = open_trainer(run, self.accelerator, self.processes, clips=self.clips)
            try:
                begun()
                # What `auto` came to for the first holds for all of them.
                self._precision = trainer.run.config.mixed_precision
                self.code = trainer.train()
                self.processes.wait("the last of a training to be written")
            except DivergedError as error:
                # All processes come here together, and none of them is gone; its traceback holds the model.
                diverged = error.with_traceback(None)
            finally:
                trainer.close()
        if diverged is not None:
            self.accelerator.free_memory()
            raise diverged
        if self.code:
            self.tell(stopped_line(trainer, self.command))
            return None
        self._refuse_unsaved(trainer)
        outcome = self._outcome(run, was_there=False)
        self._tell_undrawn(trainer)
        self.tell(finished_lines(trainer, is_alone=self.clips is None))
        if below := verdict(outcome.log):
            self.tell(below, style="yellow")
            self._tell_what_helps(run)
        # Else it would hold every model that it has prepared.
        self.accelerator.free_memory()
        return outcome

    def code_of(self, *, failed: bool) -> int:
        """Exit code once all trainings have ended: 2 if some ``failed`` or a plot could not be drawn."""
        return ExitCode.SOME_FAILED if failed or self.undrawn else ExitCode.OK

    def predict(
        self, outcome: Outcome, shards: ShardSet, checkpoint: str = "", *, model: Path | None = None
    ) -> Predictions:
        """Predictions of clips by an ended run's checkpoint, in the precision in which it was trained.

        Clips whose tokens are cached are neither decoded nor encoded. All processes must ask, and get all.
        ``checkpoint``: ``last`` or ``best``; empty: as `Outcome.best`. ``model``: one made of the run's, in its
        place.
        """
        run = outcome.settings
        folder = model or (outcome.best.with_name(checkpoint) if checkpoint else outcome.best)
        module = ViPER.from_pretrained(folder).to(self.accelerator.device)
        module.calibration = None  # what was trained is asked for
        module.set_compute_dtype(compute_dtype(run.train.mixed_precision))
        module.set_reading(reading_of(run.train))
        hooks = Hooks()
        if self.clips is not None:
            held = self.clips.of(shards)
            held.begin(module)
            if held.budget_bytes:
                hooks = Hooks(cached=cached_in(held, "train"), on_clip=keeping(held, module, shards, "train"))
        with self.processes.telling_failures():
            scored = score(module, shards, reading_of(run.train), processes=self.processes, hooks=hooks)
            found = [one for one in scored if one.index >= 0]
        return Predictions.of(found, module.labels, module.modalities, shards)

    def _resolved(self, run: Settings) -> Settings:
        train = run.train
        resume = train.resume and (self.clips is None or (Path(train.run_dir) / "config.yaml").exists())
        precision = self._precision if train.mixed_precision == "auto" else train.mixed_precision
        return replace(run, train=replace(train, resume=resume, mixed_precision=precision))

    def _outcome(self, run: Settings, *, was_there: bool) -> Outcome:
        folder = RunFolder(Path(run.train.run_dir), resume=True, owner=False)
        precision = folder.read_settings()["mixed_precision"] if was_there else self._precision
        if run.train.mixed_precision == "auto":
            self._precision = precision
            run = replace(run, train=replace(run.train, mixed_precision=precision))
        return Outcome(run, folder.read_metrics(), was_there)

    def _refuse_unsaved(self, trainer: Trainer) -> None:
        """`ViperError` in all processes where the first could not write the end of a training: what follows
        would name, measure or join models that are not there, and the next training finds the same disk."""
        is_behind = float(trainer.run.saver.is_behind(trainer.state))
        if self.processes.gather_scalars(is_behind, purpose="looking at what is saved")[0, 0]:
            told = unsaved_line(trainer, self.command)
            raise ViperError(
                told if self.processes.is_main else "process 0 could not save the end of the training"
            )

    def _tell_undrawn(self, trainer: Trainer) -> None:
        """Tell the plots that could not be written at a training's end."""
        folder = trainer.run.folder.path
        for name in sorted(trainer.run.reporter.unwritten):
            path = folder / name
            self.undrawn.append(str(path))
            again = f"; make room, then viper train --resume --run-dir {shlex.quote(str(folder))}"
            alone = self.clips is None
            self.tell(f"{path}: could not be written, all else is{again if alone else ''}", style="yellow")

    def tell(self, text: str, style: str = "") -> None:
        """Print lines for people, once for all processes."""
        if self.processes.is_main:
            console.print(text, style=style, soft_wrap=True, markup=False)

    def _tell_what_helps(self, run: Settings) -> None:
        """After the first training that needs it, not after each."""
        if not self._has_advised:
            self.tell(what_helps(run), style="yellow")
        self._has_advised = True
