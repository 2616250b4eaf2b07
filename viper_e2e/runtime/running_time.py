"""running_time.py: a clock that pauses while this process is stopped, so that no deadline passes meanwhile."""

from __future__ import annotations

import threading
import time

TICK_SECONDS = 0.2
LONGEST_GAP_SECONDS = 0.6
"""Between two ticks; what is above it this process did not run: SIGSTOP, a suspended job, a laptop asleep."""


class RunningTime:
    """Seconds that this process has been running since the clock was made, as far as a thread has felt them.

    A process that is stopped with its group does not see its workers stop; once it continues, a monotonic clock
    says that they took minutes for a clip.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._elapsed, self._felt_at = 0.0, time.monotonic()
        self._ended = threading.Event()
        threading.Thread(target=_tick, args=(self, self._ended), name="viper-running-time", daemon=True).start()

    def __call__(self) -> float:
        with self._lock:
            now = time.monotonic()
            self._elapsed += min(now - self._felt_at, LONGEST_GAP_SECONDS)
            self._felt_at = now
            return self._elapsed

    def end(self) -> None:
        """Let the thread go; the clock can still be read."""
        self._ended.set()


def _tick(clock: RunningTime, ended: threading.Event) -> None:
    while not ended.wait(TICK_SECONDS):
        clock()
