"""yardstick.py: a ridge on the tokens that a run trains on: a score that the run should reach."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from viper_e2e.config import Frozen, Settings, backbones_of
from viper_e2e.fusion import MIN_CLIPS, EnsembleFusion, LabelScale, predict
from viper_e2e.loading import ClipBatch
from viper_e2e.model import Predictions, ViPER, ViPEROutput
from viper_e2e.report import RunLog, ScoreRecord, YardstickRecord
from viper_e2e.runtime import Processes
from viper_e2e.scoring import OnBatch, with_thresholds
from viper_e2e.training.pooled_features import PooledRows, Table
from viper_e2e.training.tables import task_line
from viper_e2e.training.validation import judged


class Yardstick:
    """Collects during a run's first epoch, is fitted at its end and scored on the validation clips.

    Backbones that train change while rows are collected: it is the score on the tokens of the first epoch:
    of frozen backbones where they begin to train later.
    """

    def __init__(
        self,
        module: ViPER,
        processes: Processes,
        *,
        validates: bool,
        tells: bool = True,
        rows: PooledRows | None = None,
        best_by: str = "",
    ):
        """``validates``: whether there are clips to score it on. ``tells`` False: whether or not, it only
        collects. ``best_by``: as in `SavingConfig`."""
        self.module, self.processes, self.validates, self.tells = module, processes, validates, tells
        self.best_by = best_by
        self.rows = rows or PooledRows(module)
        self.head = module.fusion if isinstance(module.fusion, EnsembleFusion) else None
        """Has a ridge as its part, which needs the rows whether or not there is anything to tell."""
        self.is_collecting = self._has_gap = False
        self._epoch = 0
        self._num_fitted = 0
        self._validation: PooledRows | None = None
        self._gathered: Table | None = None
        self.enter(0)

    def enter(self, epoch: int) -> None:
        """Collect in the first epoch, also where it is entered again midway, and in later ones for a head with
        a ridge whose tokens go on changing; let go of what came from other epochs.

        No step moves that ridge: one of tokens as they were would answer for tokens that are no more. What is
        told stays the first epoch's.
        """
        if self.head is not None:
            changes = not all(encoder.is_frozen for encoder in self.module.encoders.values())
            self.is_collecting = epoch == 0 or changes
        else:
            self.is_collecting = epoch == 0 and self.validates
        if epoch != self._epoch or not self.is_collecting:
            self.rows.clear()
        self._epoch, self._gathered = epoch, None

    def fit_head(self) -> None:
        """At the end of an epoch, by all processes: the ridge of a head that has one."""
        if self.head is None or not self.is_collecting:
            return
        table = self.rows.gather(self.processes)
        if len(table.targets) >= MIN_CLIPS:
            self._num_fitted = len(table.targets)
            self.head.fit(self.rows.fit_banded(table))

    def add(self, batch: ClipBatch, output: ViPEROutput) -> None:
        """``output``: with its streams, while it is collecting."""
        if self.is_collecting:
            self.rows.add(batch, output)

    def validating(self, see: OnBatch) -> OnBatch:
        """Hook for each batch of validation clips in place of ``see``: if they are to be scored, it collects
        them too."""
        if not (self._epoch == 0 and self.is_collecting and self.validates and self.tells):
            return see
        rows = self._validation = PooledRows(self.module)

        def both(batch: ClipBatch, output: ViPEROutput) -> None:
            rows.add(batch, output)
            see(batch, output)

        return both

    def record(self, num_clips: int) -> YardstickRecord:
        """Its scores, or the reason why there are none; all processes must ask.

        ``num_clips``: of the training shards.
        """
        if not self.validates:
            none = YardstickRecord("there are no --val-shards to score it on")
            # Where a ridge is part of the head, the clips that it has seen must still be known.
            is_bounded = self._num_fitted > 0 and self.rows.max_clips < num_clips
            return replace(none, num_train_clips=self._num_fitted, of_clips=num_clips) if is_bounded else none
        if self._has_gap:
            return YardstickRecord("the run went on in its first epoch from a checkpoint of an older version")
        assert self._validation is not None
        train, val = self.rows.gather(self.processes), self._validation.gather(self.processes)
        self._validation = None
        if len(train.targets) < MIN_CLIPS:
            return YardstickRecord(f"it needs {MIN_CLIPS} labelled clips that can be read")
        record = YardstickRecord(
            num_train_clips=len(train.targets),
            num_features=train.features.shape[1],
            of_clips=num_clips if self.rows.max_clips < num_clips else None,
        )
        if not self.processes.is_main:
            return record
        max_deviations = self.module.config.fusion.max_deviations
        predicted = predict(self.rows.fit(train), val.features, self.rows.known(val), max_deviations)
        return replace(record, scores=self._judged(predicted, val.targets))

    def _judged(self, predicted: Float[Tensor, "N E"], true: Float[Tensor, "N E"]) -> ScoreRecord:
        """Scores in the model's own measures, with the answers of `--head ridge`."""
        scale = LabelScale.of(self.module.labels)
        answers = predicted if scale is None else scale.within(predicted)
        found = Predictions.of_numbers(self.module.labels, answers.double().numpy(), true.double().numpy())
        return judged(replace(found, labels=with_thresholds(found)), self.best_by)

    # --- as a part of the saved state -------------------------------------------------------------

    def gather(self) -> None:
        """Before saving, by all processes."""
        self._gathered = self.rows.gather(self.processes) if self.is_collecting else None

    def state_dict(self) -> dict[str, Tensor]:
        """State at the last `gather`; empty after the first epoch."""
        return {} if self._gathered is None else self._gathered._asdict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Into the first process, whatever their number was; ``enter`` comes before."""
        self._has_gap = self.is_collecting and not state
        self.rows.clear()
        if self.is_collecting and state and self.processes.is_main:
            self.rows.restore(state)


# --- in words ---------------------------------------------------------------------------------------


def line(record: YardstickRecord) -> str:
    """A record in a line."""
    many = record.of_clips is not None
    among = f"the first {record.num_train_clips:,} of {record.of_clips:,}" if many else ""
    if record.reason:
        head = f"; the ridge in this head is fitted to {among} clips" if among else ""
        return f"yardstick (ridge on the same tokens): none, {record.reason}{head}"
    assert record.scores is not None, "told by the first process"
    told, tasks = record.scores.judgement.in_words, record.scores.tasks
    if len(tasks) > 1:
        told += f" ({', '.join(f'{name} {task_line(one)}' for name, one in tasks.items())})"
    clips = among or f"{record.num_train_clips:,}"
    return f"yardstick (ridge on the same tokens): {told}  {clips} clips, {record.num_features:,} features"


def provenance_of_yardstick(record: YardstickRecord | None) -> dict[str, Any]:
    """Record for a run's checkpoints; empty without a score."""
    if record is None or record.scores is None or (found := record.scores.judgement).value is None:
        return {}
    own = {"mean_pearson": record.scores.mean("pearson"), "num_train_clips": record.num_train_clips}
    return {"yardstick": {"measure": found.measure, "value": found.value} | own}


