"""training_clips.py: whether a model is scored on clips that it was trained on, as far as its run shows."""

from __future__ import annotations

from pathlib import Path

from viper_e2e.model import ViPER, checkpoint
from viper_e2e.published import is_published
from viper_e2e.shards import ShardSet
from viper_e2e.training import SavedRun


def run_of(folder: Path | None) -> Path | None:
    """The run that a checkpoint is of, if it still lies in its folder."""
    if folder is not None and folder.parent.name == "checkpoints":
        return folder.parent.parent
    return None


def training_clips_among(model: ViPER, shards: ShardSet, given: str) -> str | None:
    """A warning for shards that a model was trained on, known by content; ``given``: its checkpoint."""
    flatter = "these scores flatter the model"
    provenance = model.provenance or {}
    if (provenance.get("train") or {}).get("sha256") == shards.content_id():
        return f"these are the clips that the model was trained on: {flatter}"
    place = Path(given)
    if not place.is_dir() or is_published(given):
        return None
    run = run_of(checkpoint.folder_of(place).resolve())
    saved = SavedRun.of(run) if run is not None else None
    if saved is None:
        return None
    trained = {row[2] for row in (saved.data.get("train") or {}).get("shards", [])}
    own = shards.shard_ids()
    num_shared = sum(one in trained for one in own)
    return f"{num_shared} of {len(own)} shards were trained on: {flatter}" if num_shared else None
