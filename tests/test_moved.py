"""Modules answer to the names they had before, with a warning, and are the same modules."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from viper_e2e.moved import MOVED


@pytest.mark.parametrize("before", sorted(MOVED))
def test_every_former_name_leads_to_a_module_that_is_there(before):
    assert importlib.util.find_spec(MOVED[before]) is not None


def test_a_module_is_one_under_both_names_and_says_where_it_is_now():
    sys.modules.pop("viper_e2e.order", None)
    with pytest.warns(DeprecationWarning, match=r"viper_e2e\.order is viper_e2e\.loading\.order now"):
        former = importlib.import_module("viper_e2e.order")
    from viper_e2e.loading import order

    assert former is order
    assert order.__spec__.name == "viper_e2e.loading.order"


@pytest.mark.slow
def test_scripts_of_before_run():
    lines = (
        "import viper_e2e.engine.locks",
        "from viper_e2e.engine.locks import lock",
        "from viper_e2e.config import DecodingConfig, FaceConfig",
        "from viper_e2e.presets import micro",
        "from viper_e2e.cli import main",
        "viper_e2e.engine.locks.lock is lock or exit(3)",
    )
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_never_was_is_not_found():
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("viper_e2e.engine.nonsense")
