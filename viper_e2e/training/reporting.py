"""reporting.py: reports of a run while it trains: progress bar, metrics.jsonl, trackers, plots."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.progress import TaskID

from viper_e2e.config import Settings
from viper_e2e.labels import name_of
from viper_e2e.loading import SkipBudget
from viper_e2e.model import Predictions
from viper_e2e.report import CANNOT_DRAW, EpochRecord, RunLog, corpus_figures, figures
from viper_e2e.runtime import ProgressBar, console, progress_bar
from viper_e2e.scoring import OnBatch
from viper_e2e.training import yardstick
from viper_e2e.training.run_folder import RunFolder
from viper_e2e.training.tables import corpus_lines, epoch_line, flat_numbers
from viper_e2e.training.trackers import Tracker, check_installed, open_trackers

WAITING = "waiting"
DRAW_SECONDS = 60.0
"""Between drawings of plots while training continues: small epochs would take longer to draw than to train."""


class _Shown(NamedTuple):
    """Files and trackers that the first process keeps open during a run."""

    trackers: list[Tracker]
    bar: ProgressBar
    task: TaskID


class Reporter:
    """Speaks for the first process; in the others it is silent."""

    def __init__(self, run: RunFolder, settings: Settings, *, speaks: bool):
        self.run, self.settings, self.speaks = run, settings, speaks
        check_installed(settings.train.log_with)
        self._shown: _Shown | None = None
        self._console: Console = console
        self._started_at = time.monotonic()
        """Begin of the epoch or of its rest, as for the next two."""
        self._clips_done = 0
        self._spent_before: dict[str, float] = {}
        """Seconds of waiting and in each stage before it began; `count_step` is told those of the run."""
        self._speed = ""
        """Clips per second and the shares of the time of this epoch, as of the last step."""
        self._complained: set[str] = set()
        self._predictions: Predictions | None = None
        """Predictions of the last validation."""
        self.unwritten: set[str] = set()
        """Files that could not be written at the last attempt."""
        self._is_drawn, self._drawn_at = not settings.train.resume, -math.inf
        """A run that is resumed may have ended without its plots."""

    @contextmanager
    def _going_on(self, what: str) -> Iterator[None]:
        """A full disk must not end days of training: what cannot be written is said, once."""
        try:
            yield
        except CANNOT_DRAW as error:
            self.unwritten.add(what)
            if what not in self._complained:
                self._complained.add(what)
                self._warn(f"{what}: not written ({error}); training continues, and later it is tried again")
        else:
            self.unwritten.discard(what)

    @contextmanager
    def showing(self, step: int, total_steps: int) -> Iterator[None]:
        """Keep a progress bar and the trackers open."""
        if not self.speaks:
            yield
            return
        trackers = open_trackers(self.settings, step, self._warn)
        try:
            with progress_bar() as bar:
                task = bar.add_task("training", total=total_steps, completed=step)
                self._console, self._shown = bar.console, _Shown(trackers, bar, task)
                yield
                if not self._is_drawn:
                    self._draw()
        finally:
            for tracker in trackers:
                tracker.close()

    def _warn(self, line: str) -> None:
        self._console.print(f"[yellow]{escape(line)}[/yellow]", soft_wrap=True)

    def tell(self, line: str) -> None:
        """One line, above the progress bar."""
        self._console.print(line, soft_wrap=True, markup=False)

    def begin_epoch(self, *, waited_seconds: float, stage_seconds: Mapping[str, float]) -> None:
        """Restart the figures of speed, as later epochs may read clips from memory; see `count_step`."""
        self._started_at, self._clips_done = time.monotonic(), 0
        self._spent_before = {WAITING: waited_seconds, **stage_seconds}

    def count_step(
        self,
        step: int,
        value: float,
        lr: float | None,
        num_clips: int,
        *,
        waited_seconds: float,
        num_cached: int | None,
        stage_seconds: Mapping[str, float],
    ) -> None:
        """One optimizer step over ``num_clips`` of all processes; ``num_cached``: clips in memory, if any.

        ``waited_seconds`` for clips, and ``stage_seconds`` in the module's stages, since the run began.
        """
        if self._shown is None:
            return
        self._clips_done += num_clips
        elapsed = time.monotonic() - self._started_at
        spent = {
            name: seconds - self._spent_before.get(name, 0.0)
            for name, seconds in {WAITING: waited_seconds, **stage_seconds}.items()
        }
        stages = sorted(stage_seconds, key=lambda name: -spent[name])
        shares = [f"{name} {spent[name] / elapsed:.0%}" for name in (WAITING, *stages)]
        self._speed = " · ".join([f"{self._clips_done / elapsed:.1f} clips/s", *shares])
        details = self._speed if num_cached is None else f"{self._speed} · cached {num_cached}"
        for tracker in self._shown.trackers:
            tracker.numbers({"step/loss": value} | ({} if lr is None else {"step/lr": lr}), step)
        note = "" if math.isnan(value) else f"loss {value:.4f}"
        self._shown.bar.update(self._shown.task, completed=step, note=note, details=details)

    @contextmanager
    def validating(self, num_clips: int) -> Iterator[OnBatch]:
        """A line of its own while clips are scored; yields what is to see each batch."""
        if self._shown is None:
            yield lambda batch, output: None
            return
        bar = self._shown.bar
        task = bar.add_task("validating", total=num_clips)
        try:
            yield lambda batch, output: bar.update(task, completed=min(num_clips, batch.next_position))
        finally:
            bar.remove_task(task)

    def report_epoch(
        self,
        record: EpochRecord,
        predictions: Predictions | None,
        skips: SkipBudget,
        lacking: Sequence[str] = (),
    ) -> None:
        """Log an epoch, draw it, and say it in one line; further lines tell which clips it was without, and
        what its clips are ``lacking``."""
        if self._shown is None:
            return
        with self._going_on("metrics.jsonl"):
            self._leave_out_earlier(record)
        line = record.to_json()
        self.run.log("metrics.jsonl", line)
        self._console.print(epoch_line(record), soft_wrap=True)
        told = [*corpus_lines(record.val)] if record.val is not None else []
        told += [yardstick.line(record.yardstick)] if record.yardstick is not None else []
        for more in told:
            self._console.print(f"           {more}", soft_wrap=True, markup=False)
        for complaint in (*self._complaints(record, skips), *lacking):
            self._console.print(f"[yellow]           {complaint}[/yellow]", soft_wrap=True)
        if self._speed:
            self._console.print(f"           {self._speed}", soft_wrap=True)
        for tracker in self._shown.trackers:
            numbers = {name: value for name, value in flat_numbers(line) if name != "step"}
            tracker.numbers(numbers, record.step)
        self._is_drawn, self._predictions = False, predictions
        if time.monotonic() - self._drawn_at >= DRAW_SECONDS:
            self._draw()

    def _leave_out_earlier(self, record: EpochRecord) -> None:
        """Remove an earlier line of this epoch, left by a run that stopped within it (--max-steps). It
        stays if it is about the best model, which `checkpoints/best` still holds."""
        log = self.run.read_metrics()
        best = RunLog((*log.epochs, record)).best

        def stays(one: EpochRecord) -> bool:
            return one.epoch != record.epoch or (best is not None and one == best.epoch)

        if leaving := {(one.epoch, one.step) for one in log.epochs if not stays(one)}:
            self.run.rewind("metrics.jsonl", lambda line: (line["epoch"], line["step"]) not in leaving)

    def _complaints(self, record: EpochRecord, skips: SkipBudget) -> Iterator[str]:
        """Complaints about an epoch that its numbers do not show."""
        if skips.num_skipped:
            yield f"{skips.num_skipped} of {skips.num_seen} clips could not be used; see skipped.jsonl"
        if record.val is None:
            return
        if record.val.num_left_out:
            yield f"{record.val.num_left_out} validation clips could not be used; see skipped.jsonl"
        if record.val.without_number:
            yield f"no finite number for the validation clips {', '.join(record.val.without_number)}"
        judged = record.val.scores.judgement
        if judged.score is None and judged.measure not in self._complained:
            self._complained.add(judged.measure)
            yield f"{judged.measure} is undefined (do the validation labels vary?): `best` is chosen by MSE"

    def _draw_predictions(self, predictions: Predictions) -> None:
        for task, part in predictions.by_task():
            if task.kind in ("intensities", "number") and part.scored.any():
                suffix = f"_{name_of(task.name)}" if predictions.labels.names_tasks else ""
                figures.predicted_against_true(part, self.run.plots / f"predicted_against_true{suffix}.png")

    def _draw(self) -> None:
        with self._going_on("plots"):
            self.run.plots.mkdir(exist_ok=True)
            log = self.run.read_metrics()
            figures.training_curves(log, self.run.plots / "curves.png")
            if corpus_figures.are_there(log):
                corpus_figures.curves_by_corpus(log, self.run.plots / "curves_by_corpus.png")
            if self._predictions is not None:
                self._draw_predictions(self._predictions)
            self._hand_pictures(log)
        self._is_drawn, self._drawn_at = True, time.monotonic()

    def _hand_pictures(self, log: RunLog) -> None:
        for tracker in self._shown.trackers if self._shown and log.epochs else []:
            for path in sorted(self.run.plots.glob("*.png")):
                tracker.picture(path, log.epochs[-1].step)
