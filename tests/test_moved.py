"""Modules answer to the names they had before, with a warning, and are the same modules; for three versions."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys

import pytest

from viper_e2e import __version__
from viper_e2e.moved import MOVED, REPLACED, SHOWN


@pytest.mark.parametrize("before", sorted(MOVED))
def test_every_former_name_leads_to_a_module_that_is_there(before):
    assert MOVED[before].now not in MOVED
    assert importlib.util.find_spec(MOVED[before].now) is not None


def test_former_names_are_deleted_in_the_third_minor_version_after_they_were_replaced():
    major, minor = map(int, __version__.split(".")[:2])
    for before, move in (MOVED | SHOWN).items():
        since = tuple(map(int, move.since.split(".")))
        assert (major, minor) <= (since[0], since[1] + 2), f"delete {before} from moved.py"


def test_a_module_is_one_under_both_names_and_says_where_it_is_now():
    sys.modules.pop("viper_e2e.fusion.outputs", None)
    with pytest.warns(DeprecationWarning, match=r"viper_e2e\.fusion\.outputs is viper_e2e\.fusion\.head now"):
        former = importlib.import_module("viper_e2e.fusion.outputs")
    from viper_e2e.fusion import head

    assert former is head
    assert head.__spec__.name == "viper_e2e.fusion.head"


@pytest.mark.parametrize("before", sorted(SHOWN))
def test_a_wing_gives_what_it_showed_before_and_says_who_shows_it_now(before):
    (wing, name), (wing_now, name_now) = (path.rsplit(".", 1) for path in (before, SHOWN[before].now))
    with pytest.warns(DeprecationWarning, match=re.escape(f"{before} is {SHOWN[before].now} now")):
        former = getattr(importlib.import_module(wing), name)
    assert former is getattr(importlib.import_module(wing_now), name_now)


@pytest.mark.parametrize("before", sorted(REPLACED))
def test_an_import_of_what_is_replaced_says_what_to_write(before):
    wing, name = before.rsplit(".", 1)
    with pytest.raises(ImportError, match=rf"^{re.escape(before)} is no longer there; write ") as caught:
        exec(f"from {wing} import {name}")
    wing_now, name_now = re.search(r"(viper_e2e\.\w+)\.(\w+)", str(caught.value).partition("write")[2]).groups()
    assert hasattr(importlib.import_module(wing_now), name_now)
    assert tuple(map(int, __version__.split(".")[:2])) <= (0, 8), f"delete {before} from moved.py"


@pytest.mark.slow
def test_scripts_of_before_run():
    lines = (
        "import viper_e2e.fusion.outputs",
        "from viper_e2e.fusion.outputs import FusionHead",
        "from viper_e2e.shards.kept_shards import ShardCache",
        "viper_e2e.fusion.outputs.FusionHead is FusionHead or exit(3)",
    )
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_never_was_is_not_found():
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("viper_e2e.fusion.nonsense")
