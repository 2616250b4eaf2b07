"""trial_record.py: the record of trials in the folder of a sweep: what was to be tried, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from viper_e2e.config import Settings
from viper_e2e.errors import ViperError
from viper_e2e.experiments.plan import Plan
from viper_e2e.experiments.trial_row import TrialRow, ranked
from viper_e2e.runtime import plain_json, write_text
from viper_e2e.training import check_is_free

SCHEMA = 1


class Recorded(NamedTuple):
    plan: Plan
    rows: list[TrialRow]
    """Rows of the trials that have ended."""


def read_record(path: Path) -> Recorded | None:
    """Read a record of trials; None if there is none."""
    if not path.exists():
        return None
    data = plain_json.read_object(path, max_bytes=plain_json.MAX_BYTES_BY_CLIP, advice="was it edited?")
    plan, rows = data.get("plan"), data.get("trials")
    is_plan = isinstance(plan, dict) and "kind" in plan and _are_objects(plan.get("trials"))
    if not is_plan or not _are_objects(rows, "trial", "settings"):
        raise ViperError(f"{path}: not a record of this version; was it edited?")
    return Recorded(Plan.from_json(data["plan"]), [TrialRow.from_json(row) for row in data["trials"]])


def _are_objects(rows: Any, *names: str) -> bool:
    return isinstance(rows, list) and all(isinstance(row, dict) and row.keys() >= {*names} for row in rows)


def write_record(path: Path, plan: Plan, rows: Sequence[TrialRow]) -> None:
    first = ranked(rows)[:1]
    best = {"best": first[0].trial} if first and not first[0].failed else {}
    data = {"schema": SCHEMA, "plan": plan.to_json(), **best, "trials": [row.to_json() for row in rows]}
    write_text(path, plain_json.dumps(data, indent=1) + "\n")


def read_plan(path: Path) -> Plan | None:
    """Read the plan in a record; None if there is none."""
    record = read_record(path)
    return None if record is None else record.plan


def settled_plan(base: Settings, plan: Plan, record: Path) -> Plan:
    """The plan to begin or continue with, before anything is loaded; `ViperError` where there can be none.

    What is resumed may have more trials than before.
    """
    if not (base.train.val_shards or base.train.inner_val or base.train.fold):
        raise ViperError(
            "--val-shards is missing: trials are compared by their validation; give it, or --inner-val 0.1"
        )
    if base.train.seeds > 1:
        raise ViperError("--seeds: to try several seeds, add seed=0,1,2 to --grid")
    if base.train.ensemble > 1:
        raise ViperError("--ensemble: a trial is one model; train the best settings with --ensemble")
    if not base.train.resume:
        check_is_free(record.parent)
        return plan
    before = read_plan(record)
    return plan if before is None else plan.grown_from(before, record)


class TrialRecord:
    """The rows of trials while these are trained, before those of an earlier command, in one file."""

    def __init__(self, path: Path, plan: Plan, *, resume: bool):
        """``resume``: what the file holds is continued."""
        self.path, self.plan = path, plan
        self.rows: list[TrialRow] = []
        """Rows of the trials that this command has reached, in order."""
        record = read_record(path) if resume else None
        self.known = {row.trial: row for row in record.rows} if record is not None else {}
        """Rows in the file, by the trial's name."""
        # Looked at before any process makes a folder again, so that all pass over the same ones.
        self._given_up = {
            name for name, row in self.known.items() if row.failed and (path.parent / name).is_dir()
        }

    def passes_over(self, trial: str) -> bool:
        """Whether it failed in an earlier command and its folder is still there; its row is then kept."""
        if trial in self._given_up:
            self.rows.append(self.known[trial])
        return trial in self._given_up

    def add(self, row: TrialRow) -> bool:
        """Whether it differs from what the file holds of this trial."""
        self.rows.append(row)
        return row != self.known.get(row.trial)

    def write(self) -> None:
        """The rows so far, then those of trials that this command has not come to yet."""
        write_record(self.path, self.plan, [*self.rows, *[*self.known.values()][len(self.rows) :]])