SMALL_HEAD = {"dim": 64, "latent_dim": 64, "num_latents": 8}
"""Settings of a head that few clips suffice for."""


def what_helps(settings: Settings) -> str:
    """Advice for a run below its yardstick, without what it does already."""
    head, depths = settings.model.fusion, settings.train.unfreeze
    smaller = [
        f"--model.fusion.{name.replace('_', '-')} {size}"
        for name, size in SMALL_HEAD.items()
        if getattr(head, name) > size
    ]
    backbones = backbones_of(settings.model)
    is_frozen = all(not b.lora_rank and depths.of(name) == Frozen() for name, b in backbones.items())
    told = [f"a smaller head ({' '.join(smaller)})"] if smaller else []
    told += [] if is_frozen and not settings.train.unfreeze_at else ["frozen backbones (--freeze all)"]
    told += ["more clips of more people", "more epochs if the training loss still falls"]
    return f"What usually helps: {', '.join(told)}; or take the ridge itself: --head ridge"


def verdict(log: RunLog) -> str | None:
    """A line for a run that ended below its yardstick; see `what_helps`.

    Both are judged by what chose the best checkpoint; a log of an earlier version, whose yardstick has the mean
    Pearson alone, says nothing of other measures.
    """
    yardstick, best = log.yardstick, log.best
    if yardstick is None or yardstick.scores is None or best is None:
        return None
    ridge, own = yardstick.scores.judgement, best.scores.judgement
    if ridge.measure != own.measure or ridge.score is None or own.score is None or own.score >= ridge.score:
        return None
    return (
        f"below the yardstick: a ridge on the same tokens reaches {ridge.value:.4f} in validation "
        f"({ridge.measure}), this model at its best {own.value:.4f}; it has memorised its clips, or has not "
        "learned them yet."
    )
