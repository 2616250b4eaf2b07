"""labels_json.py: labels of a model as its checkpoint's config.json has them, with their scale and tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from viper_e2e.labels import LabelSet
from viper_e2e.model.checkpoint import CheckpointError
from viper_e2e.tasks import combined_from_json, combined_to_json, tasks_from_json, tasks_to_json


def labels_to_json(labels: LabelSet) -> dict[str, Any]:
    """Plain data, of which `labels_from_json` is the inverse."""
    found = asdict(labels) | {"tasks": tasks_to_json(labels.tasks)}
    del found["combined"]
    return found | ({"combined": combined_to_json(labels.combined)} if labels.combined else {})


def labels_from_json(settings: Mapping[str, Any], path: Path) -> LabelSet:
    """Out of the settings in ``path``. `CheckpointError` for what is not understood."""
    try:
        labels = settings["labels"]
        columns = tuple(map(str, labels["columns"]))
        # Checkpoints of earlier versions have no scale: their heads speak in units of the labels.
        known = {name: labels.get(name) for name in ("means", "centres", "widths")}
        numbers = {name: None if row is None else tuple(map(float, row)) for name, row in known.items()}
        if any(row is not None and len(row) != len(columns) for row in numbers.values()):
            raise ValueError("means, centres and widths must be as many as columns")
        tasks = tasks_from_json(labels.get("tasks", []), len(columns))
        combined = combined_from_json(labels.get("combined", {}))
        low, high = float(labels["minimum"]), float(labels["maximum"])
        return LabelSet(columns, low, high, **numbers, tasks=tasks, combined=combined)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: labels are not understood ({error!r})") from error
