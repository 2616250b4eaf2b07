"""docs/architecture.md names files and functions that are there."""

from __future__ import annotations

import ast
import re
from itertools import pairwise

import pytest
from support import ROOT

TEXT = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
STOPS = re.findall(r"^\d\. `([\w/.]+)`(?: \(and its neighbours\))?, `([\w.]+)`", TEXT, re.MULTILINE)


def test_a_clip_meets_eight_files():
    assert len(STOPS) == 8


def test_from_the_script_to_the_loop_each_file_imports_the_next():
    (line,) = re.findall(r"^From the script to the loop .*?\. Then", TEXT, re.MULTILINE | re.DOTALL)
    files = re.findall(r"`([\w/]+\.py)`", line)
    assert len(files) == 5
    for file, following in pairwise(files):
        wing, module = following.removesuffix(".py").rsplit("/", 1)
        door = (ROOT / wing / "__init__.pyi").read_text(encoding="utf-8")
        wing = wing.replace("/", ".")
        shown = re.findall(rf"^from \.{module} import (\w+)", door, re.MULTILINE)
        asked = [f"from {wing}.{module} import", *(f"from {wing} import {name}" for name in shown)]
        text = (ROOT / file).read_text(encoding="utf-8")
        assert any(line in text for line in asked), (file, following)


@pytest.mark.parametrize(("file", "name"), STOPS)
def test_each_stop_is_where_it_is_said_to_be(file, name):
    owner, _, method = name.partition(".")
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    (found,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == owner]
    if method:
        assert method in {node.name for node in found.body if isinstance(node, ast.FunctionDef)}


def test_a_newcomer_is_sent_to_files_that_are_there():
    (table,) = re.findall(r"^## Where to change what$(.*?)^## ", TEXT, re.MULTILINE | re.DOTALL)
    rows = re.findall(r"^\| .* \| (.*`.*) \|$", table, re.MULTILINE)
    assert len(rows) == 9
    for row in rows:
        folder = None
        for name in re.findall(r"`([\w/]+(?:\.py|/))`", row):
            path = ROOT / name if "/" in name else folder / name
            assert path.exists(), name
            folder = path.parent


ELSEWHERE = {
    *("extract_audio_features.py", "confusion_matrix.py", "metricsTop.py", "model/post_process.py"),
    "cmu_mosei_std_folds.py",
}
"""Of the authors of what is cited."""


def test_files_that_the_package_names_are_there():
    folders = [ROOT / name for name in ("viper_e2e", "datasets", "benchmarks")]
    files = [*ROOT.glob("*.py"), *(file for folder in folders for file in folder.rglob("*.py"))]
    names = {file.name for file in files} | ELSEWHERE
    missing = {}
    for file in files:
        for name in re.findall(r"`([\w/]+\.py)`", file.read_text(encoding="utf-8")):
            if "/" in name and name not in ELSEWHERE:
                is_there = (ROOT / name).exists() or (ROOT / "viper_e2e" / name).exists()
            else:
                is_there = name in names
            if not is_there:
                missing[file.name] = name
    assert missing == {}
