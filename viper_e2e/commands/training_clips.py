"""training_clips.py: whether a model is scored on clips that it was trained on, as far as its run shows."""

from __future__ import annotations

from pathlib import Path

from viper_e2e.model import ViPER, checkpoint
from viper_e2e.published import is_published
from viper_e2e.shards import ShardSet, parse_corpora
from viper_e2e.training import SavedRun


def run_of(folder: Path | None) -> Path | None:
    """The run that a checkpoint is of, if it still lies in its folder."""
    if folder is not None and folder.parent.name == "checkpoints":
        return folder.parent.parent
    return None


def own_folder(given: str) -> Path | None:
    """Folder of a checkpoint; None for one that is not ours to write into: of the hub, or as published."""
    place = Path(given)
    return checkpoint.folder_of(place).resolve() if place.is_dir() and not is_published(given) else None


class TrainingClips:
    """The clips that a model was trained on, told by content."""

    def __init__(self, model: ViPER, folder: Path | None):
        """``folder``: of its checkpoint, as of `own_folder`."""
        self._sha256 = ((model.provenance or {}).get("train") or {}).get("sha256")
        run = run_of(folder)
        self.saved = SavedRun.of(run) if run is not None else None
        """Its run, if that is still in its folder."""

    def are(self, shards: ShardSet) -> bool:
        """Whether they are the very clips of these shards."""
        return self._sha256 == shards.content_id()

    def num_shards_among(self, shards: ShardSet) -> int:
        """Number of these shards that were trained on, as far as is saved."""
        known = (self.saved.data.get("train") or {}).get("shards", []) if self.saved is not None else []
        trained = {row[2] for row in known}
        return sum(one in trained for one in shards.shard_ids())

    def opened(self) -> ShardSet:
        """The shards that they were in; `ViperError` where these cannot be read any more."""
        assert self.saved is not None, "looked at before"
        corpora = parse_corpora(str(self.saved.settings.get("train_shards", "")), "--train-shards")
        return ShardSet([pattern for corpus in corpora for pattern in corpus.patterns], strict=False)


def training_clips_among(model: ViPER, shards: ShardSet, given: str) -> str | None:
    """A warning for shards that a model was trained on; ``given``: its checkpoint."""
    flatter = "these scores flatter the model"
    training = TrainingClips(model, own_folder(given))
    if training.are(shards):
        return f"these are the clips that the model was trained on: {flatter}"
    num_shared, count = training.num_shards_among(shards), len(shards.shard_ids())
    return f"{num_shared} of {count} shards were trained on: {flatter}" if num_shared else None
