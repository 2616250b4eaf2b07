"""state.py: all that a run needs to continue bitwise where it stopped, saved beside the model."""

from __future__ import annotations

import errno
import random
import shutil
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch

from viper_e2e.loading import Cursor, RunQuarantine
from viper_e2e.model import CheckpointError

FILE = "training.pt"
ADDED_LATER = frozenset({"yardstick", "corpora"})
"""Parts that checkpoints of earlier versions lack, or only mixtures have; they get an empty state."""
OF_STEPS = frozenset({"optimizer", "schedule", "loss", "scaler"})
"""Parts of learning by steps; checkpoints of a ridge had them too in earlier versions."""


@dataclass
class TrainingState:
    """Counters of a run; tensors live in the optimizer and the model."""

    cursor: Cursor
    """The next position to be trained on."""
    step: int = 0
    """Optimizer steps made, those on a bad gradient included."""
    validated_step: int = -1
    """The step at which the last validation took place."""
    best: dict[str, float] = field(default_factory=dict)
    """Best validation value so far by name of the checkpoint; larger is better."""
    unsaved: dict[str, int] = field(default_factory=dict)
    """Step of the newest model that could not be written, by checkpoint; known to the first process."""
    unwritten: dict[str, list[str]] = field(default_factory=dict)
    """Lines that could not be written, by log; known to the first process."""
    epochs_without_better: int = 0
    """Validated epochs since `best` was last replaced."""
    loss_sum: float = 0.0
    """Sum over this epoch's steps, for their mean."""
    loss_steps: int = 0
    overflows: int = 0
    """Steps in a row that fp16's loss scaler has skipped."""
    bad_steps: int = 0
    """Steps in a row whose loss or gradient was not finite."""
    bad_keys: list[str] = field(default_factory=list)
    """The clips of these steps."""
    last_good_step: int = -1
    """The last step that changed the weights."""
    went_back_at: int = -1
    """The step at which the run last went back to a checkpoint."""
    recent_losses: list[float] = field(default_factory=list)
    """Losses of the last finite steps, to recognise a spike."""

    def is_out_of_patience(self, patience: int) -> bool:
        """Whether that many epochs have brought nothing better; never where ``patience`` is 0."""
        return 0 < patience <= self.epochs_without_better


def save(folder: Path, state: TrainingState, parts: dict[str, Any], quarantine: RunQuarantine) -> None:
    """Write the state with the ``state_dict`` of every part."""
    data = {
        "state": vars(state) | {"cursor": state.cursor.to_json()},
        "parts": {name: part.state_dict() for name, part in parts.items()},
        "quarantined": quarantine.to_json(),
    }
    try:
        torch.save(data, folder / FILE)
    except RuntimeError as error:
        # What torch makes of a full disk; numbers and tensors alone have no other reason to fail.
        free = shutil.disk_usage(folder).free
        reason = f"{str(error).splitlines()[0]}; {free:,} bytes are free"
        raise OSError(errno.ENOSPC, reason, str(folder / FILE)) from error


def load(
    folder: Path, parts: dict[str, Any], quarantine: RunQuarantine, enter: Callable[[int], None]
) -> TrainingState:
    """Restore every part and the quarantine; only tensors and plain data are read, nothing is executed.

    ``enter`` is given the epoch and makes the parts what they were in it.
    """
    data, path = _data_of(folder), folder / FILE
    saved, wanted = set(data["parts"]) - ADDED_LATER, set(parts) - ADDED_LATER
    if wanted != (saved if wanted & OF_STEPS else saved - OF_STEPS):
        raise CheckpointError(
            f"{path}: was saved with {', '.join(sorted(data['parts']))}, this run has "
            f"{', '.join(sorted(parts))}; resume with the settings of the saved run"
        )
    state = _state_of(data)
    enter(state.cursor.epoch)
    for name, part in parts.items():
        try:
            part.load_state_dict(data["parts"].get(name, {}) if name in ADDED_LATER else data["parts"][name])
        except ValueError as error:
            # torch's word for other groups of parameters, of which no names are saved.
            raise CheckpointError(
                f"{path}: its {name} does not fit ({error}): it was saved by an earlier version, which grouped "
                "parameters in another way; resume with that version, or start a new --run-dir"
            ) from error
    quarantine.restore(data["quarantined"])
    return state


def read(folder: Path) -> TrainingState:
    """Progress of the run of a checkpoint."""
    return _state_of(_data_of(folder))


def _data_of(folder: Path) -> dict[str, Any]:
    path = folder / FILE
    if not path.is_file():
        raise CheckpointError(f"{path}: missing; this checkpoint can be used for inference but not resumed")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError) as error:
        raise CheckpointError(f"{path}: holds more than tensors and plain data, or is damaged") from error


def _state_of(data: dict[str, Any]) -> TrainingState:
    state = data["state"]
    return TrainingState(**state | {"cursor": Cursor.from_json(state["cursor"])})


def clip_seed(seed: int, epoch: int, key: str) -> int:
    """One number per (seed, epoch, clip): what is drawn for a clip depends on nothing else."""
    return int(np.random.SeedSequence([seed, epoch, zlib.crc32(key.encode())]).generate_state(1)[0])


def seed_step(seed: int, step: int, process: int) -> None:
    """Seed every generator for one optimizer step.

    Dropout of step n then depends on (seed, n, process) alone, so that nothing of the generators has to be
    saved for an exact resume.
    """
    words = np.random.SeedSequence([seed, step, process]).generate_state(2)
    torch.manual_seed(int(words[0]))
    np.random.seed(int(words[1]))  # noqa: NPY002  libraries draw from the global generator
    random.seed(int(words[1]))
