"""guarding.py: what can go wrong in a step: unreadable clips, losses that are no number, signals."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ..errors import ViperError
from ..loader import ClipBatch
from ..skips import SkipBudget
from .run_folder import RunFolder
from .training_state import TrainingState

MAX_BAD_STEPS = 3
SIGNALS = {signal.SIGTERM: 143, signal.SIGUSR1: 138, signal.SIGINT: 130}
"""What asks a run to stop after its current step, and the exit code it then has."""


class StopRequest:
    """A first signal ends the run after its step, a second at once."""

    def __init__(self):
        self.signal: signal.Signals | None = None

    @property
    def exit_code(self) -> int:
        return SIGNALS[self.signal] if self.signal else 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        def ask(number: int, frame: FrameType | None) -> None:
            if self.signal is not None:
                raise SystemExit(SIGNALS[signal.Signals(number)])
            self.signal = signal.Signals(number)

        previous = {number: signal.signal(number, ask) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


class Guard:
    """Writes down what could not be used and says when it is too much."""

    def __init__(self, run: RunFolder, on_error: str):
        self.run, self.on_error = run, on_error
        self.skips = SkipBudget()

    def count_skips(self, group: list[ClipBatch]) -> None:
        """Write down unreadable clips, once each; too many stop the run."""
        for batch in group:
            records = batch.skip_records()
            self.skips.read(sum(position is not None for position in batch.positions) - len(records))
            for record in records:
                if self.skips.skip(record):
                    self.run.log("skipped.jsonl", record.to_json())
                if self.on_error == "raise":
                    raise ViperError(f"{record.exception} (shard {record.shard}; --on-error raise)")
        self.skips.check()

    def count_bad_step(self, state: TrainingState, group: list[ClipBatch], value: float, norm: float) -> None:
        """No optimizer step on a loss or gradient that is no number; three in a row stop the run."""
        state.bad_steps += 1
        keys = [key for batch in group for key in batch.keys if key]
        record = {"step": state.step, "loss": str(value), "gradient_norm": str(norm), "keys": keys}
        self.run.log("nonfinite.jsonl", record)
        if state.bad_steps >= MAX_BAD_STEPS:
            raise ViperError(
                f"step {state.step}: loss {value}, gradient norm {norm}, {MAX_BAD_STEPS} steps in a row; "
                f"the clips are in {self.run.path / 'nonfinite.jsonl'}; lower --lr or use --mixed-precision no"
            )
