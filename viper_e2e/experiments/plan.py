"""plan.py: the plan of a sweep: settings of each trial, and how many more are proposed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from viper_e2e.errors import ViperError


@dataclass(frozen=True)
class Plan:
    """Trials to be made, as the record of a sweep keeps them."""

    kind: str
    """``grid``, ``random``, ``optuna``, or ``modalities`` of `viper ablate --retrain`."""
    over: tuple[str, ...] = ()
    """Words of ``--grid`` or ``--range``."""
    seed: int | None = None
    """Seed of draws; None if there are none."""
    count: int | None = None
    """Number of trials, where they are proposed one after the other."""
    trials: tuple[Mapping[str, str], ...] = ()
    """Settings of each; of proposed ones, those so far."""
    began_with: int | None = None
    """The first number of trials, where there are more by now."""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Plan:
        own = {field.name: data[field.name] for field in fields(cls) if field.name in data}
        return cls(**own | {"over": tuple(data.get("over", ())), "trials": tuple(data["trials"])})

    def to_json(self) -> dict[str, Any]:
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        given |= {"over": list(self.over) or None, "trials": [dict(trial) for trial in self.trials]}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def num_trials(self) -> int:
        """Number of trials there will be."""
        return len(self.trials) if self.count is None else self.count

    def with_trial(self, differs: Mapping[str, str]) -> Plan:
        """The plan with one more trial, that was proposed."""
        return replace(self, trials=(*self.trials, differs))

    def grown_from(self, before: Plan, record: Path) -> Plan:
        """The plan that continues ``before``, that of the ``record``; `ViperError` if it does not."""
        first, now = before.num_trials, self.num_trials
        asked = self if self.count is None else replace(self, trials=before.trials)
        is_alike = asked._without_trials() == before._without_trials()
        if is_alike and now < first and all(trial in before.trials for trial in asked.trials):
            raise ViperError(
                f"{record}: has {first} trials, and {now} are asked for now; to continue with all of them, "
                "give --resume and --run-dir alone; for fewer, name another --run-dir"
            )
        if not is_alike or asked.trials[: len(before.trials)] != before.trials:
            raise ViperError(
                f"{record}: its trials are not the first of those asked for now; name another --run-dir"
            )
        return before if now == first else replace(asked, began_with=before.began_with or first)

    def _without_trials(self) -> Plan:
        # Of a grid the trials say all; it grows by values after those that were there.
        over = () if self.kind == "grid" else self.over
        return replace(self, over=over, count=None, trials=(), began_with=None)
