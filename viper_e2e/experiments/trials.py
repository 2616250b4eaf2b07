"""trials.py: runs that differ in a few settings, trained on one pass, compared by validation, the best kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from viper_e2e.config import Settings
from viper_e2e.errors import ViperError
from viper_e2e.experiments.many_trainings import ManyTrainings, Outcome
from viper_e2e.experiments.trial_record import TrialRecord, num_trials, ranked
from viper_e2e.model import CheckpointError, checkpoint, write_folder
from viper_e2e.report import RunLog
from viper_e2e.training import (
    DivergedError,
    complaints_of_ridge,
    keep_data,
    measures_in,
    with_absolute_paths,
    write_settings,
)

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
    record_name: str,
    command: Sequence[str],
    *,
    judge: Callable[[ManyTrainings, Outcome], dict[str, Any]] = lambda many, outcome: {},
    propose: Callable[[Sequence[dict[str, Any]]], dict[str, str]] | None = None,
) -> tuple[int, list[dict[str, Any]]]:
    """Train all; exit code, and in the first process a row for each trial that has ended, in their order.

    A trial that diverges has a row with ``failed`` and without a score, and the others continue. It is tried
    again only if its folder is removed. `ViperError` where all have failed. A trial in which every number is
    that of an earlier one names it as ``same_as``: the settings in which they differ have no effect.

    In the folder of ``base``: ``config.yaml`` (what all have in common), the record (``plan`` and all rows,
    written again after each trial), a run folder for each trial and, once all have ended, the best one's
    checkpoint as ``checkpoints/best``. Asked to ``resume``, it continues where it stopped, and trains no
    finished trial again.

    ``make``: from a number (the first has 1) and its own settings to a trial. ``plan``: as of `settled_plan`.
    ``propose``: from the rows so far to what the next one tries. ``judge``: what else a row tells of its run.
    """
    folder, count = Path(base.train.run_dir), num_trials(plan)
    planned = [make(number, differs) for number, differs in enumerate(plan["trials"], start=1)]
    _check_heads(planned)
    record = TrialRecord(folder / record_name, plan, resume=base.train.resume)
    with ManyTrainings(base, command=command, count=count) as many:
        many.check_free(trial.settings for trial in planned)
        trials = _Trials(base, record, many, judge)
        if record.known:
            # The plan may have grown: `--resume` alone continues with all of it.
            trials.write()
        for number, trial in enumerate(trials.each(planned, make, propose), start=1):
            if record.passes_over(trial.name):
                continue
            told = ", ".join(f"{name} {value}" for name, value in trial.differs.items())
            many.tell(f"{trial.name} ({number} of {count}): {told}", style="bold")
            if not trials.train(trial):
                return many.code, record.rows
        trials.keep_best()
    _refuse_all_failed(record.rows, folder)
    code = many.code_of(failed=any("failed" in row for row in record.rows))
    return code, record.rows if many.processes.is_main else []


class _Trials:
    """What is trained, told and kept of one trial after the other."""

    def __init__(
        self,
        base: Settings,
        record: TrialRecord,
        many: ManyTrainings,
        judge: Callable[[ManyTrainings, Outcome], dict[str, Any]],
    ):
        self.base, self.record, self.many, self.judge = base, record, many, judge
        self.folder = Path(base.train.run_dir)
        self.best: Outcome | None = None
        self.logs: dict[str, RunLog] = {}

    def each(
        self,
        planned: Sequence[Trial],
        make: Callable[[int, Mapping[str, str]], Trial],
        propose: Callable[[Sequence[dict[str, Any]]], dict[str, str]] | None,
    ) -> Iterator[Trial]:
        """Those that are ``planned``, then what is proposed from the rows of all before."""
        yield from planned
        plan = self.record.plan
        for number in range(len(planned) + 1, num_trials(plan) + 1):
            assert propose is not None, "a plan names its trials, or they are proposed"
            trial = make(number, propose(self.record.rows))
            plan["trials"].append(trial.differs)
            _check_heads([trial])
            self.many.check_free([trial.settings])
            if self.record.rows:
                self.write()
            yield trial

    def train(self, trial: Trial) -> bool:
        """Train it and record its row; False where a signal asked to stop."""
        row, outcome = self._trained(trial)
        if row is None:
            return False
        if outcome is not None:
            twin = next((name for name, log in self.logs.items() if log == outcome.log), None)
            row |= {"same_as": twin} if twin else {}
            self.logs[trial.name] = outcome.log
        if self.record.add(row):
            self.write()
        if outcome is not None and row is ranked(self.record.rows)[0]:
            self.best = outcome
        return True

    def _trained(self, trial: Trial) -> tuple[dict[str, Any] | None, Outcome | None]:
        """The trial's row, the earlier one where it had ended before; neither where a signal asked to stop."""
        try:
            outcome = self.many.train(trial.settings, self._begin)
        except DivergedError as error:
            self.many.tell(f"{trial.name} failed: {error}")
            undefined = dict.fromkeys(("epoch", "score", *MEANS))
            return {"trial": trial.name, "settings": trial.differs, "failed": error.why, **undefined}, None
        if outcome is None:
            return None, None
        row, earlier = _row(trial, outcome), self.record.known.get(trial.name)
        if outcome.was_there and earlier is not None and row.items() <= earlier.items():
            return earlier, outcome
        return row | self.judge(self.many, outcome), outcome

    def _begin(self) -> None:
        if self.many.processes.is_main and not self.record.rows and not self.record.known:
            # The record tells whose settings those are.
            self.record.write()
            write_settings(self.folder, with_absolute_paths(self.base))

    def write(self) -> None:
        if self.many.processes.is_main:
            self.record.write()

    def keep_best(self) -> None:
        """As the model of them all."""
        if self.many.processes.is_main and self.best is not None:
            kept = self.best.best
            write_folder(self.folder / "checkpoints" / "best", lambda new: _copy(kept, new))
            keep_data(self.best.folder, self.folder)


