"""published: the authors' released checkpoints, read without running them -> our folder format."""

from __future__ import annotations

from viper_e2e.published.importing import (
    FILES,
    Imported,
    approximations,
    import_published,
    is_published,
    published_checkpoint,
)
from viper_e2e.published.released import MODALITIES_OF_WIDTH, ReleasedHead, read_released

__all__ = [
    "FILES",
    "MODALITIES_OF_WIDTH",
    "Imported",
    "ReleasedHead",
    "approximations",
    "import_published",
    "is_published",
    "published_checkpoint",
    "read_released",
]
