"""The names at the top of the package: there, documented, known to type checkers, and without a price."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import viper_e2e

TOP = Path(viper_e2e.__file__)
NAMES = sorted(set(viper_e2e.__all__) - {"__version__"})


@pytest.mark.parametrize("name", NAMES)
def test_each_has_a_docstring_and_is_what_its_module_calls_so(name):
    found = getattr(viper_e2e, name)
    assert found.__name__ == name
    assert inspect.getdoc(found), f"{name} says nothing of itself"
    assert f"`{name}`" in viper_e2e.__doc__, "the package's own docstring leaves it out"


def test_type_checkers_are_told_all_that_is_loaded_on_first_use():
    tree = ast.parse(TOP.with_suffix(".pyi").read_text(encoding="utf-8"))
    told = {alias.asname for node in tree.body for alias in node.names}
    assert told == set(viper_e2e.__all__)


def test_dir_lists_them_and_other_names_are_errors():
    assert set(viper_e2e.__all__) <= set(dir(viper_e2e))
    with pytest.raises(AttributeError, match="Vipr"):
        _ = viper_e2e.Vipr


def test_settings_errors_decoder_and_shards_cost_no_torch():
    code = (
        "import sys, viper_e2e as v\n"
        "v.ModelConfig, v.TrainConfig, v.ViperError, v.ClipError, v.ClipDecoder, v.ShardSet\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_package_says_that_it_is_typed():
    assert (TOP.parent / "py.typed").is_file()


def test_any_type_is_the_exception():
    lines = [
        line for path in TOP.parent.rglob("*.py") for line in path.read_text(encoding="utf-8").splitlines()
    ]
    assert sum(": Any" in line for line in lines) <= 15
    ignored = [line for line in lines if "type: ignore" in line]
    assert len(ignored) < 10
    assert all("type: ignore[" in line for line in ignored)
