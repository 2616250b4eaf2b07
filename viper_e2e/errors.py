"""errors.py: errors that a person can act on, each with a one-line message; likely names; exit codes."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import Final, Literal


class ExitCode(IntEnum):
    """Exit codes of all commands; a command that a signal stopped exits with 128 + its number."""

    OK = 0
    NOTHING_DONE = 1
    """Also: a wrong option."""
    SOME_FAILED = 2
    STOPPED = 130
    """Stopped by Ctrl-C."""


class ViperError(ValueError):
    """Something given to us is wrong. The message names the file, what was found and the next step.

    Commands print the message on one line and exit; nothing else is caught there, so that a
    programming error keeps its traceback.
    """


def nearest(name: str, names: Iterable[str], *, likeness: float = 0.6) -> str | None:
    """The one of ``names`` that was probably meant. ``likeness``: at least this, from 0 to 1 (the same)."""
    import difflib  # needed for mistakes alone

    return next(iter(difflib.get_close_matches(name, list(names), n=1, cutoff=likeness)), None)


def did_you_mean(near: str | None) -> str:
    """``; did you mean visual?`` as the end of a message, the name as one types it; nothing for `None`."""
    return "" if near is None else f"; did you mean {shlex.quote(near)}?"


Stage = Literal["read", "unreachable", "words", "container", "decode", "sound", "cut", "worker", "quarantine"]
"""Where a clip fails: its bytes or their server, the words beside it, its file, its picture, its sound, a
stretch cut out of it; ``worker``: it ended or held up a process, ``quarantine``: it is left out for what it did
before."""
UNREACHABLE: Final = "unreachable"
"""The stage of a clip whose server or network failed: the same clip may well be had later."""


class ClipError(ViperError):
    """One clip cannot be used; others can."""

    def __init__(self, message: str, *, stage: Stage, clip: str = ""):
        super().__init__(f"{clip}: {message}" if clip else message)
        self.reason = message
        self.stage = stage
        self.clip = clip

    def __reduce__(self) -> tuple[Callable[[str, Stage, str], ClipError], tuple[str, Stage, str]]:
        # Exceptions with keyword arguments need this to cross a worker's process boundary.
        return _rebuild_clip_error, (self.reason, self.stage, self.clip)


def _rebuild_clip_error(message: str, stage: Stage, clip: str) -> ClipError:
    return ClipError(message, stage=stage, clip=clip)
