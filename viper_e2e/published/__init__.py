"""published: the authors' released checkpoints, read without running them -> our folder format."""

from __future__ import annotations

from .released import MODALITIES_OF_WIDTH, ReleasedHead, read_released

__all__ = ["MODALITIES_OF_WIDTH", "ReleasedHead", "read_released"]
