"""cross_validation.py: a run per fold from one pass of encoding; no model predicts clips that it saw."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from viper_e2e.errors import ViperError
from viper_e2e.experiments.ensembling import join
from viper_e2e.experiments.folding import Folding
from viper_e2e.experiments.many_trainings import ManyTrainings
from viper_e2e.experiments.outcome import Failed, Outcome, Run
from viper_e2e.experiments.seeds import seeded
from viper_e2e.model import Predictions, checkpoint
from viper_e2e.runtime import AS_IT_IS, console, plain_json, write_text
from viper_e2e.shards import ShardSet
from viper_e2e.splits import Folds, notes_on

HELD_OUT = "held_out"


@dataclass(frozen=True)
class CrossValidation:
    """Result of all folds."""

    folds: Folds
    by_fold: Mapping[str, Predictions]
    """Predictions of the clips that each fold held out, by its own model."""
    pooled: Predictions
    """Predictions of all clips, each once, in the order of the shards."""
    checkpoint: str
    """The checkpoint of each run that predicted: ``last``, or ``best`` by clips of its own training folds."""


def cross_validate(folding: Folding, command: Sequence[str]) -> tuple[dict[int, CrossValidation], int, bool]:
    """Train every fold, with every seed, and predict what it held out.

    Returns what came of it by seed, nothing where a signal asked to stop or this is not the first process; the
    exit code; and whether this is the first process. A seed with a fold that diverged is not among them: what
    that fold held out was predicted by nobody. ``command``: the words with which all of it continues.
    """
    found: dict[int, CrossValidation] = {}
    failed: dict[str, str] = {}
    with ManyTrainings(folding.settings, command=command, count=folding.num_trainings) as many:
        is_main = many.processes.is_main
        if is_main:
            many.notes.problems((*folding.shards.problems, *notes_on(folding.shards, folding.folds)))
            console.print(*folding.overview(), sep="\n")
            folding.write_folds()
        for seed, own in folding.by_seed.items():
            num_failed = len(failed)

            def begun(own: Folding = own) -> None:
                if is_main:
                    folding.write_settings()
                    own.write_settings()

            prefix = f"seed {seed}, " if len(folding.by_seed) > 1 else ""
            by_fold = _of_seed(own, many, prefix, failed, begun)
            if by_fold is None:
                return {}, many.code, is_main
            if is_main and len(failed) == num_failed:
                found[seed] = _joined(own, by_fold)
        if failed:
            many.tell(_told(failed, folding))
    return found, many.code_of(failed=bool(failed)), is_main


def _told(failed: Mapping[str, str], folding: Folding) -> str:
    """Note on folds that failed, and what to do; `ViperError` if all did."""
    which = "; ".join(f"{name}: {why}" for name, why in failed.items())
    hint = "to lower --lr, start all folds in another --run-dir"
    if len(failed) == folding.num_trainings:
        raise ViperError(f"{folding.folder}: all {len(failed)} trainings failed ({which}); {hint}")
    again = f"viper cv --resume --run-dir {shlex.quote(str(folding.folder))}"
    return (
        f"{len(failed)} of {folding.num_trainings} trainings failed ({which}), so that clips held out "
        "there have no prediction, and the folds are not scored together; the other folds are kept: "
        f"{again} trains only these; {hint}"
    )


def _of_seed(
    folding: Folding, many: ManyTrainings, prefix: str, failed: dict[str, str], begun: Callable[[], None]
) -> dict[str, Predictions] | None:
    """By fold, in the first process; None where a signal asked to stop. What diverges goes into ``failed``.

    ``begun``: as of `ManyTrainings.train`.
    """
    if many.processes.is_main:
        folding.write_folds()
    many.processes.wait("the folds to be written")
    found: dict[str, Predictions] = {}
    for number, fold in enumerate(folding.names, 1):
        if many.processes.is_main:
            console.print(f"{prefix}fold {fold} ({number} of {len(folding.names)})", style="bold", **AS_IT_IS)
        runs = _runs(folding, fold, prefix)
        ended = [*many.each(runs, begun)]
        if many.code:
            return None
        failed |= {run.name: one.why for run, one in ended if isinstance(one, Failed)}
        outcomes = [one for _, one in ended if isinstance(one, Outcome)]
        if len(outcomes) < len(runs):
            continue
        held_out = _held_out(folding, fold, outcomes, many)
        if held_out is not None:
            found[fold] = held_out
    return found


def _runs(folding: Folding, fold: str, prefix: str) -> list[Run]:
    """The run of a fold, or those whose models become one."""
    runs = seeded(folding.run_of(fold))
    if len(runs) == 1:
        return [Run(f"{prefix}fold {fold}", runs[0])]
    return [Run(f"{prefix}fold {fold}, member of seed {run.train.seed}", run) for run in runs]


def _joined(folding: Folding, by_fold: Mapping[str, Predictions]) -> CrossValidation:
    keys = [folding.shards.entry(i).key for i in range(len(folding.shards))]
    pooled = Predictions.joined([*by_fold.values()], [key for key in keys if key in folding.folds.of_clips])
    return CrossValidation(folding.folds, by_fold, pooled, folding.checkpoint)


def _held_out(
    folding: Folding, fold: str, outcomes: Sequence[Outcome], many: ManyTrainings
) -> Predictions | None:
    """Predictions of a fold's clips by the run that held it out, or the runs that become one model; what an
    earlier start has predicted with the same weights stays.

    In further processes None. Always read from their file, so that a resumed run has the same numbers.
    """
    shards = folding.folds.of_fold(folding.shards, fold)
    rows, record = (folding.folder_of(fold) / f"{HELD_OUT}{ending}" for ending in (".csv", ".json"))
    heads = [checkpoint.content_of(model)["model.safetensors"] for model in _models(folding, outcomes)]
    now = {"checkpoint": folding.checkpoint, "models_sha256": heads, "clips": len(shards)}
    is_known = record.exists() and rows.exists() and _recorded(record) == now
    if not many.processes.gather_scalars(float(is_known), purpose="looking for predictions")[0, 0]:
        made = _predicted(folding, fold, outcomes, many, shards)
        if many.processes.is_main:
            record.unlink(missing_ok=True)
            made.write_csv(rows, exact=True)
            write_text(record, plain_json.dumps(now) + "\n")
    if not many.processes.is_main:
        return None
    return Predictions.read_csv(rows, shards.known_labels)


def _predicted(
    folding: Folding, fold: str, outcomes: Sequence[Outcome], many: ManyTrainings, shards: ShardSet
) -> Predictions:
    if len(outcomes) == 1:
        return many.predict(outcomes[0], shards, folding.checkpoint)
    said = [many.predict(outcome, shards, folding.checkpoint) for outcome in outcomes]
    target = folding.folder_of(fold) / "checkpoints" / "best"
    join(_models(folding, outcomes), said, target, many.processes)
    return many.predict(outcomes[0], shards, model=target)


def _models(folding: Folding, outcomes: Sequence[Outcome]) -> list[Path]:
    """The checkpoints that predict what their fold held out: one, or the members of one model."""
    return [outcome.best.with_name(folding.checkpoint) for outcome in outcomes]


def _recorded(path: Path) -> dict[str, Any]:
    return plain_json.read_object(path, advice="delete it, so that this fold's clips are predicted again")
