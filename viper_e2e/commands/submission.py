"""submission.py: `viper eval --submission`: the challenge's file, checked before anything is scored."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from viper_e2e.errors import ViperError
from viper_e2e.labels import HUME_REACTION, LabelSet, order_of
from viper_e2e.model import Predictions, ViPER, submission_ids
from viper_e2e.runtime import console
from viper_e2e.shards import ShardSet


def submission_labels(model: LabelSet, corpus: LabelSet | None) -> LabelSet:
    """Titles and order of a submission: the challenge's for its own seven, else the scored corpus's."""
    for labels in (HUME_REACTION, corpus):
        if labels is not None and order_of(model.names, labels.names) is not None:
            return labels
    return model


def check_submission(shards: ShardSet, columns: LabelSet, path: Path) -> None:
    """Refuse an impossible submission before hours of scoring."""
    entries = [shards.entry(i) for i in range(len(shards))]
    submission_ids(path, [entry.file_id for entry in entries], [entry.key for entry in entries], columns)


def write_submission(predictions: Predictions, model: ViPER, columns: LabelSet, path: Path) -> Path:
    fallback, whose = model.labels.means, "the mean of the training labels"
    if fallback is None:
        # A released checkpoint: its authors' labels are not at hand.
        readable = predictions.valid & np.isfinite(predictions.predicted).all(1)
        if not readable.any():
            raise ViperError(f"{path}: not written, no clip could be read")
        fallback = predictions.predicted[readable].mean(0).tolist()
        whose = "the mean prediction (this checkpoint does not know its training labels)"
    unread = predictions.write_submission(path, fallback, columns)
    if unread:
        console.print(f"[yellow]{len(unread)} unreadable, given {whose}: {', '.join(unread)}[/yellow]")
    return path
