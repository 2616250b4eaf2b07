"""settings_file.py: reads YAML files of settings, which may come from strangers: plain values only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from viper_e2e.errors import ViperError


def read_settings_file(path: Path) -> dict[str, Any]:
    """Settings by name. Raises :class:`ViperError` in one line where the file holds no such thing.

    Nothing is executed, and ``*name`` is refused: thirty such lines unfold to a billion values.
    """
    try:
        text = path.read_text(encoding="utf-8")
        events = list(yaml.parse(text, Loader=yaml.SafeLoader))
    except OSError as error:
        raise ViperError(f"--config {path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise _invalid(path, error) from error
    root = next((event for event in events if isinstance(event, yaml.NodeEvent)), None)
    if not isinstance(root, yaml.MappingStartEvent):
        raise ViperError(f"{path}: holds no settings (lines such as `lr: 0.001`); was it emptied or cut short?")
    if any(isinstance(event, yaml.AliasEvent) for event in events):
        raise ViperError(f"--config {path}: YAML aliases (*name) are not understood; write the values out")
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise _invalid(path, error) from error


def _invalid(path: Path, error: Exception) -> ViperError:
    return ViperError(f"{path}: not valid YAML ({' '.join(str(error).split())[:200]})")
