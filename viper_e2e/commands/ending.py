"""ending.py: ends the process of a command without taking it apart, once all that tidies up has done so."""

from __future__ import annotations

import atexit
import os
import sys


class EndAtOnce:
    """End the process with ``code``, once set, as soon as Python has called what is registered.

    Python would then free what torch and transformers are made of, object by object, which takes a quarter of a
    second; mypy ends in the same way. Made before anything else registers: Python calls the first last.
    """

    def __init__(self) -> None:
        self.code: int | None = None
        """None: the command has raised, and Python says so and ends as always."""
        atexit.register(self._end)

    def _end(self) -> None:
        if self.code is None:
            return
        try:
            for stream in filter(None, (sys.stdout, sys.stderr)):
                stream.flush()
        except (OSError, ValueError):  # nobody reads it, or it is closed: Python has its own way of ending then
            return
        os._exit(self.code)
