"""trials.py: runs that differ in a few settings, trained on one pass, compared by validation, the best kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from viper_e2e.config import Settings
from viper_e2e.errors import ExitCode, ViperError
from viper_e2e.model import CheckpointError, checkpoint, write_folder
from viper_e2e.runtime import naming, plain_json, write_text
from viper_e2e.training.data_record import keep_data
from viper_e2e.training.guarding import DivergedError
from viper_e2e.training.one_pass import ManyTrainings, Outcome
from viper_e2e.training.resuming import with_absolute_paths
from viper_e2e.training.ridge_training import complaints_of_ridge
from viper_e2e.training.run_folder import check_is_free, write_settings
from viper_e2e.training.tables import measures_in
from viper_e2e.training.validation import best_epoch, judgement, rank

SCHEMA = 1
MEANS = ("mean_pearson", "mean_ccc", "mean_mse")


@dataclass(frozen=True)
class Trial:
    """One run among others."""

    name: str
    """Of its folder."""
    differs: dict[str, str]
    """What it has of its own: setting → value, as it was written."""
    settings: Settings

    @classmethod
    def of(cls, name: str, differs: Mapping[str, str], settings: Settings) -> Trial:
        """``settings`` as if it were the only one: its folder becomes one in their ``run_dir``."""
        train = settings.train
        return cls(
            name, dict(differs), replace(settings, train=replace(train, run_dir=f"{train.run_dir}/{name}"))
        )


def run_trials(
    base: Settings,
    make: Callable[[int, Mapping[str, str]], Trial],
    plan: dict[str, Any],
    record: str,
    command: Sequence[str],
    *,
    judge: Callable[[ManyTrainings, Outcome], dict[str, Any]] = lambda many, outcome: {},
    propose: Callable[[Sequence[dict[str, Any]]], dict[str, str]] | None = None,
) -> tuple[int, list[dict[str, Any]]]:
    """Train all; exit code, and in the first process a row for each trial that has ended, in their order.

    A trial that diverges has a row with ``failed`` and without a score, and the others go on. It is not tried
    again, unless its folder is removed. `ViperError` where all have failed. A trial in which every number is
    that of an earlier one has the name of this as ``same_as``: what they differ in has no effect.

    In the folder of ``base``: ``config.yaml`` (what all have in common), ``record`` (``plan`` and all rows,
    written anew after each trial), a run folder for each trial and, once all have ended, the best one's
    checkpoint as ``checkpoints/best``. Asked to ``resume``, it goes on where it stopped: trials that have ended
    are not trained again.

    ``make``: from a number (the first has 1) and its own settings to a trial. ``plan``: as of `settled_plan`.
    ``propose``: from the rows so far to what the next one tries. ``judge``: what else a row tells of its run.
    """
    folder = Path(base.train.run_dir)
    trials = [make(number, differs) for number, differs in enumerate(plan["trials"], start=1)]
    _check_heads(trials)
    rows: list[dict[str, Any]] = []
    known = {row["trial"]: row for row in _read(folder / record).get("trials", [])} if base.train.resume else {}
    # Looked at before any process makes a folder anew, so that all pass over the same ones.
    given_up = {name for name, row in known.items() if "failed" in row and (folder / name).is_dir()}
    count = num_trials(plan)
    with ManyTrainings(base, command=command, count=count) as many:
        many.check_free(trial.settings for trial in trials)
        is_main = many.processes.is_main
        if is_main and known:
            # The plan may have grown: `--resume` alone goes on with all of it.
            _write(folder / record, plan, [*known.values()])

        def begun() -> None:
            if is_main and not rows and not known:
                # The record tells whose settings those are.
                _write(folder / record, plan, [])
                write_settings(folder, with_absolute_paths(base))

        best: Outcome | None = None
        logs: dict[str, list[dict[str, Any]]] = {}
        for number in range(1, count + 1):
            if number > len(trials):
                assert propose is not None, "a plan names its trials, or they are proposed"
                trials.append(make(number, propose(rows)))
                plan["trials"].append(trials[-1].differs)
                _check_heads(trials[-1:])
                many.check_free([trials[-1].settings])
                if is_main and rows:
                    _write(folder / record, plan, rows)
            trial = trials[number - 1]
            earlier = known.get(trial.name)
            if earlier is not None and trial.name in given_up:
                rows.append(earlier)
                continue
            told = ", ".join(f"{name} {value}" for name, value in trial.differs.items())
            many.tell(f"{trial.name} ({number} of {count}): {told}", style="bold")
            row, outcome = _trained(trial, many, begun, earlier, judge)
            if row is None:
                return many.code, rows
            if outcome is not None:
                twin = next((name for name, log in logs.items() if log == outcome.log), None)
                row |= {"same_as": twin} if twin else {}
                logs[trial.name] = outcome.log
            rows.append(row)
            if is_main and row is not earlier:
                _write(folder / record, plan, [*rows, *[*known.values()][len(rows) :]])
            if outcome is not None and row is ranked(rows)[0]:
                best = outcome
        if is_main and best is not None:
            kept = best.best
            write_folder(folder / "checkpoints" / "best", lambda new: _copy(kept, new))
            keep_data(best.folder, folder)
    return _code_of(rows, folder), rows if is_main else []


def _trained(
    trial: Trial,
    many: ManyTrainings,
    begun: Callable[[], None],
    earlier: dict[str, Any] | None,
    judge: Callable[[ManyTrainings, Outcome], dict[str, Any]],
) -> tuple[dict[str, Any] | None, Outcome | None]:
    """The trial's row, ``earlier`` where it had ended before; neither where a signal asked to stop."""
    try:
        outcome = many.train(trial.settings, begun)
    except DivergedError as error:
        many.tell(f"{trial.name} failed: {error}")
        undefined = dict.fromkeys(("epoch", "score", *MEANS))
        return {"trial": trial.name, "settings": trial.differs, "failed": error.why, **undefined}, None
    if outcome is None:
        return None, None
    row = _row(trial, outcome)
    if outcome.was_there and earlier is not None and row.items() <= earlier.items():
        return earlier, outcome
    return row | judge(many, outcome), outcome


