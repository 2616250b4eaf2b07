"""selection.py: which cases of a long table are tried every time."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest


def some_of(
    cases: Iterable, is_kept: Callable[[int, object], bool], name: Callable[[object], str] = str
) -> list:
    """Cases of a long table as parameters: all but those kept are left to `make campaign`."""
    return [
        pytest.param(case, id=name(case), marks=() if is_kept(index, case) else pytest.mark.campaign)
        for index, case in enumerate(cases)
    ]
