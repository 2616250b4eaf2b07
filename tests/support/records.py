"""records.py: records of a model's output."""

from __future__ import annotations

import torch

from viper_e2e.errors import ClipError
from viper_e2e.labels import LabelSet
from viper_e2e.model.output import records_of
from viper_e2e.model.viper import ViPEROutput

EMOTIONS, MODALITIES = ("joy", "fear"), ("visual", "audio")


def output() -> ViPEROutput:
    """Two clips: one with three distinct frames of four, one that could not be read."""
    return ViPEROutput(
        intensities=torch.tensor([[0.25, 0.75], [0.5, 0.5]]),
        by_network=torch.tensor([[[0.25, 0.75]], [[0.5, 0.5]]]),
        valid=torch.tensor([True, False]),
        present=torch.tensor([[True, False], [False, False]]),
        boxes=torch.arange(32, dtype=torch.float32).view(2, 4, 4),
        box_source=torch.tensor([[1, 2, 0, 1], [0, 0, 0, 0]], dtype=torch.uint8),
        face_found=torch.tensor([[True, True, False, True], [False] * 4]),
        frame_seconds=torch.tensor([[0.0, 0.5, 1.0, 1.0], [0.0] * 4]),
        used=torch.tensor([[True, True, True, False], [True] * 4]),
        duration_seconds=torch.tensor([1.5, 0.0]),
        errors=(None, ClipError("not a video", stage="container")),
        notes=(("a second sound track was left out",), ()),
    )


def records(**options):
    return records_of(output(), ["=a.mp4", "b.mp4"], LabelSet(EMOTIONS), MODALITIES, **options)
