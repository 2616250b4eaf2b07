"""garbage.py: pauses Python's garbage collection while a command imports and loads its model."""

from __future__ import annotations

import atexit
import gc


def put_off_collecting() -> None:
    """Until `collect_again`. What modules and models are made of stays, and would be looked through again and
    again while it grows: about a sixth of the CPU time until the model is loaded
    (pairs of runs by hand)."""
    gc.disable()


def collect_again() -> None:
    gc.enable()


def end_without_collecting() -> None:
    """Python looks for cycles among all that was imported once more before it ends: two seconds for nothing."""
    atexit.unregister(gc.freeze)
    atexit.register(gc.freeze)
