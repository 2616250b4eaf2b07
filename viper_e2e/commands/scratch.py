"""scratch.py: keeps temporary files of libraries in memory instead of on disk."""

from __future__ import annotations

import atexit
import os
from pathlib import Path

MEMORY = Path("/dev/shm")


def keep_scratch_in_memory() -> None:
    """Send temporary files and Matplotlib's font cache to shared memory, where there is one.

    A run then writes to its own folder alone. To be called before anything asks where temporary files go.
    """
    if not os.access(MEMORY, os.W_OK):
        return
    import tempfile

    tempfile.tempdir = str(MEMORY)
    if "MPLCONFIGDIR" not in os.environ:
        folder = tempfile.mkdtemp(prefix="viper-matplotlib-")
        os.environ["MPLCONFIGDIR"] = folder
        atexit.register(_remove, folder, os.getpid())


def _remove(folder: str, owner: int) -> None:
    import shutil

    if os.getpid() == owner:  # forked workers leave it to us
        shutil.rmtree(folder, ignore_errors=True)
