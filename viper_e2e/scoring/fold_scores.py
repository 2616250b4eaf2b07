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
class Spread:
    """Values of a measure over folds or seeds."""

    values: tuple[float | None, ...]
    """None where it is undefined."""

    @property
    def mean(self) -> float | None:
        """None where one of them is undefined: a mean over those that did well would flatter."""
        known = [value for value in self.values if value is not None]
        return fmean(known) if known and len(known) == len(self.values) else None

    @property
    def deviation(self) -> float | None:
        """The standard deviation; None without a mean, and where there is but one value."""
        known = [value for value in self.values if value is not None]
        return stdev(known) if self.mean is not None and len(known) > 1 else None

    def to_json(self) -> dict[str, Any]:
        return {"values": list(self.values), "mean": self.mean, "deviation": self.deviation}


@dataclass(frozen=True)
class FoldScores:
    """One task's scores over all folds."""

    pooled: TaskScores
    """Scores on all clips, each predicted by the model of the fold in which it was held out."""
    by_fold: Mapping[str, TaskScores]
    """Scores on the clips of each fold alone, without intervals."""

    def over_folds(self, measure: str) -> Spread:
        return Spread(tuple(finite_or_none(scores.values[measure]) for scores in self.by_fold.values()))

    def to_json(self) -> dict[str, Any]:
        """The `task_record` of the pooled scores, with ``over_folds`` and ``by_fold``."""
        spreads = {name: self.over_folds(name) for name in self.measures}
        over = {name: {"mean": one.mean, "deviation": one.deviation} for name, one in spreads.items()}
        each = {
            fold: {"num_clips": scores.num_clips}
            | {name: finite_or_none(value) for name, value in scores.values.items()}
            for fold, scores in self.by_fold.items()
        }
        return task_record(self.pooled) | {"over_folds": over, "by_fold": each}

    @property
    def measures(self) -> tuple[str, ...]:
        return tuple(self.pooled.values)


def over_seeds(by_seed: Sequence[FoldScores]) -> dict[str, Spread]:
    """Measures of all clips of one task that was cross-validated with several seeds."""
    return {
        measure: Spread(tuple(finite_or_none(scores.pooled.values[measure]) for scores in by_seed))
        for measure in by_seed[0].measures
    }


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
