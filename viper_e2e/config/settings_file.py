"""settings_file.py: reads YAML files of settings, which may come from strangers: plain values only."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from viper_e2e.config.option_names import setting_of
from viper_e2e.errors import ViperError

if TYPE_CHECKING:
    import yaml

MAX_BYTES = 4 * 2**20
MAX_DEPTH = 32


@dataclass(frozen=True)
class SettingsFile:
    """A file of ``--config``, read once."""

    path: Path
    values: dict[str, Any]
    """Settings by name, as spelt in the file."""

    @classmethod
    def read(cls, path: Path) -> SettingsFile:
        """Raises as `read_settings_file`."""
        return cls(path, read_settings_file(path))

    def only(self, names: Collection[str]) -> SettingsFile:
        """The part of the file about these settings."""
        return SettingsFile(self.path, {n: value for n, value in self.values.items() if setting_of(n) in names})

    def has(self, name: str) -> bool:
        """Whether it says anything of a setting, such as ``model.faces.margin``."""
        found: object = self.values
        for part in name.split("."):
            if not isinstance(found, dict) or part not in found:
                return False
            found = found[part]
        return True

    def without(self, names: Collection[str]) -> SettingsFile:
        """The file without these settings."""
        return SettingsFile(
            self.path, {n: value for n, value in self.values.items() if setting_of(n) not in names}
        )


def read_settings_file(path: Path, option: str = "--config") -> dict[str, Any]:
    """Settings by name; nothing is executed. ``option``: what named the file.

    Raises :class:`ViperError` in one line where the file holds no such thing, and for ``*name``: thirty such
    lines unfold to a billion values.
    """
    import yaml

    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ViperError(f"{option} {path}: over {MAX_BYTES:,} bytes; is this a file of settings?")
        text = content.decode("utf-8-sig")
        events = list(_events(text, path))
    except OSError as error:
        raise ViperError(f"{option} {path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise _invalid(path, error) from error
    root = next((event for event in events if isinstance(event, yaml.NodeEvent)), None)
    if not isinstance(root, yaml.MappingStartEvent):
        raise ViperError(f"{path}: holds no settings (lines such as `lr: 0.001`); was it emptied or cut short?")
    if any(isinstance(event, yaml.AliasEvent) for event in events):
        raise ViperError(f"{option} {path}: YAML aliases (*name) are not understood; write the values out")
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # of values: a 13th month, a number of 5,000 digits
        raise _invalid(path, error) from error


def _events(text: str, path: Path) -> Iterator[yaml.Event]:
    """Events of YAML's parser. Deep nesting is refused: its time grows with the cube of the file's length."""
    import yaml

    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ViperError(f"{path}: nested more than {MAX_DEPTH} levels deep; is this a file of settings?")
        yield event


def _invalid(path: Path, error: Exception) -> ViperError:
    return ViperError(f"{path}: not valid YAML ({' '.join(str(error).split())[:200]})")
