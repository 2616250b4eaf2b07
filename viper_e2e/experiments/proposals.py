"""proposals.py: settings of the next trial as optuna proposes them from how the earlier ones came out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from viper_e2e.errors import ViperError
from viper_e2e.experiments.axes import Axis, check_count, drawn
from viper_e2e.experiments.trial_row import TrialRow

if TYPE_CHECKING:
    import optuna

NUM_STARTUP = 5
"""Trials that are drawn at random before any is proposed: however many there will be, so that a sweep may be
given more of them and continue."""
ATTEMPTS = 20
"""At a proposal that was not tried before."""


@dataclass(frozen=True)
class Proposals:
    """The trials of `viper sweep --optuna`, one after the other.

    What is proposed depends on nothing but the axes, the seed and the scores so far: each time a new study is
    given them and asked once. So a sweep continues from its own record, also with more trials than it
    began with, and nothing of optuna's is kept.
    """

    axes: Sequence[Axis]
    num_trials: int
    seed: int

    def __post_init__(self) -> None:
        if find_spec("optuna") is None:
            raise ViperError("--optuna: optuna is not installed; pip install 'optuna>=4'")
        check_count(self.axes, self.num_trials, "--optuna")

    def __call__(self, rows: Sequence[TrialRow]) -> dict[str, str]:
        """The next trial's settings. ``rows``: of all trials so far; what has no score counts as the worst that
        has one, and optuna learns which trials ``failed``."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        tried = [dict(row.settings) for row in rows]
        for attempt in range(ATTEMPTS):
            seed = np.random.SeedSequence([self.seed, len(rows), attempt]).generate_state(1)
            study = self._told(rows, int(seed[0]))
            proposed = study.ask(self._distributions()).params
            settings = {axis.name: axis.written(proposed[axis.name]) for axis in self.axes}
            if settings not in tried:
                return settings
        # It insists on what it knows: any other tells more.
        others = drawn(self.axes, len(rows) + 1, self.seed)
        return next((other for other in others if other not in tried), settings)

    def _told(self, rows: Sequence[TrialRow], seed: int) -> optuna.Study:
        import optuna

        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=NUM_STARTUP)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        worst = min((row.score for row in rows if row.score is not None), default=0.0)
        distributions = self._distributions()
        for row in rows:
            params = {axis.name: axis.read(row.settings[axis.name]) for axis in self.axes}
            how: dict[str, Any] = {"value": worst if row.score is None else row.score}
            if row.failed:
                how = {"state": optuna.trial.TrialState.FAIL}
            study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, **how))
        return study

    def _distributions(self) -> dict[str, optuna.distributions.BaseDistribution]:
        return {axis.name: _distribution(axis) for axis in self.axes}


def _distribution(axis: Axis) -> optuna.distributions.BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if axis.choices:
        return CategoricalDistribution(axis.choices)
    if axis.is_whole:
        return IntDistribution(*axis.whole_ends, log=axis.is_log)
    return FloatDistribution(axis.low, axis.high, log=axis.is_log)
