"""Tests use the package as everybody does: by its public names, but for those listed here with their reason."""

from __future__ import annotations

import ast
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from support import ROOT

ALLOWED = {
    ("test_lora.py", "_exact"): "weights that are held twice show nowhere but in memory",
}
"""By file and name, each used once."""
OF_NAMED_TUPLES = {"_asdict", "_fields", "_make", "_replace"}
"""Public for all their underscore."""
PRIVATE = re.compile(r"(?<!\w)_[A-Za-z]\w*")


@cache
def private_names() -> set[str]:
    """Of functions, classes, attributes and variables of ours."""
    found = set()
    for folder in ("viper_e2e", "datasets", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef | ast.ClassDef):
                    found.add(node.name)
                elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                    found.add(node.attr)
                elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    found.add(node.id)
    return {name for name in found if PRIVATE.fullmatch(name)} - OF_NAMED_TUPLES


def of_self(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"


def private_names_in(text: str) -> list[str]:
    """Private names of ours that a test reads, replaces, imports, or names in a string."""
    nodes = list(ast.walk(ast.parse(text)))
    own = {node.attr for node in nodes if of_self(node) and isinstance(node.ctx, ast.Store)}
    own |= {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    found: list[str] = []
    for node in nodes:
        if isinstance(node, ast.Attribute) and not (of_self(node) and node.attr in own):
            found.append(node.attr)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("viper_e2e"):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            # A name for `setattr`, a path to one, or the code of another process.
            found += re.findall(rf"(?:^|(?<!self)\.)({PRIVATE.pattern})", node.value)
    return [name for name in found if name in private_names()]


@pytest.mark.parametrize(
    "text",
    [
        "Trainer._step(run, group)",
        "Trainer._step = other",
        "patch.setattr(Trainer, '_step', other)",
        "patch.setattr('viper_e2e.training.trainer.Trainer._step', other)",
        "from viper_e2e.training.trainer import _step",
        "code = 'import a; a._step = print'",
        "def other(self): return self._step()",
    ],
)
def test_a_private_name_is_found_however_it_is_used(text):
    assert private_names_in(text) == ["_step"]


@pytest.mark.parametrize(
    "text",
    [
        "output._replace(tokens=None)",
        "os._exit(3)",
        "class Own:\n    def __init__(self): self._step = 3\n    def step(self): return self._step",
        "class Own:\n    def _step(self): return self._step()",
        "'a file of that name: ._a.MTS'",
        "code = 'class Own: step = lambda self: self._step'",
    ],
)
def test_what_is_not_ours_is_nobodys_secret(text):
    assert private_names_in(text) == []


def test_tests_use_no_private_names_but_those_that_are_listed():
    paths = (path for path in Path(__file__).parent.rglob("*.py") if path != Path(__file__))
    used = Counter((path.name, name) for path in paths for name in private_names_in(path.read_text("utf-8")))
    assert used == dict.fromkeys(ALLOWED, 1), "test from outside, or give a public name to what deserves one"
