"""validation.py: a run judged: its validation clips scored, those left out told, the best checkpoint chosen."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from viper_e2e.loading.clip_reader import without_traceback
from viper_e2e.loading.loader import ClipBatch, ClipLoader
from viper_e2e.loading.skips import SkipRecord
from viper_e2e.model.predictions import Predictions
from viper_e2e.model.prepared import PreparedClip
from viper_e2e.model.viper import ViPER, ViPEROutput
from viper_e2e.runtime.processes import Processes
from viper_e2e.scoring.evaluation import evaluate, score, scores_record
from viper_e2e.scoring.metrics import Scores
from viper_e2e.training.guarding import Guard

VALIDATION = "validation/"
"""Before the keys of validation clips where those of training clips stand too; no key has a slash in it."""


class Validation:
    """Scores the validation clips whenever it is called, and remembers which of them ended a worker."""

    def __init__(self, module: ViPER, guard: Guard, processes: Processes, quarantined: dict[str, str]):
        """``quarantined``: of the whole run, key → reason; it goes into checkpoints."""
        self.module, self.guard, self.processes = module, guard, processes
        self.quarantined = quarantined

    def known_bad(self) -> dict[str, str]:
        """Validation clips that the loader is not to try again."""
        own = {key: reason for key, reason in self.quarantined.items() if key.startswith(VALIDATION)}
        return {key.removeprefix(VALIDATION): reason for key, reason in own.items()}

    def __call__(
        self,
        loader: ClipLoader,
        epoch: int,
        step: int,
        hold: Callable[[str, PreparedClip], None] | None = None,
        see: Callable[[ClipBatch], None] = lambda batch: None,
    ) -> tuple[Predictions, Scores, dict[str, Any]]:
        """Predictions of all clips, their scores, and both as JSON for ``metrics.jsonl``."""
        records: list[SkipRecord] = []

        def look(batch: ClipBatch, output: ViPEROutput) -> None:
            new = _left_out(batch, output, epoch, step)
            self.guard.refuse(new)
            records.extend(new)
            see(batch)

        predictions = evaluate(self.module, loader, self.processes.accelerator, on_batch=look, hold=hold)
        for key, reason in loader.quarantined.items():
            self.quarantined[VALIDATION + key] = reason
        num_left_out = self.guard.count_validation_skips(records, len(loader.shards))
        scores = score(predictions)
        record = scores_record(scores)
        if num_left_out:
            record["num_left_out"] = num_left_out
        if without := predictions.keys_without_number:
            record["without_number"] = without
        return predictions, scores, record


def _left_out(batch: ClipBatch, output: ViPEROutput, epoch: int, step: int) -> list[SkipRecord]:
    records = []
    for row, error in enumerate(output.errors):
        if error is None or batch.positions[row] is None:
            continue
        found = batch.skip_record(row, without_traceback(error))
        place = {"epoch": epoch, "position": found.position, "split": "val", "step": step}
        records.append(SkipRecord(found.key, found.shard, found.stage, found.exception, **place))
    return records


def improved(scores: Scores, best: dict[str, float]) -> list[str]:
    """Names of the checkpoints for which these scores are the best so far; ``best`` is brought up to date.

    Where Pearson was never defined (one clip, labels that do not vary), ``best`` is the one with the least MSE.
    """
    judged = {"best": scores.mean_pearson, "best_mse": -scores.mean_mse}
    better = []
    for name, value in judged.items():
        if math.isfinite(value) and value > best.get(name, -math.inf):
            best[name] = value
            better.append(name)
    if "best" not in best and "best_mse" in better:
        better.insert(0, "best")
    return better
