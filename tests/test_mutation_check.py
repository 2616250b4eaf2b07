"""Whether tests notice changes is tried on lines and with tests that are there."""

from __future__ import annotations

import pytest
from mutation_check import ALLOWED, MUTATIONS
from support import ROOT


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: f"{m.file}: {m.before.strip()}")
def test_the_line_and_its_tests_are_there(mutation):
    assert mutation.before in (ROOT / "viper_e2e" / mutation.file).read_text(encoding="utf-8")
    for name in mutation.tests.split():
        assert (ROOT / "tests" / f"test_{name}.py").is_file()


def test_almost_all_have_to_be_noticed():
    assert len(MUTATIONS) >= 40
    assert ALLOWED <= 2
