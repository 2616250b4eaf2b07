"""backbone_arguments.py: arguments about backbones: their sources, trainable blocks and adapters."""

from __future__ import annotations

from collections.abc import Sequence

from viper_e2e.config import BackboneConfig, Depths, Frozen, ModelConfig, backbones_of
from viper_e2e.errors import ViperError, did_you_mean, nearest


def backbone_overrides(words: Sequence[str]) -> dict[str, str]:
    """``["visual=PATH"]`` → ``{"visual": "PATH"}``."""
    return dict(named_values(words, "--backbone", "visual=PATH"))


def named_values(words: Sequence[str], option: str, example: str) -> list[tuple[str, str]]:
    """Names and values of an option given as ``NAME=VALUE``; ``example``: one, for the message."""
    pairs = [word.partition("=") for word in words]
    for name, equals, value in pairs:
        if not (name and equals and value):
            raise ViperError(f"{option} {name}: write it as {example}")
    return [(name, value) for name, _, value in pairs]


def backbone_of(model: ModelConfig, name: str) -> BackboneConfig:
    """A model's backbone by its name; `ViperError` with the nearest one."""
    known = backbones_of(model)
    if name not in known:
        hint = did_you_mean(nearest(name, known)) or f"; this model has {', '.join(known)}"
        raise ViperError(f"no backbone is called {name!r}{hint}")
    return known[name]


def frozen_by(model: ModelConfig, freeze: str | None) -> Depths:
    """``freeze``: ``all`` or names; these lose their adapters too."""
    known = backbones_of(model)
    names = [*known] if freeze == "all" else freeze.split(",") if freeze else []
    for name in names:
        backbone_of(model, name).lora_rank = 0
    return Depths(tuple((name, Frozen()) for name in names))


def depths_of(model: ModelConfig, before: Depths, typed: Depths) -> Depths:
    """A depth for every backbone of the model; presets and files may name others, the command line may not."""
    for name, _ in typed.rows:
        backbone_of(model, name)
    depths = before.updated(typed)
    return Depths(tuple((name, depths.of(name)) for name in backbones_of(model)))


def apply_lora(model: ModelConfig, lora: str | None) -> None:
    """``lora``: names, each with the rank of its adapters."""
    for word in lora.split(",") if lora else ():
        name, _, rank = word.partition("=")
        if not rank.isdigit() or int(rank) < 1:
            raise ViperError(f"--lora {word}: write a backbone and the rank of its adapters, e.g. visual=8")
        backbone_of(model, name).lora_rank = int(rank)


def parsed_depths(text: str, source: str) -> Depths:
    """``source``: where the text is from, for messages."""
    try:
        return Depths.parse(text)
    except ViperError as error:
        raise ViperError(f"{source} {error}") from error