def _code_of(rows: Sequence[Mapping[str, Any]], folder: Path) -> int:
    failed = [row for row in rows if "failed" in row]
    if failed and len(failed) == len(rows):
        raise ViperError(
            f"{folder}: all {len(rows)} trials failed, the first of them: {failed[0]['failed']}; try a "
            "lower lr in another --run-dir"
        )
    return ExitCode.SOME_FAILED if failed else ExitCode.OK


def ranked(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The best first, of equals the earlier; then what has no score, since its predictions do not vary; what
    failed last."""
    return sorted(rows, key=_rank, reverse=True)


def without_effect(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, list[str]]]:
    """Of each trial that is the training of an earlier one over again: its name, that of the other, and the
    settings that make no difference."""
    settings = {row["trial"]: row["settings"] for row in rows}
    return [
        (
            row["trial"],
            row["same_as"],
            [name for name, value in row["settings"].items() if settings[row["same_as"]][name] != value],
        )
        for row in rows
        if "same_as" in row
    ]


def num_trials(plan: Mapping[str, Any]) -> int:
    """How many there will be."""
    return plan.get("count", len(plan["trials"]))


def read_plan(path: Path) -> dict[str, Any] | None:
    """What a record says was to be tried; `None` where there is none."""
    return _read(path).get("plan")


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        with naming(path):
            data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ViperError(f"{path}: not a record of this version ({error}); was it edited?") from error
    if not isinstance(data, dict) or not {"plan", "trials"} <= data.keys():
        raise ViperError(f"{path}: not a record of this version; was it edited?")
    return data


def settled_plan(base: Settings, plan: dict[str, Any], record: Path) -> dict[str, Any]:
    """The plan to begin or go on with, before anything is loaded; `ViperError` where there can be none.

    ``plan``: ``trials`` are the settings of all; where they are proposed one after the other, ``count`` says
    how many there will be, and ``trials`` are those in the record. What goes on may have more trials than
    before; ``began_with`` is then the first count.
    """
    if not base.train.val_shards:
        raise ViperError("--val-shards is missing: trials are compared by their validation")
    if base.train.seeds > 1:
        raise ViperError("--seeds: give seed=0,1,2 among the settings that are tried")
    if base.train.ensemble > 1:
        raise ViperError("--ensemble: a trial is one model; train the settings that are best with --ensemble")
    if not base.train.resume:
        check_is_free(record.parent)
        return plan
    before, asked = read_plan(record), json.loads(plain_json.dumps(plan))
    if before is None:
        return plan
    grown = _grown(before, asked)
    if grown is None:
        raise ViperError(
            f"{record}: holds other trials than those asked for now, and not the first of them; name another "
            "--run-dir"
        )
    return grown


def _grown(before: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any] | None:
    """`None` where ``asked`` does not begin with the trials from ``before``."""
    first, now = num_trials(before), num_trials(asked)
    if "count" in asked:
        asked["trials"] = before["trials"]  # they are proposed one after the other
    changes = {"count", "trials", "began_with"}
    alike = all(before.get(name) == asked.get(name) for name in {*before, *asked} - changes)
    if not alike or now < first or asked["trials"][: len(before["trials"])] != before["trials"]:
        return None
    return before if now == first else asked | {"began_with": before.get("began_with", first)}


def _check_heads(trials: Sequence[Trial]) -> None:
    for trial in trials:
        if trial.settings.model.fusion.kind == "ridge":
            for complaint in complaints_of_ridge(trial.settings):
                told = " ".join(f"{name}={value}" for name, value in trial.differs.items())
                raise ViperError(f"{told}: --head ridge {complaint}")


def _row(trial: Trial, outcome: Outcome) -> dict[str, Any]:
    """The record of the epoch that ``checkpoints/best`` holds."""
    best = best_epoch(outcome.log)
    if best is None:
        raise ViperError(
            f"{outcome.folder / 'metrics.jsonl'}: has no validation (was the disk full, or was it edited?); "
            "remove the folder and go on with --resume"
        )
    val = best["val"]
    measure, score, value = judgement(val, trial.settings.train.best_by)
    row = {
        "trial": trial.name,
        "settings": trial.differs,
        "epoch": best["epoch"] + 1,
        "measure": measure,
        "value": value,
        "score": score,
        **{name: val.get(name) for name in MEANS},
    }
    if "tasks" in val:
        row["tasks"] = {
            name: {"kind": one["kind"]} | {measure: one[measure] for measure in measures_in(one)}
            for name, one in val["tasks"].items()
        }
    return row


def _rank(row: Mapping[str, Any]) -> tuple[bool, tuple[float, float]]:
    return "failed" not in row, rank(row["score"], row["mean_mse"])


def _write(path: Path, plan: Mapping[str, Any], rows: Sequence[dict[str, Any]]) -> None:
    first = ranked(rows)[:1]
    best = {"best": first[0]["trial"]} if first and "failed" not in first[0] else {}
    data = {"schema": SCHEMA, "plan": plan, **best, "trials": rows}
    write_text(path, plain_json.dumps(data, indent=1) + "\n")


def _copy(checkpoint_folder: Path, new: Path) -> None:
    try:
        checkpoint.verify(checkpoint_folder)
    except CheckpointError as error:
        raise ViperError(
            f"{error}; train this trial anew: remove its folder and go on with --resume"
        ) from error
    names = [path.name for path in checkpoint_folder.iterdir() if path.name != checkpoint.MANIFEST]
    for name in sorted(names):
        source = checkpoint_folder / name
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, new / name)
