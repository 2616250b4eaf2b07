"""packing/media_worker.py: opens media while clips are packed, in a process that a file may crash or hang."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from viper_e2e.errors import ClipError
from viper_e2e.loading import TIME_LIMIT_SECONDS, WorkerLost, WorkerPool

T = TypeVar("T")

SLOWEST_BYTES_PER_SECOND = 1_000_000
"""A film keeps its worker as long as reading it from a slow disk takes, and the limit of a clip besides."""


class MediaWorker:
    """Calls picklable functions in a process of its own, which is started at the first call."""

    def __init__(self) -> None:
        self._pool: WorkerPool | None = None

    def __call__(self, name: str, num_bytes: int, function: Callable[..., T], *args: object) -> T:
        """``function(*args)``, which opens media of this name; `ClipError` where that ends the process."""
        pool = self._pool = self._pool or WorkerPool(_call, 1)
        pool.time_limit_seconds = TIME_LIMIT_SECONDS + num_bytes / SLOWEST_BYTES_PER_SECOND
        outcome: T | WorkerLost = pool.outcome(pool.submit((function, args), name))
        if isinstance(outcome, WorkerLost):
            raise ClipError(f"left out: {outcome.reason}", stage="worker", clip=name)
        return outcome

    @property
    def is_running(self) -> bool:
        """Whether there is a process."""
        return self._pool is not None

    def on_file(self, path: Path, function: Callable[..., T], *args: object) -> T:
        """The same of a file."""
        return self(str(path), path.stat().st_size if path.is_file() else 0, function, *args)

    def close(self) -> None:
        """End the process; the next call starts another."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None


in_worker = MediaWorker()
"""The worker of this process; `pack` ends it."""


def _call(job: tuple[Callable[..., Any], tuple]) -> Any:
    function, args = job
    return function(*args)
