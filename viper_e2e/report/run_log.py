"""run_log.py: a run's ``metrics.jsonl`` as values: epochs, their validation, the yardstick."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from viper_e2e.scoring import (
    AGREEMENT,
    MAIN_MEASURE,
    Scores,
    as_measured,
    finite_or_none,
    main_score,
    scores_record,
)
from viper_e2e.tasks import COMBINED, UNNAMED, measure_title, names_none

Json = Mapping[str, Any]
"""An object of a line."""


@dataclass(frozen=True)
class Judgement:
    """A model's score on its validation clips."""

    measure: str
    """The measure that decides, as people read it."""
    score: float | None
    """Larger is better; None where it is undefined."""

    @property
    def value(self) -> float | None:
        """The measure itself: an error has no sign."""
        return None if self.score is None else as_measured(self.score, self.measure)

    @property
    def in_words(self) -> str:
        """``mean Pearson 0.4611``."""
        return f"{self.measure} {'undefined' if self.value is None else f'{self.value:.4f}'}"


MEAN_PEARSON = "mean Pearson"


def main_measure_of(kinds: Mapping[str, str]) -> str:
    """The measure that judges models by default. ``kinds``: kinds of tasks, by name."""
    if names_none(kinds):
        return MEAN_PEARSON
    main = {name: MAIN_MEASURE[kind] for name, kind in kinds.items() if kind != COMBINED}
    if len(main) > 1:
        return "mean of the tasks' main measures"
    (name,) = main
    return f"{name} {measure_title(main[name])}"


@dataclass(frozen=True)
class ScoreRecord:
    """Scores of the validation clips, and what a model is judged by among them."""

    scores: Json
    """Scores in the form of `scores_record`: the means, and one object per measure."""
    tasks: Mapping[str, Json]
    """Scores of each task in its own measures, in the form of `task_record`."""
    judgement: Judgement

    @classmethod
    def of(cls, scores: Scores, best_by: str = "") -> ScoreRecord:
        """``best_by``: as in `SavingConfig`."""
        record = scores_record(scores)
        kinds = {name: one.task.kind for name, one in scores.tasks.items()}
        score = finite_or_none(main_score(scores.tasks, best_by))
        return cls(record, record.pop("tasks"), Judgement(best_by or main_measure_of(kinds), score))

    @classmethod
    def from_json(cls, data: Json) -> ScoreRecord:
        scores = {name: value for name, value in data.items() if name not in _BESIDE_SCORES}
        return cls(scores, data["tasks"], Judgement(data["judged_by"], data["best_by"]))

    def to_json(self) -> dict[str, Any]:
        beside = self.tasks, self.judgement.measure, self.judgement.score
        return {**self.scores} | dict(zip(_BESIDE_SCORES, beside, strict=True))

    @property
    def names_tasks(self) -> bool:
        """Whether the corpus says what its columns belong to."""
        return not names_none({name: one["kind"] for name, one in self.tasks.items()})

    def mean(self, measure: str) -> float | None:
        """Over emotions, of ``pearson``, ``ccc`` or ``mse``."""
        return self.scores.get(f"mean_{measure}")

    @property
    def rank(self) -> tuple[float, float]:
        return rank(self.judgement.score, self.mean("mse"))


_BESIDE_SCORES = ("tasks", "judged_by", "best_by")


@dataclass(frozen=True)
class ValidationRecord:
    """An epoch's validation."""

    scores: ScoreRecord
    corpora: Mapping[str, Mapping[str, Json]] = field(default_factory=dict)
    """Scores of a mixture: corpus → task → its measures."""
    num_left_out: int = 0
    """Clips that could not be used."""
    without_number: tuple[str, ...] = ()
    """Keys of clips of which the model gave no finite number."""
    weights: str = ""
    """``average`` where those are scored."""

    @classmethod
    def from_json(cls, data: Json) -> ValidationRecord:
        own = {name: data[name] for name in ("corpora", "num_left_out", "weights") if name in data}
        without = tuple(data.get("without_number", ()))
        scores = {name: value for name, value in data.items() if name not in (*own, "without_number")}
        return cls(ScoreRecord.from_json(scores), without_number=without, **own)

    def to_json(self) -> dict[str, Any]:
        more = {
            "corpora": self.corpora,
            "num_left_out": self.num_left_out,
            "without_number": list(self.without_number),
            "weights": self.weights,
        }
        return self.scores.to_json() | {name: value for name, value in more.items() if value}


