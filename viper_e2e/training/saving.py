"""saving.py: checkpoints of a run: when and what is saved, and where it resumes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from viper_e2e.config import TrainConfig
from viper_e2e.loading import RunQuarantine
from viper_e2e.model import CheckpointError, ViPER, newest_whole, pretrained, write_over
from viper_e2e.runtime import AS_IT_IS, console
from viper_e2e.training import state as training_state
from viper_e2e.training.ema import WeightEMA
from viper_e2e.training.run_folder import RunFolder
from viper_e2e.training.state import TrainingState


class Saver:
    """Checkpoints of one run. ``parts`` have a ``state_dict`` each and are restored with the model.

    Every checkpoint is a model to be used: where weights are averaged it holds the average, which is what
    validation scores, and the weights that train stand in the training state of ``last``.
    """

    def __init__(self, run: RunFolder, config: TrainConfig, module: ViPER, average: WeightEMA, *, writes: bool):
        """``writes``: False for the further processes of a run, which only read."""
        self.run, self.config, self.module, self.writes = run, config, module, writes
        self.average = average
        self.kept: tuple[int, int] | None = None
        """Step of ``checkpoints/last``, and the last one validated by then; None where nothing was saved."""
        self.refusal = ""
        """Why a checkpoint could not be written, the last time."""
        self._saved_at = time.monotonic()

    @property
    def is_overdue(self) -> bool:
        """Whether ``--save-every-minutes`` asks for a checkpoint; clocks differ between processes."""
        minutes = self.config.save_every_minutes
        return bool(minutes) and time.monotonic() - self._saved_at > 60 * minutes

    def is_due(self, step: int) -> bool:
        """Whether ``--save-every-steps`` asks for a checkpoint after this step."""
        return bool(self.config.save_every_steps) and step % self.config.save_every_steps == 0

    def has_last(self, state: TrainingState) -> bool:
        """Whether ``checkpoints/last`` is what the run has come to."""
        return self.kept == (state.step, state.validated_step)

    def is_behind(self, state: TrainingState) -> bool:
        """Whether anything of what the run has come to is not on disk, where it belongs."""
        if not self.writes:
            return False
        self.run.write_rest()
        return not self.has_last(state) or bool(state.unsaved or self.run.unwritten)

    def save_last(self, state: TrainingState, parts: dict[str, Any], quarantine: RunQuarantine) -> None:
        """Replace ``checkpoints/last``, from which a run can be resumed."""
        if state.step in state.unsaved.values():
            return  # resumed from before this epoch, the run finds the model again that could not be written

        def fill(new: Path) -> None:
            pretrained.write(self.module, new)
            training_state.save(new, state, parts, quarantine)

        self._saved_at = time.monotonic()
        state.unwritten = dict(self.run.unwritten)
        if self._write(self.run.last, fill, keep_previous=True):
            self.kept = state.step, state.validated_step

    def save_model(self, name: str, state: TrainingState) -> None:
        """Replace ``checkpoints/<name>``, a model alone; ``state`` remembers where it could not be written."""
        state.unsaved.pop(name, None)
        if not self._write(
            self.run.path / "checkpoints" / name, lambda new: pretrained.write(self.module, new)
        ):
            state.unsaved[name] = state.step

    def _write(self, folder: Path, fill: Callable[[Path], None], *, keep_previous: bool = False) -> bool:
        """Whether it is written, as the first process has it; the others take its word."""
        if not self.writes:
            return True
        try:
            with self.average.swapped_in():
                write_over(folder, fill, keep_previous=keep_previous)
        except OSError as error:
            # A full or read-only disk must not end days of training; the last good folder is untouched.
            self.refusal = error.strerror or str(error)
            told = f"{folder}: not saved ({self.refusal}); training continues"
            console.print(told, style="yellow", **AS_IT_IS)
            return False
        return True

    def restore(
        self, parts: dict[str, Any], quarantine: RunQuarantine, enter: Callable[[int], None]
    ) -> TrainingState | None:
        """Load the newest undamaged checkpoint into the model, the parts and the quarantine; its state.

        ``enter`` is given the epoch first, and trains what the run trained in it.

        ``None`` where none was ever saved. Where all are damaged: :class:`CheckpointError`, never a silent
        start from scratch.
        """
        folder, damaged = newest_whole(self.run.last)
        for complaint in damaged if self.writes else ():
            console.print(f"[yellow]{complaint}[/yellow]")
        if folder is None and not damaged:
            return None
        if folder is None:
            raise CheckpointError(
                f"{self.run.last}: no undamaged checkpoint to resume from; start again in another --run-dir"
            )
        if damaged and self.writes:
            console.print(f"[yellow]continuing from {folder}[/yellow]")
        # Weights last: what the epoch trains is read in full precision.
        state = training_state.load(folder, parts, quarantine, enter)
        pretrained.read_weights(self.module, folder)
        self.kept = state.step, state.validated_step
        if self.average:
            self.average.step_aside()
        if self.writes:
            self._rewind_logs(state)
        return state

    def _rewind_logs(self, state: TrainingState) -> None:
        """Take out of the logs what was written after the checkpoint: it will be written again. What could not
        be written before it is."""
        here = (state.cursor.epoch, state.cursor.position)
        wanted = {
            "metrics.jsonl": lambda record: record["step"] <= state.validated_step,
            "skipped.jsonl": lambda record: _was_before(record, here, state.validated_step),
        }
        for file, keep in wanted.items():
            self.run.rewind(file, keep)
        others = {file: lines for file, lines in self.run.unwritten.items() if file not in wanted}
        self.run.unwritten = self.run.lacking(state.unwritten | others)
        self.run.write_rest()


def _was_before(record: dict[str, Any], here: tuple[int, int], validated_step: int) -> bool:
    """Whether a clip was left out before a checkpoint was made."""
    if record.get("split") == "val":
        return record["step"] <= validated_step
    return (record["epoch"], record["position"]) < here
