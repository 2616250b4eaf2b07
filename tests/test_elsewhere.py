"""Without what only Linux (or no Windows) has: every command but several processes; see `elsewhere/`."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from support import ROOT

COMMANDS = """
import sys
from pathlib import Path
from support import drafts
from viper_e2e.commands.cli import main

drafts.draw_drafts()
folder, videos = map(Path, sys.argv[1:])
shards, run = folder / "shards", folder / "run"

def viper(*words):
    assert main([str(word) for word in words]) == 0, words

viper("pack", "--videos", videos / "videos", "--labels", videos / "labels.csv", "--out", shards)
viper("check", "--shards", f"{shards}/*.tar")
train = ["train", "--preset", "micro", "--train-shards", f"{shards}/train-*.tar", "--run-dir", run]
train += ["--val-shards", f"{shards}/val-*.tar", "--batch-size", "4", "--max-steps"]
viper(*train, "1", "--num-workers", "0")
viper(*train, "2", "--num-workers", "1", "--resume")
model = run / "checkpoints" / "last"
viper("eval", "--checkpoint", model, "--shards", f"{shards}/val-*.tar", "--out", folder / "scores")
viper("infer", videos / "videos" / "8.mp4", "--checkpoint", model, "--output", folder / "out.json",
      "--window-seconds", "0.5")
"""


def elsewhere(*words: object) -> subprocess.CompletedProcess:
    path = os.pathsep.join([str(ROOT / "tests" / "elsewhere"), str(ROOT), str(ROOT / "tests")])
    return subprocess.run(
        [sys.executable, *map(str, words)],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_what_is_taken_away_is_gone():
    ours = """
import os, signal
assert not hasattr(os, "pread") and not hasattr(os, "O_DIRECTORY") and not hasattr(signal, "SIGUSR1")
try:
    os.open("/", os.O_RDONLY)
    raise SystemExit("a folder was opened")
except PermissionError:
    pass
try:
    import fcntl
    raise SystemExit("fcntl")
except ImportError:
    pass
"""
    code = f"""
import multiprocessing, os
assert "forkserver" not in multiprocessing.get_all_start_methods() and hasattr(os, "pread")
exec({ours!r}, {{"__name__": "viper_e2e.any"}})
"""
    done = elsewhere("-c", code)
    assert done.returncode == 0, done.stderr


@pytest.mark.campaign
def test_every_command_runs(corpus, tmp_path):
    script = tmp_path / "commands.py"
    script.write_text(COMMANDS)
    done = elsewhere(script, tmp_path, corpus)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_results_of_any_size_come_through_a_pipe():
    code = """
import numpy as np
from support.loader_fakes import Task
from viper_e2e.loading import handover
from viper_e2e.loading.workers import WorkerPool

if __name__ == "__main__":
    assert not handover.can_send_handles()
    pool = WorkerPool(Task(), 2)
    for size in (0, 10, 1 << 20, 5_000_000, 70_000_000):
        array = pool.outcome(pool.submit(Task.number(f"array {size}"), ""))
        assert np.array_equal(array, np.arange(size, dtype=np.uint8)) and array.flags.writeable
    assert pool.outcome(pool.submit(Task.number("exit 3"), "")).reason == "exited with code 3"
    pool.close()
"""
    done = elsewhere("-c", code)
    assert done.returncode == 0, done.stderr
