"""terminal_encoding.py: replaces characters that a terminal without UTF-8 cannot print, as under cron."""

from __future__ import annotations

import codecs
import io
import sys

_INSTEAD = {**dict.fromkeys("▏▎▍▌▋▊▉█━╸╺", "#"), "·": ".", "–": "-", "−": "-", "…": "~", "×": "x", "’": "'"}
"""Substitutes for letters that a terminal cannot show."""


def tolerate_terminal_encodings() -> None:
    """Let a terminal that is not UTF-8 (cron, old containers) show what it can instead of ending a run."""

    def replaced(error: UnicodeError) -> tuple[str, int]:
        if not isinstance(error, UnicodeEncodeError):
            raise error
        return "".join(_INSTEAD.get(c, "?") for c in error.object[error.start : error.end]), error.end

    codecs.register_error("viper_plain", replaced)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="viper_plain")
