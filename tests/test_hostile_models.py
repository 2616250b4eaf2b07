"""A stranger's model folder, whole by its manifest: what it asks for is refused before memory is taken."""

from __future__ import annotations

import contextlib
import json
import shutil
import tracemalloc
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

import viper_e2e
from tests.support.models import model_of
from viper_e2e import ModelConfig, ViperError
from viper_e2e.clip import MAX_CROP_SIZE, CropSpec
from viper_e2e.config import MotionConfig, VisualConfig, check_settings, model_config_from_dict
from viper_e2e.config.bounds import bounds_of
from viper_e2e.encoders.parameter_budget import ParameterBudget, check_buildable
from viper_e2e.model import checkpoint


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "saved"
    model_of("visual", "audio").save_pretrained(folder)
    return folder


def edited(saved: Path, folder: Path, file: str, name: str, value: Any) -> Path:
    """The saved model, with one value of a JSON file changed and a manifest that fits."""

    def fill(new: Path) -> None:
        shutil.copytree(saved, new, dirs_exist_ok=True)
        (new / checkpoint.MANIFEST).unlink()
        settings = json.loads((new / file).read_text())
        *path, last = name.split(".")
        place = settings
        for key in path:
            place = place[key]
        assert last in place, place
        place[last] = value
        (new / file).write_text(json.dumps(settings))

    checkpoint.write_folder(folder, fill)
    return folder


BACKBONE = "model.visual.backbone.config"
SOUND = "model.audio.backbone.config"


@pytest.mark.parametrize("value", [None, "x", -1, 0, 10**6, 10**9, 10**18, [], {}, [1]])
@pytest.mark.parametrize(
    "name",
    [
        f"{BACKBONE}.model_type",
        f"{BACKBONE}.hidden_size",
        f"{BACKBONE}.num_hidden_layers",
        f"{BACKBONE}.patch_size",
        f"{SOUND}.hidden_size",
        f"{SOUND}.num_hidden_layers",
        "model.fusion.dim",
        "model.fusion.depth",
        "model.decoding.num_frames",
        "model.visual.crop_size",
        "model.modalities",
    ],
)
def test_a_setting_that_the_weights_do_not_fit_is_refused_in_one_line(saved, tmp_path, name, value):
    folder = edited(saved, tmp_path / "edited", "config.json", name, value)
    if name == "model.visual.crop_size" and value is None:
        return  # as the backbone's own preprocessing has it
    with pytest.raises(ViperError, match=r"config|settings|modalities|visual") as refusal:
        viper_e2e.load(folder)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        (f"{BACKBONE}.num_attention_heads", -1, "num_attention_heads is -1"),
        (f"{SOUND}.num_attention_heads", -1, "num_attention_heads is -1"),
        (f"{SOUND}.conv_stride", [5, 0, 2, 2, 2, 2, 2], "conv_stride is 0"),
        (f"{SOUND}.conv_kernel", [10, 3, 3, 3, 3, -2, 2], "conv_kernel is -2"),
    ],
)
def test_a_setting_with_which_no_clip_could_be_scored_is_refused_when_the_model_is_loaded(
    saved, tmp_path, name, value, told
):
    folder = edited(saved, tmp_path / "edited", "config.json", name, value)
    with pytest.raises(ViperError, match=told) as refusal:
        viper_e2e.load(folder)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        (f"{BACKBONE}.num_hidden_layers", "they make more than"),
        (f"{BACKBONE}.hidden_size", "they make more than"),
        (f"{BACKBONE}.intermediate_size", "they make more than"),
    ],
)
def test_no_more_is_built_than_the_weights_hold(saved, tmp_path, name, complaint):
    """A million layers are stopped after a few thousand tensors, none of which took memory."""
    folder = edited(saved, tmp_path / "edited", "config.json", name, 4_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(ViperError, match=complaint):
            viper_e2e.load(folder)
        assert tracemalloc.get_traced_memory()[1] < 200e6
    finally:
        tracemalloc.stop()


def test_a_budget_counts_what_is_registered_and_leaves_no_hook():
    from torch import nn

    def deep() -> nn.Module:
        return nn.Sequential(*(nn.Linear(4, 4) for _ in range(10)))

    check_buildable("a", "b", deep, ParameterBudget(20, 200))
    with pytest.raises(ViperError, match="more than 19 tensors"):
        check_buildable("a", "b", deep, ParameterBudget(19, 200))
    with pytest.raises(ViperError, match="more than 199 parameters"):
        check_buildable("a", "b", deep, ParameterBudget(20, 199))
    deep()


@pytest.mark.parametrize("encoder", [VisualConfig, MotionConfig])
def test_settings_allow_the_crops_that_can_be_cut(encoder):
    bounds = bounds_of(encoder)["crop_size"]
    assert (bounds.low, bounds.high) == (1, MAX_CROP_SIZE)
    CropSpec(MAX_CROP_SIZE)
    with pytest.raises(ViperError, match="crops of 4097 pixels"):
        CropSpec(MAX_CROP_SIZE + 1)


def test_building_twice_leaves_random_numbers_as_they_were():
    import torch

    from viper_e2e import ViPER

    config = model_of("visual").config
    torch.manual_seed(3)
    first = ViPER(config).state_dict()
    torch.manual_seed(3)
    again = ViPER(config).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)


def _fields(config: Any, path: str = "") -> Iterator[tuple[Any, str, str]]:
    for field in fields(config):
        value, name = getattr(config, field.name), f"{path}{field.name}"
        if is_dataclass(value):
            yield from _fields(value, f"{name}.")
        else:
            yield config, field.name, name


def test_no_setting_that_needs_a_value_is_taken_without_one():
    config = ModelConfig()
    refused = []
    for owner, field, name in _fields(config):
        # As a file may have it: `replace` would look at types, which only tests do.
        before = getattr(owner, field)
        object.__setattr__(owner, field, None)
        with contextlib.suppress(ViperError):
            check_settings("config.json: ", {"model.": config})
            assert before is None or name == "decoding.max_side", name
            object.__setattr__(owner, field, before)
            continue
        with pytest.raises(ViperError, match=rf"^config.json: model.{name} has no value: give one, or leave"):
            check_settings("config.json: ", {"model.": config})
        refused.append(name)
        object.__setattr__(owner, field, before)
    assert {"modalities", "decoding.num_frames", "faces.thresholds"} <= set(refused)


def test_a_settings_file_without_a_value_names_the_setting():
    with pytest.raises(ViperError, match=r"num_frames"):
        model_config_from_dict({"decoding": {"num_frames": None}}, "config.json")