def _refuse_all_failed(rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
    failed = [row for row in rows if "failed" in row]
    if failed and len(failed) == len(rows):
        raise ViperError(
            f"{folder}: all {len(rows)} trials failed, the first of them: {failed[0]['failed']}; try a "
            "lower lr in another --run-dir"
        )


def _check_heads(trials: Sequence[Trial]) -> None:
    for trial in trials:
        if trial.settings.model.fusion.kind == "ridge":
            for complaint in complaints_of_ridge(trial.settings):
                told = " ".join(f"{name}={value}" for name, value in trial.differs.items())
                raise ViperError(f"{told}: --head ridge {complaint}")


def _row(trial: Trial, outcome: Outcome) -> dict[str, Any]:
    """The record of the epoch that ``checkpoints/best`` holds."""
    best = outcome.log.best
    if best is None:
        raise ViperError(
            f"{outcome.folder / 'metrics.jsonl'}: has no validation (was the disk full, or was it edited?); "
            "remove the folder and continue with --resume"
        )
    scores = best.scores
    return {
        "trial": trial.name,
        "settings": trial.differs,
        "epoch": best.epoch.epoch + 1,
        "measure": scores.judgement.measure,
        "value": scores.judgement.value,
        "score": scores.judgement.score,
        **{name: scores.scores.get(name) for name in MEANS},
        "tasks": {
            name: {"kind": one["kind"]} | {measure: one[measure] for measure in measures_in(one)}
            for name, one in scores.tasks.items()
        },
    }


def _copy(checkpoint_folder: Path, new: Path) -> None:
    try:
        checkpoint.verify(checkpoint_folder)
    except CheckpointError as error:
        raise ViperError(
            f"{error}; train this trial again: remove its folder and continue with --resume"
        ) from error
    checkpoint.copy_files(checkpoint_folder, new)
