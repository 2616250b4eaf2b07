"""second_decoding.py: frames of clips decoded again, larger, in processes that a clip may crash or hang."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from viper_e2e.clip import FrameSource
from viper_e2e.config import DecodingConfig
from viper_e2e.decoding import close_up
from viper_e2e.errors import ClipError
from viper_e2e.loading.stream import Reading
from viper_e2e.loading.worker_process import WorkerLost
from viper_e2e.loading.workers import WorkerPool

MOST_AT_ONCE = 8
"""Clips that are decoded again at the same time: they are those of one batch."""


class CloseUpJob(NamedTuple):
    """The arguments of `close_up`."""

    config: DecodingConfig
    frames: FrameSource
    windows: dict[int, tuple[int, int, int, int]]
    max_side: int
    name: str


@dataclass
class _Asked:
    """A clip on its way."""

    job: CloseUpJob
    ticket: int = -1
    outcome: np.ndarray | ClipError | None = None


class SecondDecoding:
    """Begins `close_up` for the clips of a batch, one after the other; of each its pixels are asked for.

    In workers beside those that decode first, started at the first clip and ended with this object; with
    ``reading.num_workers`` 0 in threads of this process, where nothing guards against a crash.
    """

    def __init__(self, reading: Reading):
        self.reading = reading
        self._pool: WorkerPool | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._waiting: deque[_Asked] = deque()
        self._begun: deque[_Asked] = deque()

    def __reduce__(self) -> tuple[type[SecondDecoding], tuple[Reading]]:
        # A copy of a model starts workers of its own.
        return SecondDecoding, (self.reading,)

    def begin(self, job: CloseUpJob) -> Callable[[], np.ndarray]:
        """Start a job; the function returned waits for the pixels. `ClipError` if there are none."""
        if not self.reading.num_workers:
            count = min(MOST_AT_ONCE, os.cpu_count() or 1)
            self._threads = self._threads or ThreadPoolExecutor(count, "viper-close-up")
            return self._threads.submit(close_up_of, job).result
        asked = _Asked(job)
        self._waiting.append(asked)
        self._hand_out()
        return partial(self._pixels, asked)

    def end(self) -> None:
        """End all that was begun and not asked for."""
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
            self._threads = None
        if self._begun and self._pool is not None:
            self._pool.close()
            self._pool = None
        self._begun.clear()
        self._waiting.clear()

    def _hand_out(self) -> None:
        """At most one clip a worker: clips come as bytes, and a pipe to a process that is busy, or hangs, would
        hold up this one."""
        count = min(self.reading.num_workers, MOST_AT_ONCE)
        while self._waiting and len(self._begun) < count:
            asked = self._waiting.popleft()
            if self._pool is None:
                self._pool = WorkerPool(
                    close_up_of,
                    count,
                    time_limit_seconds=self.reading.clip_timeout_seconds,
                    max_restarts=self.reading.max_restarts,
                )
            asked.ticket = self._pool.submit(asked.job, asked.job.name)
            self._begun.append(asked)

    def _pixels(self, asked: _Asked) -> np.ndarray:
        while asked.outcome is None:
            first = self._begun[0]
            first.outcome = self._outcome(first)
            self._begun.popleft()
            self._hand_out()
        if isinstance(asked.outcome, ClipError):
            raise asked.outcome
        return asked.outcome

    def _outcome(self, asked: _Asked) -> np.ndarray | ClipError:
        assert self._pool is not None, "it was handed out"
        try:
            outcome = self._pool.outcome(asked.ticket)
        except ClipError as error:
            return error
        if isinstance(outcome, WorkerLost):
            told = f"decoding it again for its small face failed: {outcome.reason}"
            return ClipError(told, stage="worker", clip=asked.job.name)
        return outcome


def close_up_of(job: CloseUpJob) -> np.ndarray:
    """`close_up`, as a worker's task."""
    return close_up(*job)
