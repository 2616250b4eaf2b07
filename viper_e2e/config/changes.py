"""changes.py: settings stay as they were made: how others are made of them, and what says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import FrozenInstanceError, fields, is_dataclass, replace
from typing import NoReturn, TypeVar, cast

from viper_e2e.errors import ViperError, did_you_mean, nearest

C = TypeVar("C")


def refuses_changes(kind: type[C]) -> type[C]:
    """Class decorator above ``@dataclass(frozen=True)``: whoever assigns to a field is told what to write."""

    def refuse(self: object, name: str, *_: object) -> NoReturn:
        raise FrozenInstanceError(
            f"a {kind.__name__} is not changed in place: make another, dataclasses.replace(config, {name}=…), "
            'or viper_e2e.config.with_settings(config, {"faces.margin": 0.1}) for what lies within'
        )

    for method in ("__setattr__", "__delattr__"):
        setattr(kind, method, refuse)
    return kind


def with_settings(config: C, changes: Mapping[str, object]) -> C:
    """The same settings but for some, each by its place: ``{"visual.backbone.source": "random"}``.

    `ViperError` for a name that is not there. Bounds are checked where settings are read and a model is made.
    """
    for place, value in changes.items():
        config = cast("C", _changed(config, place.split("."), value, place))
    return config


def _changed(config: object, parts: Sequence[str], value: object, place: str) -> object:
    name, *rest = parts
    if isinstance(config, Mapping):  # of modalities that do not come with the package
        return {**config, name: _changed(config.get(name, {}), rest, value, place) if rest else value}
    known = [field.name for field in fields(config)] if is_dataclass(config) else []
    if name not in known or isinstance(config, type):
        raise ViperError(f"{place}: there is no setting {name!r} here{did_you_mean(nearest(name, known))}")
    inner = _changed(getattr(config, name), rest, value, place) if rest else value
    return replace(config, **{name: inner})  # type: ignore[type-var]  # a dataclass, as its fields say
