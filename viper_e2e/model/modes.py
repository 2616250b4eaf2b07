"""modes.py: a module in training or evaluation mode for a while, and then as it was before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def in_mode(module: nn.Module, *, training: bool) -> Iterator[None]:
    """Also what fails within leaves the module in its earlier mode."""
    was_training = module.training
    module.train(training)
    try:
        yield
    finally:
        module.train(was_training)
