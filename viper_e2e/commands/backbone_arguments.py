"""backbone_arguments.py: arguments about backbones: their sources, trainable blocks and adapters."""

from __future__ import annotations

from collections.abc import Sequence

from viper_e2e.config import Depths, Frozen, ModelConfig, backbone_places, backbones_of, with_settings
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


def place_of(model: ModelConfig, name: str) -> str:
    """Place of the settings of a backbone; `ViperError` with the nearest name if there is none."""
    known = backbone_places(model)
    if name not in known:
        hint = did_you_mean(nearest(name, known)) or f"; this model has {', '.join(known)}"
        raise ViperError(f"no backbone is called {name!r}{hint}")
    return known[name]


def with_sources(model: ModelConfig, words: Sequence[str]) -> ModelConfig:
    """``words``: of ``--backbone``."""
    sources = named_values(words, "--backbone", "visual=PATH")
    return with_settings(model, {f"{place_of(model, name)}.source": source for name, source in sources})


def with_frozen(model: ModelConfig, freeze: str | None) -> tuple[ModelConfig, Depths]:
    """``freeze``: ``all`` or names; these lose their adapters too."""
    names = [*backbone_places(model)] if freeze == "all" else freeze.split(",") if freeze else []
    model = with_settings(model, {f"{place_of(model, name)}.lora_rank": 0 for name in names})
    return model, Depths(tuple((name, Frozen()) for name in names))


def depths_of(model: ModelConfig, before: Depths, typed: Depths) -> Depths:
    """A depth for every backbone of the model; presets and files may name others, the command line may not."""
    for name, _ in typed.rows:
        place_of(model, name)
    depths = before.updated(typed)
    return Depths(tuple((name, depths.of(name)) for name in backbones_of(model)))


def with_lora(model: ModelConfig, lora: str | None) -> ModelConfig:
    """``lora``: names, each with the rank of its adapters."""
    for word in lora.split(",") if lora else ():
        name, _, rank = word.partition("=")
        if not rank.isdigit() or int(rank) < 1:
            raise ViperError(f"--lora {word}: write a backbone and the rank of its adapters, e.g. visual=8")
        model = with_settings(model, {f"{place_of(model, name)}.lora_rank": int(rank)})
    return model


def parsed_depths(text: str, source: str) -> Depths:
    """``source``: where the text is from, for messages."""
    try:
        return Depths.parse(text)
    except ViperError as error:
        raise ViperError(f"{source} {error}") from error
