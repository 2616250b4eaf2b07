"""guarding.py: guards against faults of a step: unreadable clips, losses that are not finite, signals."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from types import FrameType
from typing import Any, NoReturn

from torch.amp import GradScaler

from viper_e2e.encoders import PreparedClip
from viper_e2e.errors import ClipError, ExitCode, ViperError
from viper_e2e.loading import ClipBatch, Quarantine, SkipBudget, SkipRecord
from viper_e2e.runtime import Processes
from viper_e2e.training.run_folder import RunFolder
from viper_e2e.training.state import TrainingState

MAX_BAD_STEPS = 3
"""So many steps in a row were not finite (NaN) send a run back to its last checkpoint."""
MAX_OVERFLOWS = 8
"""So many steps in a row may overflow in fp16, each halving the scale of the loss, as many do at the beginning;
those after them, or at a scale below 1, are not too large but no numbers."""
SPIKE_FACTOR = 10.0
"""A loss this many times the median of the recent ones is a spike."""
MIN_RECENT_LOSSES, MAX_RECENT_LOSSES = 20, 100
SIGNALS = {
    getattr(signal, name): code
    for name, code in (("SIGTERM", 143), ("SIGUSR1", 138), ("SIGINT", 130), ("SIGHUP", 129))
    if hasattr(signal, name)  # Windows has the first and the third
}
"""Signals that ask a run to stop after its current step, and the exit code it then has."""


class DivergedError(ViperError):
    """A training that came to no finite numbers time and again, in all processes at the same step.

    Of many trainings in one command it ends this one alone: other settings, seeds or clips may do well.
    """

    def __init__(self, why: str, advice: str):
        super().__init__(f"{why}; {advice}")
        self.why = why


class StopRequest:
    """A first signal to any process ends the run after its step, a second one ends its process at once."""

    def __init__(self) -> None:
        self.own: signal.Signals | None = None
        """Signal sent to this process."""
        self.agreed: signal.Signals | None = None
        """Signal that all processes agreed to stop for."""

    @property
    def exit_code(self) -> int:
        return SIGNALS[self.agreed] if self.agreed else ExitCode.OK

    def agree(self, numbers: list[int]) -> None:
        """Take in the number of the signal that each process was sent, 0 for none."""
        if any(numbers):
            self.agreed = signal.Signals(max(numbers))

    @contextmanager
    def listening(self) -> Iterator[None]:
        def ask(number: int, frame: FrameType | None) -> None:
            if self.own is not None:
                os._exit(SIGNALS[signal.Signals(number)])
            self.own = signal.Signals(number)

        # Under `nohup` a lost terminal must not end the run.
        heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        previous = {number: signal.signal(number, ask) for number in heard}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


class Guard:
    """Writes down what could not be used and says when it is too much; the same on every process."""

    def __init__(self, run: RunFolder, processes: Processes, on_error: str, num_clips: int | None = None):
        """``num_clips``: of an epoch of all processes."""
        self.run, self.processes, self.on_error = run, processes, on_error
        self.skips = SkipBudget(num_clips=num_clips)
        self._late_skips: list[SkipRecord] = []
        """Late skips of this process in this step."""

    def own_skips(self, group: list[ClipBatch]) -> list[SkipRecord]:
        """The clips of this process that cannot be used."""
        if group:
            self.skips.begin(group[0].epoch)
        records = [record for batch in group for record in batch.skip_records()]
        self.refuse(records)
        return records

    def refuse(self, records: list[SkipRecord]) -> None:
        """End the run at the first clip that cannot be used, with ``--on-error raise``."""
        new = [record for record in records if record.stage != "quarantine"]
        if new and self.on_error == "raise":
            raise ViperError(f"{new[0].exception} (shard {new[0].shard}; --on-error raise)")

    def count_skips(self, positions: range, own: list[SkipRecord], num_skips: int) -> None:
        """Count the clips of a step of all processes in their order; too many unreadable ones stop the run.

        ``num_skips``: of all processes together; where it is 0, nothing has to be sent.
        """
        if num_skips == 0:
            self.skips.read(len(positions))
            self.skips.check()  # also of what was left out before it could be judged
            return
        records = self.processes.gather_list(own, purpose="telling unreadable clips")
        skipped = {record.position: record for record in records}
        for position in positions:
            record = skipped.get(position)
            if record is None:
                self.skips.read()
            elif self.skips.skip(record) and self.processes.is_main:
                self.run.log("skipped.jsonl", record.to_json())
        self.skips.check()

    def without_failed(
        self, batch: ClipBatch, prepared: Sequence[PreparedClip | ClipError], quarantine: Quarantine
    ) -> ClipBatch:
        """Clips that fail only in the module (decoded again, larger) are left out like those that fail before.

        The step has counted them, so that its gradient is smaller by their share.
        """
        failed = batch.failed_later(prepared)
        if not failed:
            return batch
        for row, error in failed.items():
            self._late_skips.append(batch.skip_record(row, error))
            if error.stage == "worker":
                quarantine.add(batch.keys[row], error.reason)
        self.refuse(self._late_skips)
        return batch.without(failed)

    def count_late_skips(self) -> None:
        """Count the skips of `without_failed` at the end of a step, as `count_skips` does."""
        own, self._late_skips = self._late_skips, []
        counts = self.processes.gather_scalars(len(own), purpose="counting clips that failed late")
        if not counts.any():
            return
        records = self.processes.gather_list(own, purpose="telling clips that failed late")
        for record in sorted(records, key=lambda record: record.position):
            if self.skips.skip_late(record) and self.processes.is_main:
                self.run.log("skipped.jsonl", record.to_json())
        self.skips.check()

    def count_validation_skips(self, records: list[SkipRecord], num_clips: int) -> int:
        """Write down and count the clips that a validation had to do without; too many stop the run.

        ``records``: those of all processes, in each of them.
        """
        budget = SkipBudget(num_clips=num_clips, known=self.skips.known)
        for record in sorted(records, key=lambda record: record.position):
            if budget.skip(record) and self.processes.is_main:
                self.run.log("skipped.jsonl", record.to_json())
        budget.in_a_row = 0  # a broken row of shards is a large share as well, all clips are known by now
        budget.read(num_clips - len(records))
        try:
            budget.check()
            budget.end()
        except ViperError as error:
            raise ViperError(f"validation: {error}") from error
        return len(records)

    def may_overflow(self, state: TrainingState, scaler: GradScaler | None) -> bool:
        """Whether a gradient that is not finite comes from fp16's scale of the loss, and does no harm yet."""
        return scaler is not None and state.overflows < MAX_OVERFLOWS and scaler.get_scale() >= 1

    def watch_loss(self, state: TrainingState, value: float, group: list[ClipBatch]) -> None:
        """Log a loss far above what is usual. Losses are the same on every process, and so is the verdict."""
        usual = median(state.recent_losses) if len(state.recent_losses) >= MIN_RECENT_LOSSES else math.inf
        if value > SPIKE_FACTOR * usual:
            keys = self._keys(group)
            self._log("spikes.jsonl", {"step": state.step, "loss": value, "median": usual, "keys": keys})
        state.recent_losses = [*state.recent_losses, value][-MAX_RECENT_LOSSES:]

    def count_bad_step(self, state: TrainingState, value: float, norm: float, group: list[ClipBatch]) -> None:
        """Write down a step on a loss or gradient that is no number.

        Raises :class:`DivergedError` where the run has gone back for such steps before, and is no further.
        """
        keys = self._keys(group)
        state.bad_steps += 1
        state.bad_keys += keys
        record = {"step": state.step, "loss": str(value), "gradient_norm": str(norm), "keys": keys}
        self._log("nonfinite.jsonl", record)
        has_gone_back = state.went_back_at >= 0
        if state.bad_steps >= MAX_BAD_STEPS and has_gone_back and state.last_good_step <= state.went_back_at:
            self.give_up(f"step {state.step}: again {MAX_BAD_STEPS} steps in a row were not finite (NaN)")

    def give_up(self, why: str) -> NoReturn:
        file = self.run.path / "nonfinite.jsonl"
        raise DivergedError(why, f"the clips are in {file}; lower --lr or use --mixed-precision no")

    def _keys(self, group: list[ClipBatch]) -> list[str]:
        own = [key for batch in group for key in batch.keys if key]
        return self.processes.gather_list(own, purpose="telling the clips of a bad step")

    def _log(self, file: str, record: dict[str, Any]) -> None:
        if self.processes.is_main:
            self.run.log(file, record)
