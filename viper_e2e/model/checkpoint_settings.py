"""checkpoint_settings.py: config.json of a checkpoint, and how that of earlier versions is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from viper_e2e.config import ModelConfig, backbone_places, backbones_of, split_model, with_settings
from viper_e2e.labels import LabelSet
from viper_e2e.model import checkpoint
from viper_e2e.model.checkpoint import CheckpointError
from viper_e2e.runtime import __version__

FORMAT = "viper_e2e model"
SCHEMA = 3


def settings_of(
    config: ModelConfig,
    labels: LabelSet,
    records: Mapping[str, Any],
    bundled: Sequence[str] = (),
    provenance: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Content of config.json. ``records``: of backbones that lie elsewhere; ``bundled``: the rest."""
    return {
        "format": FORMAT,
        "schema": SCHEMA,
        "viper_e2e": __version__,
        "modalities": list(config.modalities),
        "labels": labels.to_json() | labels.statistics_to_json(),
        "model": _without_paths(config, bundled),
        "backbones": records,
        "bundled": list(bundled),
        "provenance": provenance,
    }


def read_settings(folder: Path) -> dict[str, Any]:
    """Those of a checkpoint in today's schema; `CheckpointError` for what cannot be read."""
    path = folder / "config.json"
    settings = checkpoint.read_json(path)
    if settings.get("schema") == 1:
        # What is bundled was called "held" in the first schema; nothing else differs.
        settings = {**settings, "schema": 2, "bundled": settings.get("held")}
    if settings.get("schema") == 2 and isinstance(settings.get("model"), dict):
        # The model's settings held what only training reads.
        settings = {**settings, "schema": SCHEMA, "model": split_model(settings["model"])[0]}
    if settings.get("format") != FORMAT or settings.get("schema") != SCHEMA:
        raise CheckpointError(
            f"{path}: not a model of this version (format {settings.get('format')!r}, schema "
            f"{settings.get('schema')!r}; expected {FORMAT!r}, {SCHEMA})"
        )
    if not (
        isinstance(settings.get("model"), dict)
        and isinstance(settings.get("backbones"), dict)
        and isinstance(settings.get("bundled"), list)
    ):
        raise CheckpointError(f"{path}: lacks model, backbones or bundled; the file is damaged")
    return settings


def labels_in(settings: Mapping[str, Any], path: Path) -> LabelSet:
    """Label set in the settings of ``path``."""
    try:
        return LabelSet.from_json(settings.get("labels"))
    except ValueError as error:
        raise CheckpointError(f"{path}: labels are not understood ({error}); the file is damaged") from error


def _without_paths(config: ModelConfig, bundled: Sequence[str]) -> dict[str, Any]:
    """Settings in which no backbone that comes along names a folder of this machine, only the folder's name."""
    places = backbone_places(config)
    for name, backbone in backbones_of(config).items():
        path = Path(backbone.source).expanduser()
        if name in bundled and path.exists():
            config = with_settings(config, {f"{places[name]}.source": path.resolve().name})
    return asdict(config)
