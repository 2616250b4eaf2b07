"""settings.py: all settings of a training run, as one value and as the plain data of its file."""

from __future__ import annotations

from argparse import ArgumentError
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from viper_e2e.config.bounds import check_settings
from viper_e2e.config.changes import refuses_changes
from viper_e2e.config.depth import Depths, LaterDepths
from viper_e2e.config.model import ModelConfig
from viper_e2e.config.training import TrainConfig
from viper_e2e.config.values import Changes, Loss, Size, TaskWeights, Trackers
from viper_e2e.errors import ViperError

WORDED = (Size, Loss, TaskWeights, Changes, Trackers, Depths, LaterDepths)
"""Values that are written in words of their own, which their `parse` reads and `str` prints."""


@refuses_changes
@dataclass(frozen=True)
class Settings:
    """Everything that decides a training run."""

    train: TrainConfig
    model: ModelConfig
    preset: str = "base"
    """The preset that these settings started from."""
    words: tuple[str, ...] = field(default=(), compare=False)
    """The command line they came from, to be repeated with ``--resume``."""
    given: frozenset[str] = field(default=frozenset(), compare=False)
    """Names of settings that the command line gave, or that a file gave and the preset has otherwise."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as ``config.yaml`` holds it and ``--config`` reads it."""
        return {"preset": self.preset, **plain(self.train), "model": plain(self.model)}


def plain(data: object) -> Any:
    """Plain data for YAML and JSON: dataclasses become mappings, tuples lists, and values with a written form
    that text."""
    if isinstance(data, (*WORDED, Path)):
        return str(data)
    if is_dataclass(data):
        return {field.name: plain(getattr(data, field.name)) for field in fields(data)}
    if isinstance(data, dict):
        return {key: plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [plain(value) for value in data]
    return data


def flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"model": {"dim": 8}}`` → ``{"model.dim": 8}``."""
    names: dict[str, Any] = {}
    for name, value in data.items():
        if isinstance(value, dict) and value:
            names |= flat(value, f"{prefix}{name}.")
        else:
            names[prefix + name] = list(value) if isinstance(value, tuple) else value
    return names


def model_config_from_dict(data: dict[str, Any], source: str) -> ModelConfig:
    """Build a :class:`ModelConfig` from plain data (a checkpoint's JSON), checking names and types.

    ``source`` names the file in the :class:`ViperError` that an unknown name or a wrong type raises.
    """
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--model", type=ModelConfig)
    try:
        # What is missing is left to the dataclasses, whose defaults jsonargparse would look up, copy and merge.
        model = parser.instantiate(parser.parse_object({"model": data}, defaults=False)).model
    except (ArgumentError, TypeError) as error:
        raise ViperError(f"{source}: {' '.join(str(error).split())}") from error
    check_settings(f"{source}: ", {"model.": model})
    return model
