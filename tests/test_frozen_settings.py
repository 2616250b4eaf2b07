"""Settings and options stay as they were made; others are made of them."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, dataclass, is_dataclass, replace
from importlib import import_module
from pathlib import Path

import pytest

from viper_e2e import ViPER, config
from viper_e2e.commands.parsing import parse_train
from viper_e2e.config import ModelConfig, SettingsFile, TrainConfig, with_settings
from viper_e2e.config.presets import micro
from viper_e2e.errors import ViperError

MODULES = [f"viper_e2e.config.{path.stem}" for path in Path(config.__path__[0]).glob("[!_]*.py")]
KINDS = {
    kind
    for module in map(import_module, MODULES)
    for kind in vars(module).values()
    if isinstance(kind, type) and is_dataclass(kind) and kind.__module__ == module.__name__
}


def test_no_dataclass_of_settings_can_be_changed():
    assert {ModelConfig, TrainConfig, config.EvalConfig, config.PackConfig, SettingsFile} <= KINDS
    changeable = {kind for kind in KINDS if not kind.__dataclass_params__.frozen}
    assert changeable == {config.RecipeOptions, config.FoldRecipeOptions}


def test_a_recipe_inherits_its_options_by_a_plain_dataclass():
    @dataclass(kw_only=True)
    class Options(config.FoldRecipeOptions):
        views: str = "front"

    assert Options(corpus=Path("corpus"), out=Path("shards")).views == "front"


def test_whoever_changes_one_is_told_what_to_write():
    made = micro()
    with pytest.raises(
        FrozenInstanceError, match=r"a VisualConfig is not changed.*replace\(config, pooling=…\)"
    ):
        made.visual.pooling = "both"
    with pytest.raises(FrozenInstanceError, match=r'with_settings\(config, \{"faces\.margin": 0\.1\}\)'):
        made.modalities = ("visual",)
    with pytest.raises(FrozenInstanceError, match="a TrainConfig is not changed"):
        del TrainConfig().epochs
    assert made == micro()


def test_others_differ_in_the_places_named_and_leave_the_first_as_it_was():
    first = micro()
    other = with_settings(
        first, {"visual.backbone.lora_rank": 2, "visual.pooling": "both", "visual.backbone.config.layers": 5}
    )
    assert first == micro()
    assert (other.visual.backbone.lora_rank, other.visual.pooling) == (2, "both")
    assert other.visual.backbone.config == {**first.visual.backbone.config, "layers": 5}
    assert replace(other, visual=first.visual) == first
    assert with_settings(first, {}) is first


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("visual.poling", r"visual\.poling: there is no setting 'poling' here; did you mean pooling\?"),
        ("visual.layers.first", r"visual\.layers\.first: there is no setting 'first' here"),
        ("textual.sentence_encoder.source", "there is no setting 'source' here"),
    ],
)
def test_a_place_that_is_not_there_is_named_with_the_nearest(place, said):
    with pytest.raises(ViperError, match=said):
        with_settings(micro(), {place: 1})


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_they_can_be_copied_and_sent_to_other_processes(copied):
    assert copied(micro()) == micro()


def test_settings_of_a_preset_are_never_those_of_another_run():
    words = ["--train-shards", "a", "--run-dir", "b", "--preset", "micro"]
    frozen = parse_train(["--freeze=all", "--modalities=audio", "--max-seconds=3", *words], "viper train")
    assert frozen.model.decoding.limits.max_seconds == 3.0
    assert parse_train(words, "viper train").model == micro()


def test_a_model_is_decoded_by_other_settings_from_then_on():
    made = micro()
    model = ViPER(made)
    model.set_decoding(replace(model.config.decoding, audio_track=2))
    assert model.config.decoding.audio_track == model.decoder.config.audio_track == 2
    assert made == micro()


def test_a_model_that_is_made_says_how_it_comes_to_other_settings():
    model = ViPER(micro())
    with pytest.raises(AttributeError, match=r"make another, or model\.set_decoding\(…\)"):
        model.config = with_settings(model.config, {"decoding.limits.max_seconds": 3.0})
    assert model.config.decoding.limits.max_seconds == model.decoder.config.limits.max_seconds != 3.0
