"""A run folder belongs to one living process, and is never overwritten by accident."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import yaml

from viper_e2e.errors import ViperError
from viper_e2e.training.run_folder import RunFolder

HOLD = """
import sys
from pathlib import Path
from viper_e2e.training.run_folder import RunFolder
run = RunFolder(Path(sys.argv[1]), resume=False)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_folder_that_holds_a_run_is_not_overwritten(tmp_path):
    run = RunFolder(tmp_path / "run", resume=False)
    run.write_settings({"lr": 0.1})
    run.release()
    with pytest.raises(ViperError, match="--resume"):
        RunFolder(tmp_path / "run", resume=False)
    RunFolder(tmp_path / "run", resume=True).release()


def test_resuming_where_nothing_is_tells_so(tmp_path):
    with pytest.raises(ViperError, match="nothing to resume"):
        RunFolder(tmp_path / "run", resume=True)


def test_a_second_process_is_stopped_and_told_the_first_and_a_dead_ones_lock_is_free(tmp_path):
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert first.stdout.readline() == "held\n"
        with pytest.raises(ViperError, match=f"process {first.pid} on"):
            RunFolder(tmp_path / "run", resume=False)
    finally:
        first.kill()
        first.communicate()
    RunFolder(tmp_path / "run", resume=False).release()


def test_further_processes_of_a_run_take_no_lock(tmp_path):
    owner = RunFolder(tmp_path / "run", resume=False)
    helper = RunFolder(tmp_path / "run", resume=False, owner=False)
    helper.log("skipped.jsonl", {"key": "a"})
    owner.log("skipped.jsonl", {"key": "b"})
    lines = (tmp_path / "run" / "skipped.jsonl").read_text().splitlines()
    assert [json.loads(line)["key"] for line in lines] == ["a", "b"]
    owner.release()


def test_settings_and_versions_are_written(tmp_path):
    run = RunFolder(tmp_path / "run", resume=False)
    run.write_settings({"lr": 0.1, "model": {"modalities": ["visual"]}})
    assert yaml.safe_load((run.path / "config.yaml").read_text())["model"] == {"modalities": ["visual"]}
    assert json.loads((run.path / "versions.json").read_text())["torch"].startswith("2.")
    run.release()
