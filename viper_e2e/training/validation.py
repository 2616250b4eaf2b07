"""validation.py: scores validation clips of a run, reports those left out, chooses the best checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from viper_e2e.encoders import PreparedClip, TokenCache
from viper_e2e.errors import ClipError
from viper_e2e.loading import (
    Cacheable,
    ClipKey,
    ClipStore,
    DecodeSample,
    Quarantine,
    Reading,
    SkipRecord,
    Split,
)
from viper_e2e.model import Prediction, Predictions, ViPER
from viper_e2e.report import ScoreRecord, ValidationRecord, main_measure_of
from viper_e2e.runtime import Processes
from viper_e2e.scoring import (
    AGREEMENT,
    MAIN_MEASURE,
    Hooks,
    OnBatch,
    rulers,
    score,
    scores_of,
    split_best_by,
    with_thresholds,
)
from viper_e2e.shards import ShardSet
from viper_e2e.tasks import measure_title
from viper_e2e.training.corpus_curves import validation_by_corpus
from viper_e2e.training.guarding import Guard


class Validation:
    """Scores the validation clips whenever it is called."""

    def __init__(
        self,
        module: ViPER,
        guard: Guard,
        processes: Processes,
        quarantine: Quarantine,
        best_by: str = "",
    ):
        """``quarantine``: of validation clips. ``best_by``: as in `SavingConfig`; `ViperError` for what is not
        measured."""
        if best_by:
            split_best_by(best_by, [ruler.task for ruler in rulers(module.labels)])
        self.best_by = best_by
        self.module, self.guard, self.processes = module, guard, processes
        self.quarantine = quarantine

    @property
    def judged_by(self) -> str:
        """The measure that chooses `best`, in words."""
        return self.best_by or main_measure_of({task.name: task.kind for task, _ in self.module.labels.parts})

    def __call__(
        self,
        shards: ShardSet,
        reading: Reading,
        epoch: int,
        step: int,
        *,
        store: ClipStore | None = None,
        see: OnBatch = lambda batch, output: None,
    ) -> tuple[Predictions, ValidationRecord]:
        """Predictions of all clips, and what they are worth.

        ``store``: of prepared clips, from which they come and into which they go; ``see`` sees each batch.
        """
        hooks = Hooks(quarantine=self.quarantine, on_batch=see)
        if store is not None and store.budget_bytes:
            keep = keeping(store, self.module, shards, "val")
            hooks = replace(hooks, cached=cached_in(store, "val"), on_clip=keep)
        found, left_out = self._scored(shards, reading, hooks, epoch, step)
        num_left_out = self.guard.count_validation_skips(left_out, len(shards))
        predictions = Predictions.of(found, self.module.labels, self.module.modalities, shards)
        # What is fitted here goes into every checkpoint from now on, for clips that are scored later.
        self.module.labels = with_thresholds(predictions)
        predictions = replace(predictions, labels=self.module.labels)
        record = ValidationRecord(
            judged(predictions, self.best_by),
            validation_by_corpus(predictions, shards),
            num_left_out,
            tuple(predictions.keys_without_number),
        )
        return predictions, record

    def _scored(
        self, shards: ShardSet, reading: Reading, hooks: Hooks, epoch: int, step: int
    ) -> tuple[list[Prediction], list[SkipRecord]]:
        """Every clip of the shards, and a record of each that could not be read."""
        found: list[Prediction] = []
        left_out: list[SkipRecord] = []
        decode = DecodeSample(self.module.decoder)
        scoring = score(self.module, shards, reading, decode=decode, hooks=hooks, processes=self.processes)
        for one in scoring:
            if one.index < 0:  # told when the shards were opened
                continue
            found.append(one)
            if one.error is not None:
                left_out.append(_left_out(one, shards, epoch, step))
                if one.stage == "worker" and self.quarantine.reason_of(one.clip) is None:
                    self.quarantine.add(one.clip, one.error)
                self.guard.refuse(left_out[-1:])
        return found, left_out


def judged(predictions: Predictions, best_by: str = "") -> ScoreRecord:
    """Scores of validation clips, of tasks each in its own measures."""
    return ScoreRecord.of(scores_of(predictions, num_resamples=0), best_by)


def cached_in(store: ClipStore, split: Split) -> Callable[[str], Cacheable | None]:
    """Look a clip up in a store, by its key in these shards."""
    return lambda key: store.get(ClipKey(split, key))


def keeping(
    store: ClipStore, module: ViPER, shards: ShardSet, split: Split
) -> Callable[[int, PreparedClip | ClipError], None]:
    """Keeps each clip that has passed, by its number."""

    def keep(i: int, clip: PreparedClip | ClipError) -> None:
        key = ClipKey(split, shards.entry(i).key)
        if isinstance(clip, PreparedClip) and key not in store:
            hold(store, module, key, clip)

    return keep


def hold(
    store: ClipStore, module: ViPER, key: ClipKey, clip: PreparedClip, cache: TokenCache | None = None
) -> None:
    """Keep a clip that has passed, where there is room: with what trained blocks begin with or without."""
    least = module.cacheable(clip, cache)
    if not store.offer(key, least) and least.prefixes:
        store.offer(key, module.cacheable(clip, cache, prefixes=False))


def _left_out(one: Prediction, shards: ShardSet, epoch: int, step: int) -> SkipRecord:
    shard = shards.shard_of(one.index).path_or_url.partition("?")[0]
    message = f"{one.clip}: {one.error}"
    return SkipRecord(one.clip, shard, one.stage, message, epoch, one.index, split="val", step=step)


def provenance_of_scores(record: ScoreRecord) -> dict[str, Any]:
    """Record of a validation in a checkpoint: the main measure of each task, and the measure it was judged
    by."""
    scores = {name: record.mean(name) for name in AGREEMENT}
    if record.names_tasks:
        tasks = {name: one for name, one in record.tasks.items() if one["kind"] in MAIN_MEASURE}
        mains = {name: MAIN_MEASURE[one["kind"]] for name, one in tasks.items()}
        scores = {f"{name} {measure_title(main)}": tasks[name][main] for name, main in mains.items()}
    judgement = record.judgement
    return {"scores": scores, "judged": {"measure": judgement.measure, "value": judgement.value}}


def improved(record: ScoreRecord, best: dict[str, float]) -> list[str]:
    """Names of the checkpoints for which these scores are the best so far; ``best`` is brought up to date.

    Where what is judged by was never defined (one clip, labels that do not vary), ``best`` is the one with the
    least MSE.
    """
    mse = record.mean("mse")
    found = {"best": record.judgement.score, "best_mse": None if mse is None else -mse}
    better = []
    for name, value in found.items():
        if value is not None and value > best.get(name, -math.inf):
            best[name] = value
            better.append(name)
    if "best" not in best and "best_mse" in better:
        better.insert(0, "best")
    return better
