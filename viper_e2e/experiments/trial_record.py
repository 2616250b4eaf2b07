"""trial_record.py: the record of trials in the folder of a sweep: what was to be tried, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from viper_e2e.config import Settings
from viper_e2e.errors import ViperError
from viper_e2e.report import rank
from viper_e2e.runtime import plain_json, write_text
from viper_e2e.training import check_is_free

SCHEMA = 1


# --- what is to be tried --------------------------------------------------------------------------


def num_trials(plan: Mapping[str, Any]) -> int:
    """How many there will be."""
    return plan.get("count", len(plan["trials"]))


def read_plan(path: Path) -> dict[str, Any] | None:
    """What a record says was to be tried; `None` where there is none."""
    return read_record(path).get("plan")


def read_record(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    data = plain_json.read_object(path, max_bytes=plain_json.MAX_BYTES_BY_CLIP, advice="was it edited?")
    if not _is_record(data):
        raise ViperError(f"{path}: not a record of this version; was it edited?")
    return data


def _is_record(data: Mapping[str, Any]) -> bool:
    plan, rows = data.get("plan"), data.get("trials")
    has_plan = isinstance(plan, dict) and "kind" in plan and isinstance(plan.get("trials"), list)
    return has_plan and isinstance(rows, list) and all(isinstance(row, dict) and "trial" in row for row in rows)


def settled_plan(base: Settings, plan: dict[str, Any], record: Path) -> dict[str, Any]:
    """The plan to begin or continue with, before anything is loaded; `ViperError` where there can be none.

    ``plan``: ``trials`` are the settings of all; where they are proposed one after the other, ``count`` says
    how many there will be, and ``trials`` are those in the record. What is resumed may have more trials than
    before; ``began_with`` is then the first count.
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
    before, asked = read_plan(record), json.loads(plain_json.dumps(plan))
    if before is None:
        return plan
    return _grown(before, asked, record)


def _grown(before: dict[str, Any], asked: dict[str, Any], record: Path) -> dict[str, Any]:
    """``asked`` as it continues ``before``, the plan of the ``record``; `ViperError` where it does not."""
    first, now = num_trials(before), num_trials(asked)
    if "count" in asked:
        asked["trials"] = before["trials"]  # they are proposed one after the other
    # Of a grid the trials say all; it grows by values after those that were there.
    changes = {"count", "trials", "began_with", *(["over"] if before["kind"] == "grid" else [])}
    alike = all(before.get(name) == asked.get(name) for name in {*before, *asked} - changes)
    if alike and now < first and all(trial in before["trials"] for trial in asked["trials"]):
        raise ViperError(
            f"{record}: has {first} trials, and {now} are asked for now; to continue with all of them, give "
            "--resume and --run-dir alone; for fewer, name another --run-dir"
        )
    if not alike or asked["trials"][: len(before["trials"])] != before["trials"]:
        raise ViperError(
            f"{record}: its trials are not the first of those asked for now; name another --run-dir"
        )
    return before if now == first else asked | {"began_with": before.get("began_with", first)}


# --- what came of it ------------------------------------------------------------------------------


class TrialRecord:
    """The rows of trials while these are trained, before those of an earlier command, in one file."""

    def __init__(self, path: Path, plan: dict[str, Any], *, resume: bool):
        """``resume``: what the file holds is continued."""
        self.path, self.plan = path, plan
        self.rows: list[dict[str, Any]] = []
        """Of the trials that this command has come to, in their order."""
        held = read_record(path).get("trials", []) if resume else []
        self.known: dict[str, dict[str, Any]] = {row["trial"]: row for row in held}
        """What the file held, by the trial's name."""
        # Looked at before any process makes a folder again, so that all pass over the same ones.
        self._given_up = {
            name for name, row in self.known.items() if "failed" in row and (path.parent / name).is_dir()
        }

    def passes_over(self, trial: str) -> bool:
        """Whether it failed in an earlier command and its folder is still there; its row is then kept."""
        if trial in self._given_up:
            self.rows.append(self.known[trial])
        return trial in self._given_up

    def add(self, row: dict[str, Any]) -> bool:
        """Whether it differs from what the file holds of this trial."""
        self.rows.append(row)
        return row is not self.known.get(row["trial"])

    def write(self) -> None:
        """The rows so far, then those of trials that this command has not come to yet."""
        write_record(self.path, self.plan, [*self.rows, *[*self.known.values()][len(self.rows) :]])


def ranked(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The best first, of equals the earlier; then what has no score, since its predictions do not vary; what
    failed last."""
    return sorted(rows, key=_rank, reverse=True)


def _rank(row: Mapping[str, Any]) -> tuple[bool, tuple[float, float]]:
    return "failed" not in row, rank(row["score"], row["mean_mse"])


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


def write_record(path: Path, plan: Mapping[str, Any], rows: Sequence[dict[str, Any]]) -> None:
    first = ranked(rows)[:1]
    best = {"best": first[0]["trial"]} if first and "failed" not in first[0] else {}
    data = {"schema": SCHEMA, "plan": plan, **best, "trials": rows}
    write_text(path, plain_json.dumps(data, indent=1) + "\n")
