"""old_forms.py: settings in files and command lines of earlier versions -> their present form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

from viper_e2e.errors import ViperError

SETTINGS_SCHEMA = 2
"""Schema of a run's ``config.yaml``. Schema 1 was not stated; its model had some settings of training."""
_OF_BACKBONES = ("train", "gradient_checkpointing")


def split_model(model: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of a model from before schema 2 -> in today's form, and what they said of training."""
    now = deepcopy(dict(model))
    training: dict[str, Any] = {}
    depths = []
    for name, group, backbone in _backbones(now):
        depth, recomputes = (backbone.pop(old, None) for old in _OF_BACKBONES)
        if depth is not None and _is_chosen(now, group):
            depths.append(f"{name}={depth}")
        if recomputes is not None:
            training["gradient_checkpointing"] = training.get("gradient_checkpointing", False) or recomputes
    fusion = now.get("fusion")
    if isinstance(fusion, dict) and "modality_dropout" in fusion:
        training["modality_dropout"] = fusion.pop("modality_dropout")
    return now, training | ({"unfreeze": ",".join(depths)} if depths else {})


def settings_of_now(data: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Settings of a run, some or all, in any form that a file ever had.

    ``source`` names the file in the `ViperError` about one that a later version wrote.
    """
    now = dict(data)
    schema = now.pop("schema", SETTINGS_SCHEMA)
    if not isinstance(schema, int) or schema > SETTINGS_SCHEMA:
        raise ViperError(
            f"{source}: has schema {schema}, this version reads up to {SETTINGS_SCHEMA}; install a newer one"
        )
    for name in ("train_shards", "val_shards"):  # one pattern, or several, one to a line
        if isinstance(now.get(name), list):
            now[name] = "\n".join(map(str, now[name]))
    if "unfreeze_at" in now and now["unfreeze_at"] is None:
        now["unfreeze_at"] = "none"
    if isinstance(now.get("model"), dict):
        now["model"], training = split_model(now["model"])
        if "unfreeze" in training and now.get("unfreeze"):
            training["unfreeze"] += f",{now['unfreeze']}"
            del now["unfreeze"]
        now = training | now
    return now


def is_old_option(option: str) -> bool:
    """Whether `option_of_now` knows it; names are written with underscores."""
    *group, _, name = ("", *option.split("."))
    is_of_backbone = option.startswith("--model.") and len(group) > 1 and name in _OF_BACKBONES
    return is_of_backbone or option == "--model.fusion.modality_dropout"


def option_of_now(option: str, value: str) -> tuple[str, str]:
    """``--model.visual.backbone.train`` and ``2`` -> ``--unfreeze`` and ``visual=2``."""
    *_, group, field, name = option.split(".")
    if name == "train":
        return "--unfreeze", f"{group if field == 'backbone' else field}={value}"
    return f"--{name}", value


def _backbones(model: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Name, modality and settings of whatever may be a backbone."""
    extra = model.get("extra_modalities")
    for group, settings in {**model, **(extra if isinstance(extra, dict) else {})}.items():
        if isinstance(settings, dict) and group != "extra_modalities":
            for field, value in settings.items():
                if isinstance(value, dict):
                    yield group if field == "backbone" else field, group, value


def _is_chosen(model: Mapping[str, Any], modality: str) -> bool:
    """Whether the model has this modality, or does not say which it has."""
    return modality in (model.get("modalities") or [modality])
