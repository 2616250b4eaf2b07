"""deadly_renderer.py: draws clips without torch; its process ends in one whose video is `dead…`."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from viper_e2e.report import RenderClip, partial_of


class DeadlyRenderClip(RenderClip):
    def __call__(self, job) -> Path:
        path = job[-1]
        if path.stem.startswith("dead"):
            partial_of(path).write_bytes(b"half a video")
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(job)
