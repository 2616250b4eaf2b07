"""corpus_curves.py: training and validation scores of each corpus of a mixture, task by task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from viper_e2e.loading import ClipBatch
from viper_e2e.model import Predictions, ViPER
from viper_e2e.runtime import Processes
from viper_e2e.scoring import task_record, task_scores
from viper_e2e.shards import ShardSet, name_of_corpus
from viper_e2e.tasks import Task

TRAINING_ERROR = {
    "class": "cross_entropy",
    "labels": "binary_cross_entropy",
    "number": "mse",
    "intensities": "mse",
}
"""The training error shown for each kind of task: the mean over an epoch's clips, each scored as it passed."""
LEAST_PROBABILITY = 1e-12


class CorpusCurves:
    """Sums errors of training clips by corpus and task, over an epoch; empty where there is no mixture.

    Sums are kept apart for each process, so that a resumed run adds the same numbers in the same order.
    """

    def __init__(self, module: ViPER, shards: ShardSet, processes: Processes):
        self.processes, self.parts = processes, module.labels.parts
        self.corpora = [corpus.name for corpus in shards.named_corpora]
        self._sums = self._empty()
        """Sums of this process for each corpus and task: errors of clips, and their number."""
        self._gathered: Tensor | None = None

    def __bool__(self) -> bool:
        return bool(self.corpora)

    def _empty(self) -> Float[Tensor, "C T 2"]:
        return torch.zeros(len(self.corpora), len(self.parts), 2, dtype=torch.float64)

    @torch.no_grad()
    def add(self, batch: ClipBatch, predicted: Float[Tensor, "B E"]) -> None:
        """The clips of a batch that has just passed, without those that lack labels or a finite prediction."""
        if not self.corpora:
            return
        predicted, true = predicted.detach().cpu().double(), batch.intensities.cpu().double()
        for index, (task, columns) in enumerate(self.parts):
            errors = _errors(task, predicted[:, columns], true[:, columns])
            counts = (batch.weights.cpu() > 0) & errors.isfinite()
            for row in counts.nonzero()[:, 0].tolist():
                corpus = self.corpora.index(name_of_corpus(batch.keys[row]))
                self._sums[corpus, index] += torch.stack([errors[row], torch.ones((), dtype=torch.float64)])

    def record(self) -> dict[str, Any]:
        """The sums of the epoch that ends, over all processes, which all must ask; then they start again."""
        total = self._table().sum(0)
        self._sums, self._gathered = self._empty(), None
        return {
            corpus: {
                task.name: {TRAINING_ERROR[task.kind]: float(lost / count), "num_clips": int(count)}
                for (task, _), (lost, count) in zip(self.parts, sums, strict=True)
                if count
            }
            for corpus, sums in zip(self.corpora, total, strict=True)
        }

    def _table(self) -> Float[Tensor, "P C T 2"]:
        flat = self.processes.gather_scalars(*self._sums.flatten().tolist(), purpose="adding up corpora")
        return flat.reshape(-1, *self._sums.shape)

    # --- as a part of the saved state -----------------------------------------------------------------

    def gather(self) -> None:
        """Before saving, by all processes."""
        self._gathered = self._table() if self.corpora else None

    def state_dict(self) -> dict[str, Tensor]:
        """State at the last `gather`."""
        return {} if self._gathered is None else {"sums": self._gathered}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Each process continues with its own sums; where their number was another, the first with all."""
        self._sums = self._empty()
        if "sums" not in state:
            return
        if len(state["sums"]) == self.processes.count:
            self._sums = state["sums"][self.processes.index].clone()
        elif self.processes.is_main:
            self._sums = state["sums"].sum(0)


def validation_by_corpus(predictions: Predictions, shards: ShardSet) -> dict[str, Any]:
    """Scores of each corpus of a mixture in the tasks that its clips have labels of, as JSON."""
    names = np.array([name_of_corpus(key) for key in predictions.keys], dtype=object)
    records = {}
    for corpus in shards.named_corpora:
        scores = task_scores(predictions.only(names == corpus.name), num_resamples=0)
        records[corpus.name] = {name: task_record(one) for name, one in scores.items() if one.num_clips}
    return records


def _errors(task: Task, predicted: Float[Tensor, "B C"], true: Float[Tensor, "B C"]) -> Float[Tensor, " B"]:
    """The error of each clip; NaN where a label is missing."""
    likely = predicted.clamp(LEAST_PROBABILITY, 1.0)
    if task.kind == "class":
        return -(true * likely.log()).sum(1)
    if task.kind == "labels":
        unlikely = (1 - predicted).clamp(LEAST_PROBABILITY, 1.0)
        return -(true * likely.log() + (1 - true) * unlikely.log()).mean(1)
    return (predicted - true).square().mean(1)
