"""py_feat_child.py: the child process of `py_feat.py`: frames on stdin -> py-feat's columns on stdout."""

from __future__ import annotations

import json
import math
import os
import sys

import numpy as np

BATCH_SIZE = 8
"""Frames that py-feat looks at together; bounds its memory."""


def main(device: str) -> None:
    """Answer requests until stdin ends. Both ways: a line of JSON, then the array's bytes.

    Request ``{"shape": [N, H, W, 3]}`` and uint8 frames; answer ``{"columns": […]}`` and N × columns float32, a
    row per frame: the first face's, NaN where there is none. Before all: ``{"ready": true}``. What fails ends
    the process; the parent reads the last line of its traceback.
    """
    # py-feat and what it loads print to stdout: the answers get a descriptor of their own.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    detector = _detector(device)
    _answer(answers, {"ready": True})
    while line := sys.stdin.buffer.readline():
        shape = json.loads(line)["shape"]
        frames = np.frombuffer(sys.stdin.buffer.read(math.prod(shape)), np.uint8).reshape(shape)
        columns, rows = measure(detector, frames)
        _answer(answers, {"columns": columns}, rows.tobytes())


def _detector(device: str):
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


def measure(detector, frames: np.ndarray) -> tuple[list[str], np.ndarray]:
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


def _answer(pipe, header: dict, content: bytes = b"") -> None:
    pipe.write(json.dumps(header).encode() + b"\n" + content)
    pipe.flush()


if __name__ == "__main__":
    main(sys.argv[1])
