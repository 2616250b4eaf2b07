"""Fresh environments are made in CI exactly where setup.cfg asks for what has not been seen to pass."""

from __future__ import annotations

import subprocess
import sys

import environments
import pytest
from support import ROOT

REQUIRED = "python_requires = >=3.11\ninstall_requires =\n    av>=17\n    PyYAML==6.0.1\n"
SETUP = f"[metadata]\nname = x\n[options]\n{REQUIRED}"


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Of a package that has passed."""
    (tmp_path / "setup.cfg").write_text(SETUP)
    monkeypatch.setattr(environments, "ROOT", tmp_path)
    monkeypatch.setattr(environments, "PASSED", tmp_path / "passed.txt")
    environments.note_passed("oldest", "3.11")
    environments.note_passed("newest", "3.13")
    return tmp_path


def test_what_has_passed_is_not_tried_again_and_other_words_change_nothing(tree):
    assert environments.main(["changed"]) == 1
    (tree / "setup.cfg").write_text(SETUP.replace("name = x", "name = y") + "# a comment\n")
    assert environments.main(["changed"]) == 1


@pytest.mark.parametrize("other", [("av>=17", "av>=18"), (">=3.11", ">=3.12"), ("    av>=17\n", "")], ids=str)
def test_other_requirements_are_tried_until_both_ends_pass(tree, other):
    (tree / "setup.cfg").write_text(SETUP.replace(*other))
    assert environments.main(["changed"]) == 0
    environments.note_passed("newest", "3.13")
    assert environments.main(["changed"]) == 0
    environments.note_passed("oldest", "3.11")
    assert environments.main(["changed"]) == 1


def test_where_nothing_is_known_all_is_tried(tree):
    environments.PASSED.unlink()
    assert environments.main(["changed"]) == 0


def test_only_what_passes_is_noted(tree, monkeypatch):
    environments.PASSED.unlink()
    monkeypatch.setattr(environments, "interpreters", lambda versions: {v: v for v in versions})

    def newest(python):
        if python == "3.12":
            raise environments.Failed("no")

    monkeypatch.setattr(environments, "newest", newest)
    monkeypatch.setattr(environments, "oldest", lambda python: None)
    assert environments.main(["newest", "oldest"]) == 1
    noted = [line.split()[:2] for line in environments.PASSED.read_text().splitlines()]
    assert noted == [["newest", "3.11"], ["newest", "3.13"], ["oldest", "3.11"]]
    assert not environments.changed()


def test_lower_bounds_are_those_of_setup_cfg(tree):
    assert environments.lower_bounds() == ["av==17", "PyYAML==6.0.1"]


def test_what_runs_there_needs_nothing_but_what_is_installed_there():
    tools = ["pytest", "jaxtyping", "beartype", "torch"]
    code = f"import sys; sys.modules.update(dict.fromkeys({tools})); sys.path.insert(0, 'tests'); import smoke"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
