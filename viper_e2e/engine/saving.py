"""saving.py: when a run is saved, what is saved, and where it goes on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from .. import pretrained
from ..checkpoint import CheckpointError, newest_whole, write_folder
from ..config import TrainConfig
from ..model import ViPER
from . import training_state
from .display import console
from .run_folder import RunFolder
from .training_state import TrainingState


class Saver:
    """Checkpoints of one run. ``parts`` have a ``state_dict`` each and are restored with the model."""

    def __init__(self, run: RunFolder, config: TrainConfig, module: ViPER, *, writes: bool):
        """``writes``: False for the further processes of a run, which only read."""
        self.run, self.config, self.module, self.writes = run, config, module, writes
        self._saved_at = time.monotonic()

    def is_due(self, step: int) -> bool:
        """Whether ``--save-every-steps`` or ``--save-every-minutes`` asks for a checkpoint now."""
        steps, minutes = self.config.save_every_steps, self.config.save_every_minutes
        return bool(
            (steps and step % steps == 0) or (minutes and time.monotonic() - self._saved_at > 60 * minutes)
        )

    def save_last(self, state: TrainingState, parts: dict[str, Any], quarantined: dict[str, str]) -> None:
        """Replace ``checkpoints/last``, from which a run can be resumed."""

        def fill(new: Path) -> None:
            pretrained.write(self.module, new)
            training_state.save(new, state, parts, quarantined)

        self._saved_at = time.monotonic()
        self._write(self.run.last, fill)

    def save_model(self, name: str) -> None:
        """Replace ``checkpoints/<name>``, a model alone."""
        self._write(self.run.path / "checkpoints" / name, lambda new: pretrained.write(self.module, new))

    def _write(self, folder: Path, fill: Any) -> None:
        if not self.writes:
            return
        try:
            write_folder(folder, fill)
        except OSError as error:
            # A full or read-only disk must not end days of training; the last good folder is untouched.
            console.print(f"[yellow]{folder}: not saved ({error}); training goes on[/yellow]")

    def restore(self, parts: dict[str, Any]) -> tuple[TrainingState, dict[str, str]]:
        """Load the newest undamaged checkpoint into the model and the parts; its state and quarantine."""
        folder, damaged = newest_whole(self.run.last)
        for complaint in damaged:
            console.print(f"[yellow]{complaint}[/yellow]")
        if folder is None:
            raise CheckpointError(
                f"{self.run.last}: no undamaged checkpoint to resume from; start anew in another --run-dir"
            )
        pretrained.read_weights(self.module, folder)
        return training_state.load(folder, parts)
