"""The wheel holds the package and all it needs, `datasets` never, and runs where nothing else of ours is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
import torch
from support import ROOT
from support.media import make_clip

from viper_e2e.config.presets import micro
from viper_e2e.model.viper import ViPER


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    # From a copy: building leaves files in the tree it builds from.
    tree = tmp_path_factory.mktemp("tree") / "source"
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in tracked.splitlines():
        if name.startswith(("viper_e2e/", "datasets/")) or "/" not in name:
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(tree)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def empty(wheel, tmp_path_factory) -> Path:
    """A new environment: the wheel, and the packages it depends on as installed for these tests."""
    folder = tmp_path_factory.mktemp("empty")
    venv.create(folder, with_pip=True, symlinks=True)
    python = folder / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(install, check=True, timeout=300)
    site = Path(
        subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    )
    # A path in a .pth file is searched last, and .pth files inside it (the editable install) are not read.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"viper_e2e"}
    tracked = subprocess.run(
        ["git", "ls-files", "viper_e2e"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert {name for name in names if name.startswith("viper_e2e/")} == set(tracked.splitlines())


@pytest.mark.campaign
def test_it_runs_in_an_environment_of_its_own(empty, tmp_path):
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*words: object) -> str:
        done = subprocess.run(
            list(map(str, words)), cwd=tmp_path, env=own, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    viper, python = empty / "bin" / "viper", empty / "bin" / "python"
    assert str(empty) in run(python, "-c", "import viper_e2e; print(viper_e2e.__file__)")
    assert "import-published" in run(viper, "--help")
    torch.manual_seed(0)
    ViPER(micro()).save_pretrained(tmp_path / "model")
    make_clip(tmp_path / "clip.mp4")
    run(viper, "infer", "clip.mp4", "--checkpoint", "model", "--output", "out.json")
    (record,) = json.loads((tmp_path / "out.json").read_text())
    assert record["valid"]
    assert len(record["intensities"]) == 7
