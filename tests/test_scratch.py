"""A run writes to its own folder and nowhere else: not at home, not to temporary files, not by the shards."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT
from support.media import make_clip

from viper_e2e.packing import pack
from viper_e2e.tables import write_labels

pytestmark = pytest.mark.slow


def everything(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_run_writes_only_to_its_folder(tmp_path):
    rows = []
    (tmp_path / "videos").mkdir()
    for i, split in enumerate(("train", "train", "val", "val")):
        make_clip(tmp_path / "videos" / f"{i}.mp4", num_frames=4)
        rows.append({"File_ID": f"[{i}]", "Split": split, "Joy": i % 2, "Fear": 0.5 * (i // 2)})
    write_labels(tmp_path / "labels.csv", rows)
    assert pack(tmp_path / "videos", tmp_path / "labels.csv", tmp_path / "shards").exit_code == 0
    for name in ("home", "temporary", "here", "runs"):
        (tmp_path / name).mkdir()
    before = everything(tmp_path)
    places = {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "temporary")}
    shared = {name: value for name, value in os.environ.items() if name not in ("MPLCONFIGDIR", "HF_HOME")}
    command = [sys.executable, ROOT / "train.py", "--preset=micro", "--epochs=1", "--num-workers=1"]
    command += [f"--{split}-shards={tmp_path}/shards/{split}-*.tar" for split in ("train", "val")]
    command += [f"--run-dir={tmp_path}/runs/one"]
    done = subprocess.run(
        command, cwd=tmp_path / "here", env=shared | places, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    written = {name for name, changed in everything(tmp_path).items() if before.get(name) != changed}
    assert "runs/one/plots/predicted_against_true.png" in written, "something was drawn"
    assert {name for name in written if not name.startswith("runs")} == set()
