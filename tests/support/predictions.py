"""predictions.py: predictions that no model made."""

from __future__ import annotations

import csv

import numpy as np

from viper_e2e.labels import HUME_REACTION, LabelSet
from viper_e2e.model.predictions import Predictions

E = len(HUME_REACTION)
NASTY = ["=1+1", "+1", "-2+3+cmd|' /C calc'!A0", "@SUM(A1)", "\tx", "''", "'quoted", 'a "b", c\nd', "Wörld"]


def predictions(num_clips: int = 9, **changes) -> Predictions:
    rng = np.random.default_rng(0)
    predicted, true = rng.random((num_clips, E)), rng.random((num_clips, E))
    valid = np.ones(num_clips, bool)
    valid[2], predicted[2], true[3] = False, np.nan, np.nan
    values = {
        "labels": HUME_REACTION,
        "modalities": ("visual", "audio"),
        "keys": [f"{i:05}" for i in range(num_clips)],
        "file_ids": [f"[{i:05}]" for i in range(num_clips)],
        "shards": ["val-000000.tar"] * num_clips,
        "predicted": predicted,
        "true": true,
        "valid": valid,
        "errors": [None if good else "is cut short" for good in valid],
        "present": rng.random((num_clips, 2)) > 0.5,
        "face_share": np.where(valid, rng.random(num_clips), np.nan),
        "duration_seconds": np.where(valid, 3.1, np.nan),
    }
    return Predictions(**values | changes)


def cells(path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def predictions_of(predicted, true, labels: LabelSet = HUME_REACTION, valid=None) -> Predictions:
    predicted, true = np.asarray(predicted, float), np.asarray(true, float)
    n = len(predicted)
    return Predictions(
        labels,
        ("visual",),
        keys=[str(i) for i in range(n)],
        file_ids=[""] * n,
        shards=[""] * n,
        predicted=predicted,
        true=true,
        valid=np.ones(n, bool) if valid is None else np.asarray(valid),
        errors=[None] * n,
        present=np.ones((n, 1), bool),
        face_share=np.ones(n),
        duration_seconds=np.ones(n),
    )
