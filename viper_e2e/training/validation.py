"""validation.py: scores validation clips of a run, reports those left out, chooses the best checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from viper_e2e.encoders import PreparedClip, TokenCache
from viper_e2e.errors import ClipError
from viper_e2e.loading import ClipBatch, ClipStore, DecodeSample, Reading, SkipRecord
from viper_e2e.model import Prediction, Predictions, ViPER
from viper_e2e.report import measure_title
from viper_e2e.runtime import Processes
from viper_e2e.scoring import (
    MAIN_MEASURE,
    Hooks,
    Scores,
    as_measured,
    finite_or_none,
    main_score,
    rulers,
    score,
    scores_of,
    scores_record,
    split_best_by,
    task_record,
    task_scores,
    with_thresholds,
)
from viper_e2e.shards import ShardSet
from viper_e2e.tasks import COMBINED
from viper_e2e.training.corpus_curves import validation_by_corpus
from viper_e2e.training.guarding import Guard

VALIDATION = "validation/"
"""Before the keys of validation clips where those of training clips stand too; no key has a slash in it."""


class Validation:
    """Scores the validation clips whenever it is called, and remembers which of them ended a worker."""

    def __init__(
        self,
        module: ViPER,
        guard: Guard,
        processes: Processes,
        quarantined: dict[str, str],
        best_by: str = "",
    ):
        """``quarantined``: of the whole run, key → reason; it goes into checkpoints. ``best_by``: as in
        `SavingConfig`; `ViperError` for what is not measured."""
        if best_by:
            split_best_by(best_by, [ruler.task for ruler in rulers(module.labels)])
        self.best_by = best_by
        self.module, self.guard, self.processes = module, guard, processes
        self.quarantined = quarantined

    @property
    def judged_by(self) -> str:
        """What chooses `best`, in words."""
        return self.best_by or _main_measure({task.name: task.kind for task in self.module.labels.tasks})

    def known_bad(self) -> dict[str, str]:
        """Validation clips that the loader is not to try again."""
        own = {key: reason for key, reason in self.quarantined.items() if key.startswith(VALIDATION)}
        return {key.removeprefix(VALIDATION): reason for key, reason in own.items()}

    def __call__(
        self,
        shards: ShardSet,
        reading: Reading,
        epoch: int,
        step: int,
        *,
        store: ClipStore | None = None,
        see: Callable[[ClipBatch], None] = lambda batch: None,
    ) -> tuple[Predictions, Scores, dict[str, Any]]:
        """Predictions of all clips, their scores, and both as JSON for ``metrics.jsonl``.

        ``store``: of prepared clips, from which they come and into which they go; ``see`` sees each batch.
        """
        hooks = Hooks(quarantined=self.known_bad(), on_batch=see)
        if store is not None and store.budget_bytes:
            keep = keeping(store, self.module, shards, VALIDATION)
            hooks = replace(hooks, cached=lambda key: store.get(VALIDATION + key), on_clip=keep)
        found, left_out = self._scored(shards, reading, hooks, epoch, step)
        num_left_out = self.guard.count_validation_skips(left_out, len(shards))
        predictions = Predictions.of(found, self.module.labels, self.module.modalities, shards)
        # What is fitted here goes into every checkpoint from now on, for clips that are scored later.
        self.module.labels = with_thresholds(predictions)
        predictions = replace(predictions, labels=self.module.labels)
        scores, record = judged(predictions, self.best_by)
        if by_corpus := validation_by_corpus(predictions, shards):
            record["corpora"] = by_corpus
        if num_left_out:
            record["num_left_out"] = num_left_out
        if without := predictions.keys_without_number:
            record["without_number"] = without
        return predictions, scores, record

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
                self.guard.refuse(left_out[-1:])
        # What ended a worker was added to these meanwhile.
        for key, reason in (hooks.quarantined or {}).items():
            self.quarantined[VALIDATION + key] = reason
        return found, left_out


def judged(predictions: Predictions, best_by: str = "") -> tuple[Scores, dict[str, Any]]:
    """Scores of validation clips, and all that is reported of them as JSON, each task in its own measures."""
    scores = scores_of(predictions)
    record = scores_record(scores)
    if predictions.labels.tasks or best_by:
        by_task = task_scores(predictions, num_resamples=0)
        record["tasks"] = {name: task_record(one) for name, one in by_task.items()}
        record["best_by"] = finite_or_none(main_score(by_task, best_by))
    return scores, record


def keeping(
    store: ClipStore, module: ViPER, shards: ShardSet, prefix: str = ""
) -> Callable[[int, PreparedClip | ClipError], None]:
    """Keeps each clip that has passed, by its number, under a prefix and its key."""

    def keep(i: int, clip: PreparedClip | ClipError) -> None:
        key = prefix + shards.entry(i).key
        if isinstance(clip, PreparedClip) and key not in store:
            hold(store, module, key, clip)

    return keep


def hold(
    store: ClipStore, module: ViPER, key: str, clip: PreparedClip, cache: TokenCache | None = None
) -> None:
    """Keep a clip that has passed, where there is room: with what trained blocks begin with or without."""
    least = module.cacheable(clip, cache)
    if not store.offer(key, least) and least.prefixes:
        store.offer(key, module.cacheable(clip, cache, prefixes=False))


def _left_out(one: Prediction, shards: ShardSet, epoch: int, step: int) -> SkipRecord:
    shard = shards.shard_of(one.index).path_or_url.partition("?")[0]
    message = f"{one.clip}: {one.error}"
    return SkipRecord(one.clip, shard, one.stage, message, epoch, one.index, split="val", step=step)


def main_of(val: Mapping[str, Any]) -> float | None:
    """By what a record of `metrics.jsonl` judges its checkpoint in place of the mean Pearson; None: by that."""
    if "best_by" not in val:
        return None
    return math.nan if val["best_by"] is None else float(val["best_by"])


class Judgement(NamedTuple):
    """What a model's validation clips say of it."""

    measure: str
    """That is judged by, as people read it."""
    score: float | None
    """Larger is better; None where it is undefined."""
    value: float | None
    """The measure itself: an error has no sign."""


