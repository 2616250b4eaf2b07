"""our_shards.py: small shards as our own writer makes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from viper_e2e.labels import LabelSet
from viper_e2e.shards import (
    ShardWriter,
    action_units_to_npy,
)

LABELS = LabelSet(("Adoration", "Empathic-Pain"))


def write_ours(
    folder: Path, num_samples: int = 3, *, split: str = "train", shard_size: int = 10**9, first: int = 0
):
    """Shards of our own; sample n has n-dependent bytes, the middle one sound and action units."""
    folder.mkdir(parents=True, exist_ok=True)
    with ShardWriter(folder, split, LABELS, shard_size=shard_size) as writer:
        for n in range(first, first + num_samples):
            members = {"mp4": f"video {n} ".encode() * 100}
            if n % 3 == 1:
                members |= {"wav": b"RIFF" * 50, "fau.npy": action_units_to_npy(np.full((4, 27), n))}
            values = None if n % 3 == 2 else (0.25, n / 1000)
            writer.add(f"{n:05d}", members, file_id=f"[{n:05d}]", intensities=values, subject=f"s{n % 2}")
    return sorted(str(path) for path in folder.glob(f"{split}-*.tar"))
