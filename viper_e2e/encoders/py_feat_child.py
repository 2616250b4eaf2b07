"""py_feat_child.py: the worker of `py_feat.py`: frames -> py-feat's columns."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

BATCH_SIZE = 8
"""Frames that py-feat looks at together; bounds its memory."""


@runtime_checkable
class Detector(Protocol):
    """The methods of ``feat.Detectorv1`` that are called."""

    @property
    def detect(self) -> Callable[..., Any]: ...


@dataclass
class MeasureFrames:
    """Frames → column names, and a row per frame, float32: the first face's, NaN where there is none.

    Of None: nothing, once the models are loaded. Neither they nor torch are loaded before.
    """

    device: str
    _detector: Detector | None = field(default=None, init=False)

    def __call__(self, frames: np.ndarray | None) -> tuple[list[str], np.ndarray] | None:
        if self._detector is None:
            # py-feat and what it loads print; what goes wrong is in the traceback that the parent gets.
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, 1)
            os.dup2(silence, 2)
            self._detector = _detector(self.device)
        return None if frames is None else measure(self._detector, frames)


def _detector(device: str) -> Any:
    """The models that come nearest to the published ones: their logistic AU models are gone."""
    import feat

    return feat.Detectorv1(
        face_model="retinaface",
        landmark_model="mobilefacenet",
        au_model="xgb",
        emotion_model="resmasknet",
        identity_model=None,
        gaze_model=None,
        device=device,
    )


def measure(detector: Detector, frames: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Column names, and per frame the first face's action units and emotions.

    ``detect`` gives a table of a row per face, or one of NaN where a frame has none; ``aus`` and ``emotions``
    are its columns by kind. Source: py-feat 2.1, ``feat.Detectorv1.detect``.
    """
    import torch

    pixels = torch.from_numpy(frames.copy()).permute(0, 3, 1, 2)
    with torch.no_grad():
        found = detector.detect(
            pixels, data_type="tensor", batch_size=BATCH_SIZE, num_workers=0, progress_bar=False
        )
    columns = [str(name) for name in (*found.aus.columns, *found.emotions.columns)]
    values = np.hstack([found.aus.to_numpy(np.float32), found.emotions.to_numpy(np.float32)])
    rows = np.full((len(frames), len(columns)), np.nan, np.float32)
    seen, first = np.unique(found["frame"].to_numpy(int), return_index=True)
    rows[seen] = values[first]
    return columns, rows