@dataclass(frozen=True)
class YardstickRecord:
    """A ridge on the tokens that a run trains on."""

    reason: str = ""
    """Why it has no scores."""
    num_train_clips: int | None = None
    num_features: int | None = None
    of_clips: int | None = None
    """So many there were, where the ridge is fitted to the first of them."""
    scores: ScoreRecord | None = None
    """None for a ``reason``, and in all processes but the first."""

    @classmethod
    def from_json(cls, data: Json) -> YardstickRecord:
        own = {name: data[name] for name in _OF_YARDSTICK if name in data}
        scores = {name: value for name, value in data.items() if name not in own}
        return cls(**own, scores=ScoreRecord.from_json(scores) if "mean_pearson" in data else None)

    def to_json(self) -> dict[str, Any]:
        own = {name: value for name in _OF_YARDSTICK if (value := getattr(self, name)) not in ("", None)}
        return own | (self.scores.to_json() if self.scores is not None else {})


_OF_YARDSTICK = ("reason", "num_train_clips", "num_features", "of_clips")


@dataclass(frozen=True)
class EpochRecord:
    """A line of ``metrics.jsonl``."""

    epoch: int
    """From 0."""
    step: int
    train_loss: float | None
    task_weights: Mapping[str, float] = field(default_factory=dict)
    """Weights of tasks, if they are learned."""
    train: Mapping[str, Mapping[str, Json]] = field(default_factory=dict)
    """Errors on training clips of a mixture: corpus → task → error."""
    val: ValidationRecord | None = None
    yardstick: YardstickRecord | None = None
    """The yardstick, in the first epoch."""

    @classmethod
    def from_json(cls, line: Json) -> EpochRecord:
        val, yardstick = line.get("val"), line.get("yardstick")
        return cls(
            line["epoch"],
            line["step"],
            line["train_loss"],
            line.get("task_weights", {}),
            line.get("train", {}),
            ValidationRecord.from_json(val) if val else None,
            YardstickRecord.from_json(yardstick) if yardstick else None,
        )

    def to_json(self) -> dict[str, Any]:
        more = {
            "task_weights": self.task_weights,
            "train": self.train,
            "val": self.val and self.val.to_json(),
            "yardstick": self.yardstick and self.yardstick.to_json(),
        }
        own = {"epoch": self.epoch, "step": self.step, "train_loss": self.train_loss}
        return own | {name: value for name, value in more.items() if value}


class Validated(NamedTuple):
    """An epoch that was validated, and its scores."""

    epoch: EpochRecord
    scores: ScoreRecord


@dataclass(frozen=True)
class RunLog:
    """The epochs of a run."""

    epochs: tuple[EpochRecord, ...]

    @classmethod
    def from_json(cls, lines: Iterable[Json], best_by: str = "") -> RunLog:
        """``best_by``: of the run, as in `SavingConfig`, which lines of versions before 0.6 do not say."""
        return cls(tuple(EpochRecord.from_json(_of_this_version(line, best_by)) for line in lines))

    @property
    def validated(self) -> list[Validated]:
        """Epochs with a validation."""
        return [Validated(epoch, epoch.val.scores) for epoch in self.epochs if epoch.val is not None]

    @property
    def best(self) -> Validated | None:
        """Validation of ``checkpoints/best``; None if nothing was validated."""
        return max(self.validated, key=lambda one: one.scores.rank, default=None)

    @property
    def yardstick(self) -> YardstickRecord | None:
        """The last with a score, of all clips, where the first epoch was stopped and resumed; None without."""
        told = (epoch.yardstick for epoch in reversed(self.epochs) if epoch.yardstick is not None)
        return next((yardstick for yardstick in told if yardstick.scores is not None), None)


def _of_this_version(line: Json, best_by: str) -> Json:
    """A line with what versions before 0.6 did not write."""
    scored = {name: line[name] for name in ("val", "yardstick") if "mean_pearson" in (line.get(name) or {})}
    return {**line} | {name: _judged(data, best_by) for name, data in scored.items()}


def _judged(data: Json, best_by: str) -> Json:
    """Scores with their tasks and the measure that judged them."""
    if "judged_by" in data:
        return data
    means = {name: data.get(f"mean_{name}") for name in AGREEMENT}
    tasks = data.get("tasks") or {UNNAMED: {"kind": UNNAMED, **means}}
    # Without tasks the mean Pearson alone was looked at, and by early yardsticks.
    by, score = MEAN_PEARSON, data["mean_pearson"]
    if "best_by" in data:
        by = best_by or main_measure_of({name: one["kind"] for name, one in tasks.items()})
        score = data["best_by"]
    return {**data, "tasks": tasks, "judged_by": by, "best_by": score}


def rank(score: float | None, mse: float | None) -> tuple[float, float]:
    """Sort key of models: the score that chose checkpoints; MSE if that is undefined."""
    if score is not None:
        return float(score), 0.0
    return -math.inf, -math.inf if mse is None else -float(mse)
