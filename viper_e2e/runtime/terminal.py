"""terminal.py: terminal output of all commands; a closed pipe (`| head`) stops nothing."""

from __future__ import annotations

import os

from rich.console import Console


class SteadyConsole(Console):
    """A console that falls silent when nobody reads it any more (``| head``), while the work continues.

    Rich's own ends the program then, with what has been computed and not yet been written.
    """

    def on_broken_pipe(self) -> None:
        self.quiet = True
        # Nothing more can be said there, also not by Python's own flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())
