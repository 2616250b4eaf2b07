"""killed_sweeps.py: a sweep from beginning to end, and others that are killed at random and go on."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path


def swept_with_kills(
    fork_server, command: Callable[[Path], list[str]], tmp_path: Path, *, kills: int, seed: int
) -> Iterator[Path]:
    """Sweep into ``tmp_path / "whole"``; then the folders of sweeps that so many kills have stopped."""
    whole = fork_server.fork("command", command(tmp_path / "whole"))
    began = time.monotonic()
    assert whole.wait() == 0, whole.said
    seconds = time.monotonic() - began
    generator, seen, number = random.Random(seed), 0, 0
    while seen < kills:
        number += 1
        folder = tmp_path / f"killed {number}"
        for attempt in count(1):
            resume = ["--resume"] if (folder / "config.yaml").exists() else []
            child = fork_server.fork("command", [*command(folder), *resume])
            # Each attempt is given more time: one that goes on may start more slowly than one that begins.
            time.sleep(generator.uniform(0.2, 0.8) * seconds * attempt)
            child.send(signal.SIGKILL)
            code = child.wait()
            seen += code != 0
            if code == 0:
                break
            assert code == -signal.SIGKILL, child.said
        yield folder
