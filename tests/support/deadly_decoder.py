"""deadly_decoder.py: real decoders and cutters whose process ends at clips called `dead…`; loads no torch."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from viper_e2e.cutting import Stretch, cut
from viper_e2e.decoding import ClipDecoder
from viper_e2e.packing.segments import look_into


class DeadlyDecoder(ClipDecoder):
    def __call__(self, *given: Any, name: str = "", **named: Any) -> Any:
        _meet(name)
        return super().__call__(*given, name=name, **named)

    def windows(self, *given: Any, name: str = "", **named: Any) -> Any:
        _meet(name)
        return super().windows(*given, name=name, **named)


def deadly_look(video: Path, *given: Any) -> Any:
    _meet(video.name)
    return look_into(video, *given)


def deadly_cut(stretch: Stretch, *given: Any) -> Any:
    if stretch.start_seconds == 1.0:
        _meet("dead")
    return cut(stretch, *given)


def _meet(name: str) -> None:
    if name.startswith("dead"):
        os.kill(os.getpid(), signal.SIGKILL)
