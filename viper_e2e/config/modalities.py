"""modalities.py: every modality by name: what it needs of a clip, where its encoder and its settings are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from importlib import import_module
from typing import Any, Literal, get_args

from viper_e2e.config.changes import with_settings
from viper_e2e.config.model import (
    ActionUnitConfig,
    AudioConfig,
    BackboneConfig,
    ModelConfig,
    MotionConfig,
    TextualConfig,
    VisualConfig,
    WordsConfig,
)
from viper_e2e.errors import ViperError

Need = Literal["face", "sound", "units", "sentences", "words"]
"""`face`: crops of the person's face. `sound`: the clip's sound. `units`: action units, and without them whole
frames to measure them in. `sentences`: a bank of them. `words`: what is said in the clip."""


@dataclass(frozen=True)
class Modality:
    """Facts about a modality that need neither its encoder nor torch."""

    name: str
    needs: frozenset[Need]
    encoder: str | type
    """A subclass of `encoders.base.Encoder`, or where it is: ``package.module:Class``, imported once needed."""
    settings: type
    """A dataclass. A field of type `BackboneConfig` is a backbone: it has the field's name, or, if that is
    ``backbone``, the modality's."""

    def settings_of(self, config: ModelConfig) -> Any:
        """Its part of a model's settings."""
        if hasattr(config, self.name):
            return getattr(config, self.name)
        own = config.extra_modalities.get(self.name, {})
        return own if isinstance(own, self.settings) else _from_data(self.settings, own, self.place)

    @property
    def place(self) -> str:
        """The place of its settings within those of the model."""
        return f"extra_modalities.{self.name}" if self.is_extra else self.name

    @property
    def is_extra(self) -> bool:
        """Whether it does not come with the package."""
        return self.name not in {field.name for field in fields(ModelConfig)}

    def encoder_class(self) -> Any:
        if isinstance(self.encoder, type):
            return self.encoder
        module, _, name = self.encoder.partition(":")
        return getattr(import_module(module), name)


_KNOWN: dict[str, Modality] = {}


def register(modality: Modality) -> None:
    """Make a modality known: from here on it can stand in `ModelConfig.modalities`.

    `ViperError` for a name that another one, or another group of settings, has. Its tokens come after those of
    all that are known by then.
    """
    if unknown := modality.needs - set(get_args(Need)):
        raise ViperError(f"modality {modality.name}: needs {', '.join(unknown)}; known: {get_args(Need)}")
    is_taken = not isinstance(getattr(ModelConfig(), modality.name, modality.settings()), modality.settings)
    if is_taken or _KNOWN.setdefault(modality.name, modality) != modality:
        raise ViperError(f"modality {modality.name}: the name is taken; give it another one")


def unregister(name: str) -> Modality:
    """Undo `register`; what was registered."""
    return _KNOWN.pop(name)


# In the order of the published concatenation, and what came later; masks and weights follow it.
for _modality in (
    Modality("visual", frozenset({"face"}), "viper_e2e.encoders:VisualEncoder", VisualConfig),
    Modality("audio", frozenset({"sound"}), "viper_e2e.encoders:AudioEncoder", AudioConfig),
    Modality("textual", frozenset({"face", "sentences"}), "viper_e2e.encoders:TextualEncoder", TextualConfig),
    Modality(
        "action_units",
        frozenset({"units"}),
        "viper_e2e.encoders:ActionUnitEncoder",
        ActionUnitConfig,
    ),
    Modality("motion", frozenset({"face"}), "viper_e2e.encoders:MotionEncoder", MotionConfig),
    Modality("words", frozenset({"words"}), "viper_e2e.encoders:WordsEncoder", WordsConfig),
):
    register(_modality)

MODALITIES = tuple(_KNOWN)
"""Those that come with the package."""


def unregistered(names: Iterable[str]) -> list[str]:
    """Those that nothing in this process has registered."""
    return [name for name in names if name not in _KNOWN]


def in_order(names: Sequence[str]) -> tuple[str, ...]:
    """Chosen modalities in the order in which masks and weights have them; `ViperError` for an unknown one."""
    unknown = unregistered(names)
    if unknown or not names:
        own = "; one of your own is known once the file that registers it is imported" if unknown else ""
        raise ViperError(
            f"modalities: {', '.join(unknown) or 'none given'}; choose among {', '.join(_KNOWN)}{own}"
        )
    return tuple(name for name in _KNOWN if name in names)


def modality(name: str) -> Modality:
    """`ViperError` for an unknown name."""
    return _KNOWN[in_order([name])[0]]


def needs_of(names: Iterable[str]) -> frozenset[Need]:
    """All that some modalities together need of a clip; nothing for a name that is not known here."""
    return frozenset(need for name in names if name in _KNOWN for need in _KNOWN[name].needs)


def looks_at_face(name: str) -> bool:
    return "face" in needs_of([name])


def reads_words(names: Iterable[str]) -> bool:
    """Whether any of these modalities reads what is said in a clip."""
    return "words" in needs_of(names)


def with_own_settings(config: ModelConfig) -> ModelConfig:
    """Those of chosen modalities that do not come with the package as their dataclasses, checked, in place of
    plain data; `ViperError` for what these do not have."""
    chosen = [_KNOWN[name] for name in config.modalities if name in _KNOWN]
    return with_settings(config, {one.place: one.settings_of(config) for one in chosen if one.is_extra})


def backbone_places(config: ModelConfig) -> dict[str, str]:
    """The place of the settings of each chosen modality's backbone: ``{"visual": "visual.backbone"}``."""
    return {name: place for name, place, _ in _backbones(config)}


def backbones_of(config: ModelConfig) -> dict[str, BackboneConfig]:
    """The settings of the chosen modalities' backbones by name."""
    return {name: backbone for name, _, backbone in _backbones(config)}


def _backbones(config: ModelConfig) -> list[tuple[str, str, BackboneConfig]]:
    found = []
    for chosen in (_KNOWN[name] for name in _KNOWN if name in config.modalities):
        settings = chosen.settings_of(config)
        for field in fields(settings):
            value = getattr(settings, field.name)
            if isinstance(value, BackboneConfig):
                name = chosen.name if field.name == "backbone" else field.name
                found.append((name, f"{chosen.place}.{field.name}", value))
    return found


def _from_data(settings: type, data: object, place: str) -> Any:
    from argparse import ArgumentError

    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--settings", type=settings)
    try:
        return parser.instantiate(parser.parse_object({"settings": data})).settings
    except (ArgumentError, TypeError) as error:
        raise ViperError(f"{place}: {' '.join(str(error).split())}") from error
