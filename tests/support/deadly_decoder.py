"""deadly_decoder.py: a real decoder whose process ends at clips that are called `dead…`; loads no torch."""

from __future__ import annotations

import os
import signal
from typing import Any

from viper_e2e.decoding import ClipDecoder


class DeadlyDecoder(ClipDecoder):
    def __call__(self, *given: Any, name: str = "", **named: Any) -> Any:
        _meet(name)
        return super().__call__(*given, name=name, **named)

    def windows(self, *given: Any, name: str = "", **named: Any) -> Any:
        _meet(name)
        return super().windows(*given, name=name, **named)


def _meet(name: str) -> None:
    if name.startswith("dead"):
        os.kill(os.getpid(), signal.SIGKILL)
