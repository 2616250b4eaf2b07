"""trials.py: runs that differ in a few settings, trained on one pass, compared by validation, the best kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from viper_e2e.config import Settings
from viper_e2e.errors import ViperError
from viper_e2e.experiments.many_trainings import ManyTrainings
from viper_e2e.experiments.outcome import Failed, Outcome, Run
from viper_e2e.experiments.plan import Plan
from viper_e2e.experiments.trial_record import TrialRecord
from viper_e2e.experiments.trial_row import Rescored, TrialRow, ranked
from viper_e2e.model import CheckpointError, checkpoint, write_over
from viper_e2e.report import RunLog
from viper_e2e.training import (
    complaints_of_ridge,
    keep_data,
    measures_in,
    with_absolute_paths,
    write_settings,
)


@dataclass(frozen=True)
class Trial(Run):
    """A run of a sweep; its name is that of its folder."""

    differs: Mapping[str, str]
    """Its own settings: name → value, as written."""

    @classmethod
    def of(cls, name: str, differs: Mapping[str, str], settings: Settings) -> Trial:
        """``settings`` as if it were the only one: its folder becomes one in their ``run_dir``."""
        train = replace(settings.train, run_dir=f"{settings.train.run_dir}/{name}")
        return cls(name, replace(settings, train=train), dict(differs))


Make = Callable[[int, Mapping[str, str]], Trial]
"""Makes a trial from its number, from 1, and its own settings."""
Propose = Callable[[Sequence[TrialRow]], dict[str, str]]
"""Proposes the settings of the next trial from the rows so far."""


def run_trials(
    base: Settings,
    make: Make,
    plan: Plan,
    record_name: str,
    command: Sequence[str],
    *,
    rescore: Callable[[ManyTrainings, Outcome], Rescored] | None = None,
    propose: Propose | None = None,
) -> tuple[int, list[TrialRow]]:
    """Train all; exit code, and in the first process a row for each trial that has ended, in their order.

    A trial that diverges has a row with ``failed`` and without a score, and the others continue. It is tried
    again only if its folder is removed. `ViperError` where all have failed. A trial in which every number is
    that of an earlier one names it as ``same_as``: the settings in which they differ have no effect.

    In the folder of ``base``: ``config.yaml`` (what all have in common), the record (``plan`` and all rows,
    written again after each trial), a run folder for each trial and, once all have ended, the best one's
    checkpoint as ``checkpoints/best``. Asked to ``resume``, it continues where it stopped, and trains no
    finished trial again. ``plan``: as of `settled_plan`. ``rescore``: scores that the table has beside those
    of the validation in training.
    """
    folder = Path(base.train.run_dir)
    planned = [make(number, differs) for number, differs in enumerate(plan.trials, start=1)]
    _check_heads(planned)
    record = TrialRecord(folder / record_name, plan, resume=base.train.resume)
    with ManyTrainings(base, command=command, count=plan.num_trials) as many:
        many.check_free(trial.settings for trial in planned)
        trials = _Trials(base, record, many, rescore)
        if record.known:
            # The plan may have grown: `--resume` alone continues with all of it.
            trials.write()
        for trial, ended in many.each(trials.not_given_up(planned, make, propose), trials.begin):
            trials.add(trial, ended)
        if many.code:
            return many.code, record.rows
        trials.keep_best()
    _refuse_all_failed(record.rows, folder)
    code = many.code_of(failed=any(row.failed for row in record.rows))
    return code, record.rows if many.processes.is_main else []


class _Trials:
    """Trains one trial after the other, records each and keeps the best."""

    def __init__(
        self,
        base: Settings,
        record: TrialRecord,
        many: ManyTrainings,
        rescore: Callable[[ManyTrainings, Outcome], Rescored] | None,
    ):
        self.base, self.record, self.many, self.rescore = base, record, many, rescore
        self.folder = Path(base.train.run_dir)
        self.best: Outcome | None = None
        self.logs: dict[str, RunLog] = {}

    def not_given_up(self, planned: Sequence[Trial], make: Make, propose: Propose | None) -> Iterator[Trial]:
        """All trials but those that failed in an earlier command; each is named before it is trained."""
        for number, trial in enumerate(self._each(planned, make, propose), start=1):
            if self.record.passes_over(trial.name):
                continue
            told = ", ".join(f"{name} {value}" for name, value in trial.differs.items())
            self.many.tell(f"{trial.name} ({number} of {self.record.plan.num_trials}): {told}", style="bold")
            yield trial

    def _each(self, planned: Sequence[Trial], make: Make, propose: Propose | None) -> Iterator[Trial]:
        """Those that are ``planned``, then what is proposed from the rows of all before."""
        yield from planned
        for number in range(len(planned) + 1, self.record.plan.num_trials + 1):
            assert propose is not None, "a plan names its trials, or they are proposed"
            trial = make(number, propose(self.record.rows))
            self.record.plan = self.record.plan.with_trial(trial.differs)
            _check_heads([trial])
            self.many.check_free([trial.settings])
            if self.record.rows:
                self.write()
            yield trial

    def begin(self) -> None:
        """Called when all that can be checked before a training is."""
        if self.many.processes.is_main and not self.record.rows and not self.record.known:
            # The record tells whose settings those are.
            self.record.write()
            write_settings(self.folder, with_absolute_paths(self.base))

    def add(self, trial: Trial, ended: Outcome | Failed) -> None:
        """The row of a trial that has ended."""
        if isinstance(ended, Failed):
            row = TrialRow(trial.name, trial.differs, failed=ended.why)
        else:
            row = self._row(trial, ended)
        if self.record.add(row):
            self.write()
        if isinstance(ended, Outcome) and row is ranked(self.record.rows)[0]:
            self.best = ended

    def _row(self, trial: Trial, outcome: Outcome) -> TrialRow:
        row, earlier = _row(trial, outcome), self.record.known.get(trial.name)
        if outcome.was_there and earlier is not None and row == replace(earlier, rescored=None, same_as=""):
            row = earlier
        elif self.rescore is not None:
            row = replace(row, rescored=self.rescore(self.many, outcome))
        twin = next((name for name, log in self.logs.items() if log == outcome.log), None)
        self.logs[trial.name] = outcome.log
        return replace(row, same_as=twin) if twin else row

    def write(self) -> None:
        if self.many.processes.is_main:
            self.record.write()

    def keep_best(self) -> None:
        """Keep the best trial as the model of the sweep."""
        if self.many.processes.is_main and self.best is not None:
            kept = self.best.best
            write_over(self.folder / "checkpoints" / "best", lambda new: _copy(kept, new))
            keep_data(self.best.folder, self.folder)


def _refuse_all_failed(rows: Sequence[TrialRow], folder: Path) -> None:
    failed = [row for row in rows if row.failed]
    if failed and len(failed) == len(rows):
        raise ViperError(
            f"{folder}: all {len(rows)} trials failed, the first of them: {failed[0].failed}; try a "
            "lower lr in another --run-dir"
        )


def _check_heads(trials: Sequence[Trial]) -> None:
    for trial in trials:
        if trial.settings.model.fusion.kind == "ridge":
            for complaint in complaints_of_ridge(trial.settings):
                told = " ".join(f"{name}={value}" for name, value in trial.differs.items())
                raise ViperError(f"{told}: --head ridge {complaint}")


def _row(trial: Trial, outcome: Outcome) -> TrialRow:
    """The record of the epoch that ``checkpoints/best`` holds."""
    best = outcome.log.best
    if best is None:
        raise ViperError(
            f"{outcome.folder / 'metrics.jsonl'}: has no validation (was the disk full, or was it edited?); "
            "remove the folder and continue with --resume"
        )
    scores = best.scores
    return TrialRow(
        trial.name,
        trial.differs,
        epoch=best.epoch.epoch + 1,
        measure=scores.judgement.measure,
        score=scores.judgement.score,
        mean_pearson=scores.mean("pearson"),
        mean_ccc=scores.mean("ccc"),
        mean_mse=scores.mean("mse"),
        tasks={
            name: {"kind": one["kind"]} | {measure: one[measure] for measure in measures_in(one)}
            for name, one in scores.tasks.items()
        },
    )


def _copy(checkpoint_folder: Path, new: Path) -> None:
    try:
        checkpoint.verify(checkpoint_folder)
    except CheckpointError as error:
        raise ViperError(
            f"{error}; train this trial again: remove its folder and continue with --resume"
        ) from error
    checkpoint.copy_files(checkpoint_folder, new)