def judgement(val: Mapping[str, Any], best_by: str = "") -> Judgement:
    """``val``: as `judged` has made it, by the same ``best_by``."""
    score = val.get("best_by", val["mean_pearson"])
    value = None if score is None else as_measured(score, best_by)
    kinds = {name: one["kind"] for name, one in val.get("tasks", {}).items()}
    return Judgement(best_by or _main_measure(kinds), score, value)


def provenance_of_scores(val: Mapping[str, Any], best_by: str = "") -> dict[str, Any]:
    """What a checkpoint says of its validation: of tasks the main measure of each, and what it was judged
    by."""
    scores = {name: val[f"mean_{name}"] for name in ("pearson", "ccc", "mse")}
    if tasks := {name: one for name, one in val.get("tasks", {}).items() if one["kind"] in MAIN_MEASURE}:
        mains = {name: MAIN_MEASURE[one["kind"]] for name, one in tasks.items()}
        scores = {f"{name} {measure_title(main)}": tasks[name][main] for name, main in mains.items()}
    measure, _, value = judgement(val, best_by)
    return {"scores": scores, "judged": {"measure": measure, "value": value}}


def _main_measure(kinds: Mapping[str, str]) -> str:
    """``kinds``: of tasks by name."""
    main = {name: MAIN_MEASURE[kind] for name, kind in kinds.items() if kind != COMBINED}
    if len(main) > 1:
        return "mean of the tasks' main measures"
    return next((f"{name} {measure_title(main[name])}" for name in main), "mean Pearson")


def best_epoch(log: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The record in a ``metrics.jsonl`` of ``checkpoints/best``; None where nothing was validated."""
    validated = [dict(record) for record in log if record.get("val")]
    return max(validated, key=lambda record: _rank_of(record["val"]), default=None)


def _rank_of(val: Mapping[str, Any]) -> tuple[float, float]:
    return rank(val.get("best_by", val["mean_pearson"]), val.get("mean_mse"))


def rank(score: float | None, mse: float | None) -> tuple[float, float]:
    """To compare models by: what chose the checkpoints; where that is undefined, MSE."""
    if score is not None:
        return float(score), 0.0
    return -math.inf, -math.inf if mse is None else -float(mse)


def improved(scores: Scores, best: dict[str, float], main: float | None = None) -> list[str]:
    """Names of the checkpoints for which these scores are the best so far; ``best`` is brought up to date.

    ``main``: what takes the place of Pearson. Where that was never defined (one clip, labels that do not vary),
    ``best`` is the one with the least MSE.
    """
    judged = {"best": scores.mean_pearson if main is None else main, "best_mse": -scores.mean_mse}
    better = []
    for name, value in judged.items():
        if math.isfinite(value) and value > best.get(name, -math.inf):
            best[name] = value
            better.append(name)
    if "best" not in best and "best_mse" in better:
        better.insert(0, "best")
    return better
