"""fold_scores.py: scores of a cross-validation: of all clips together, and of each fold with their spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Any

from viper_e2e.labels import LabelSet
from viper_e2e.model import Predictions
from viper_e2e.scoring.bootstrap import finite_or_none
from viper_e2e.scoring.score_records import task_record
from viper_e2e.scoring.task_scores import Scores, TaskScores, task_scores


@dataclass(frozen=True)
class FoldScores:
    """One task's scores over all folds."""

    pooled: TaskScores
    """Of all clips, each predicted by the model of the fold in which it was held out."""
    by_fold: Mapping[str, TaskScores]
    """Of the clips of each fold alone, without intervals."""

    def over_folds(self, measure: str) -> tuple[float | None, float | None]:
        """Mean and standard deviation of the folds' values; None where a fold has none, or there is but one."""
        return _spread([finite_or_none(scores.values[measure]) for scores in self.by_fold.values()])

    def to_json(self) -> dict[str, Any]:
        """As `task_record` has the pooled scores, with ``over_folds`` and ``by_fold``."""
        over = {
            name: dict(zip(("mean", "deviation"), self.over_folds(name), strict=True)) for name in self.measures
        }
        each = {
            fold: {"num_clips": scores.num_clips}
            | {name: finite_or_none(value) for name, value in scores.values.items()}
            for fold, scores in self.by_fold.items()
        }
        return task_record(self.pooled) | {"over_folds": over, "by_fold": each}

    @property
    def measures(self) -> tuple[str, ...]:
        return tuple(self.pooled.values)


def over_seeds(by_seed: Sequence[FoldScores]) -> dict[str, dict[str, Any]]:
    """One task cross-validated with several seeds: each measure's ``values`` of all clips, their ``mean``
    and ``deviation``; None where a seed has none."""
    found = {}
    for measure in by_seed[0].measures:
        values = [finite_or_none(scores.pooled.values[measure]) for scores in by_seed]
        mean, deviation = _spread(values)
        found[measure] = {"values": values, "mean": mean, "deviation": deviation}
    return found


def _spread(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None, None
    return fmean(known), stdev(known) if len(known) > 1 else None


def fold_scores(pooled: Scores, labels: LabelSet, by_fold: Mapping[str, Predictions]) -> dict[str, FoldScores]:
    """Scores of every task, by name. ``labels``: of the ``pooled`` clips, as each fold is measured too."""
    each = {
        fold: task_scores(replace(predictions, labels=labels), num_resamples=0)
        for fold, predictions in by_fold.items()
    }
    return {
        name: FoldScores(scores, {fold: of_fold[name] for fold, of_fold in each.items()})
        for name, scores in pooled.tasks.items()
    }
