"""saved_scores.py: results of an evaluation or a cross-validation, read back from its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from viper_e2e.errors import ViperError
from viper_e2e.labels import LabelSet
from viper_e2e.model import Predictions

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
    if not path.is_file():
        raise ViperError(f"{path}: missing; beside {predictions.name} it says what the columns are")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return LabelSet.from_json(record["labels"]) if "labels" in record else _labels_of_before(record, path)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ViperError(f"{path}: damaged ({type(error).__name__}: {error}); evaluate again") from error


def _labels_of_before(record: dict[str, Any], path: Path) -> LabelSet:
    """Labels as a version wrote them that kept the names of emotions alone."""
    if record.get("tasks"):
        raise ViperError(
            f"{path}: of an earlier version, which did not save the labels of tasks; evaluate again"
        )
    return LabelSet(tuple(record["pearson"]))
