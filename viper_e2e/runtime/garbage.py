"""garbage.py: pauses Python's garbage collection while a command imports its libraries and makes its model."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collecting() -> Iterator[None]:
    """Pause garbage collection while objects that stay are made. They would be scanned again and again as they
    grow, which is a sixth of the CPU time until a model is loaded (pairs of runs by hand)."""
    if not gc.isenabled():  # within another such block, or because the process wants it so
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        # There and back, all of it comes into the oldest generation unseen. Left in the youngest, it would be
        # looked through at once: a quarter of a second. What the process itself has frozen would come back too,
        # and every later search would take the longer.
        if not gc.get_freeze_count():
            gc.freeze()
            gc.unfreeze()
        gc.enable()


def end_without_collecting() -> None:
    """Python looks for cycles among all that was imported once more before it ends: two seconds for nothing."""
    atexit.unregister(gc.freeze)
    atexit.register(gc.freeze)
