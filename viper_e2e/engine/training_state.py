"""training_state.py: all that a run needs to go on bitwise where it stopped, saved beside the model."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..checkpoint import CheckpointError

FILE = "training.pt"


@dataclass
class TrainingState:
    """Counters of a run; tensors live in the optimizer and the model."""

    cursor: dict[str, int]
    """Where the order of samples stands: schema, seed, epoch, position."""
    step: int = 0
    """Optimizer steps made, skipped ones included."""
    best: dict[str, float] = field(default_factory=dict)
    """Best validation value so far by name."""
    clips_seen: int = 0
    loss_sum: float = 0.0
    """Of this epoch's steps, for its mean."""
    loss_steps: int = 0


def save(folder: Path, state: TrainingState, parts: dict[str, Any]) -> None:
    """Write the state with the ``state_dict`` of every part."""
    data = {
        "state": dict(vars(state)),
        "parts": {name: part.state_dict() for name, part in parts.items()},
    }
    torch.save(data, folder / FILE)


def load(folder: Path, parts: dict[str, Any]) -> TrainingState:
    """Restore every part; only tensors and plain data are read, nothing executed."""
    path = folder / FILE
    if not path.is_file():
        raise CheckpointError(f"{path}: missing; this checkpoint can be used for inference but not resumed")
    data = torch.load(path, map_location="cpu", weights_only=True)
    if set(data["parts"]) != set(parts):
        raise CheckpointError(
            f"{path}: was saved with {', '.join(sorted(data['parts']))}, this run has "
            f"{', '.join(sorted(parts))}; resume with the settings of the saved run"
        )
    for name, part in parts.items():
        part.load_state_dict(data["parts"][name])
    return TrainingState(**data["state"])


def seed_step(seed: int, step: int, process: int) -> None:
    """Seed every generator for one optimizer step.

    Dropout of step n then depends on (seed, n, process) alone, so that nothing of the generators has to be
    saved for an exact resume.
    """
    words = np.random.SeedSequence([seed, step, process]).generate_state(2)
    torch.manual_seed(int(words[0]))
    np.random.seed(int(words[1]))  # noqa: NPY002  libraries draw from the global generator
    random.seed(int(words[1]))
