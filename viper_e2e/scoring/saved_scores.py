"""saved_scores.py: results of an evaluation or a cross-validation, read back from its folder."""

from __future__ import annotations

from pathlib import Path

from viper_e2e.errors import ViperError
from viper_e2e.labels import LabelSet
from viper_e2e.model import Predictions
from viper_e2e.runtime import plain_json

PREDICTIONS, METRICS = "predictions.csv", "metrics.json"


def read_scored(named: str) -> Predictions:
    """Predictions of a folder of `viper eval` or `viper cv`, or of a ``predictions.csv`` of theirs, or of a run
    that was evaluated into its folder ``eval``. `ViperError` that says what to do for anything else."""
    path = Path(named)
    places = [path] if path.is_file() else [path / PREDICTIONS, path / "eval" / PREDICTIONS]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        if (path / "checkpoints").is_dir():
            model = path / "checkpoints" / ("best" if (path / "checkpoints/best").is_dir() else "last")
            how = f"viper eval --checkpoint {model} --shards SHARDS --out {path / 'eval'}"
            raise ViperError(f"{named}: a run without predictions; score the clips to compare on first: {how}")
        if of_seeds := sorted(path.glob(f"seed-*/{PREDICTIONS}")):
            raise ViperError(f"{named}: holds a cross-validation for each seed; name one: {of_seeds[0].parent}")
        raise ViperError(f"{named}: no {PREDICTIONS} there; name a folder of viper eval or viper cv")
    return Predictions.read_csv(found, _labels_beside(found))


def _labels_beside(predictions: Path) -> LabelSet:
    path = predictions.with_name(METRICS)
    if not path.exists():
        raise ViperError(f"{path}: missing; beside {predictions.name} it says what the columns are")
    record = plain_json.read_object(path, max_bytes=plain_json.MAX_BYTES_BY_CLIP, advice="evaluate again")
    if "labels" not in record and record.get("tasks"):
        raise ViperError(
            f"{path}: of an earlier version, which did not save the labels of tasks; evaluate again"
        )
    # Versions before that one wrote the names of emotions alone, as those of their scores.
    scores = record.get("pearson")
    names = list(scores) if isinstance(scores, dict) else None
    of_before = {"columns": names, "minimum": 0.0, "maximum": 1.0}
    try:
        return LabelSet.from_json(record.get("labels", of_before))
    except ValueError as error:
        raise ViperError(f"{path}: labels are not understood ({error}); evaluate again") from error
