"""py_feat.py: whole frames -> action units by py-feat, in a process of its own, which may crash."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from viper_e2e.encoders.py_feat_child import MeasureFrames
from viper_e2e.errors import ViperError
from viper_e2e.loading import TIME_LIMIT_SECONDS, WorkerError, WorkerLost, WorkerPool
from viper_e2e.shards import ACTION_UNITS, FACIAL_EMOTIONS, unit_name

START_SECONDS = 1800.0
"""After which py-feat is taken to hang at its start, the first of which downloads its weights."""

TIMES_DECODING = 2.0
"""Looking at every frame of a clip takes longer than decoding it: its limit is so many times that of a clip."""

MAX_DEATHS = 3
"""Deaths in a row: a process that dies of every clip is not started for each of thousands."""


class NotMeasured(Exception):
    """Why there are no action units, in one line. ``for_good``: nor will there be for any other clip."""

    def __init__(self, reason: str, *, for_good: bool = False):
        super().__init__(" ".join(reason.split())[:300])
        self.for_good = for_good


class PyFeat:
    """Measures with py-feat's own face detector, as the published scripts did.

    In a worker of its own: py-feat sets threads, prints, and loads OpenMP and XGBoost libraries that do not go
    well with others in one process. It is started at the first clip and ends with this object.
    """

    def __init__(self, device: str = "cpu", clip_timeout_seconds: float = TIME_LIMIT_SECONDS):
        self.device, self.clip_timeout_seconds = device, clip_timeout_seconds
        self._pool: WorkerPool | None = None
        self._deaths = 0

    def __reduce__(self) -> tuple[type[PyFeat], tuple[str, float]]:
        # A copy of a model starts a worker of its own.
        return PyFeat, (self.device, self.clip_timeout_seconds)

    def __call__(self, frames: UInt8[np.ndarray, "N H W 3"]) -> Float32[np.ndarray, "N 27"]:
        """A row per frame in the published order; NaN where py-feat found no face. Raises `NotMeasured`."""
        pool = self._pool or self._start()
        pool.time_limit_seconds = TIMES_DECODING * self.clip_timeout_seconds
        columns, rows = self._ask(pool, frames)
        self._deaths = 0
        return _in_published_order(columns, rows)

    def close(self) -> None:
        """End the worker; the next call starts another."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def __del__(self) -> None:
        self.close()

    def _start(self) -> WorkerPool:
        if find_spec("feat") is None:
            raise NotMeasured(
                "py-feat is not installed; pip install 'py-feat>=2,<3' measures them", for_good=True
            )
        # How often it may die is counted here: only deaths in a row count.
        pool = self._pool = WorkerPool(
            MeasureFrames(self.device),
            1,
            time_limit_seconds=START_SECONDS,
            max_restarts=sys.maxsize,
            num_threads=None,
        )
        try:
            self._ask(pool, None)
        except NotMeasured as error:
            self.close()
            raise NotMeasured(f"are py-feat's weights at hand? {error}", for_good=True) from None
        return pool

    def _ask(self, pool: WorkerPool, frames: UInt8[np.ndarray, "N H W 3"] | None) -> Any:
        """The worker's answer to frames; to None, that it is ready."""
        try:
            outcome = pool.outcome(pool.submit(frames, "py-feat"))
        except WorkerError as error:
            raise self._failed(f"py-feat failed ({str(error).strip().rpartition(chr(10))[2]})") from None
        except ViperError as error:  # no worker comes up
            raise NotMeasured(str(error), for_good=True) from None
        if isinstance(outcome, WorkerLost):
            raise self._failed(f"py-feat's process was lost ({outcome.reason})")
        return outcome

    def _failed(self, reason: str) -> NotMeasured:
        self._deaths += 1
        return NotMeasured(reason, for_good=self._deaths >= MAX_DEATHS)


def _in_published_order(columns: list[str], rows: Float32[np.ndarray, "N C"]) -> Float32[np.ndarray, "N 27"]:
    """Columns found by name: versions of py-feat list them in other orders, and with others among them."""
    names = [unit_name(column) for column in columns]
    missing = [name for name in (*ACTION_UNITS, *FACIAL_EMOTIONS) if name not in names]
    if missing:
        raise NotMeasured(
            f"this version of py-feat gives no {', '.join(missing)}; install py-feat 2", for_good=True
        )
    return rows[:, [names.index(name) for name in (*ACTION_UNITS, *FACIAL_EMOTIONS)]]
