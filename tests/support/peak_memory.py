"""peak_memory.py: the highest resident set of this process, and of it alone.

`ru_maxrss` is no such thing: a child inherits it from the process that started it, here from all of pytest.
"""

from __future__ import annotations

import re
from pathlib import Path


def peak_mib() -> float:
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


def forget_peak() -> None:
    """Let `peak_mib` count from here (proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")
