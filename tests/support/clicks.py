"""clicks.py: a click in silence, and where a decoded clip has it."""

from __future__ import annotations

import numpy as np


def click(at_seconds: float, seconds: float = 2.0) -> np.ndarray:
    sound = np.zeros((1, round(seconds * 16_000)), np.float32)
    sound[0, round(at_seconds * 16_000)] = 0.9
    return sound


def click_seconds(clip) -> float:
    run = max(clip.sound, key=lambda run: run.samples.max())
    assert run.samples.max() > 0.3
    return run.start_seconds + run.samples.argmax() / 16_000
