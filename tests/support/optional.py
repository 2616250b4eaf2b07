"""optional.py: what some tests need and not every machine has: skipped without it, unless it is required."""

from __future__ import annotations

import importlib
import os
from types import ModuleType

import pytest
import torch

needs_cuda = pytest.mark.skipif(
    not torch.cuda.is_available() and os.environ.get("VIPER_REQUIRE_CUDA") != "1",
    reason="needs a GPU (VIPER_REQUIRE_CUDA=1 makes its absence a failure)",
)


def package(name: str) -> ModuleType:
    """An optional package; ``VIPER_REQUIRE_BACKENDS=1`` makes its absence a failure."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        do_without(f"{name} cannot be imported: {error}")
        raise


def do_without(reason: object) -> None:
    """Skip the test, or fail it where everything optional has to be there."""
    if os.environ.get("VIPER_REQUIRE_BACKENDS") == "1":
        pytest.fail(str(reason))
    pytest.skip(str(reason), allow_module_level=True)
