"""Every numeric setting has bounds, and what is beyond them is one line before anything starts."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, fields, is_dataclass

import pytest

from viper_e2e.commands import cli
from viper_e2e.commands.parsing import parse_train
from viper_e2e.config import BackboneConfig, ModelConfig, TrainConfig, model_config_from_dict, options
from viper_e2e.config.bounds import bounds_of, check_settings
from viper_e2e.errors import ViperError

GIVEN = ["--preset=micro", "--train-shards=x.tar", "--run-dir=run"]


def dataclasses_of(config) -> list:
    inside = [value for f in fields(config) if is_dataclass(value := getattr(config, f.name))]
    return [config, *(one for other in inside for one in dataclasses_of(other))]


def is_number(annotation: str) -> bool:
    return bool(re.search(r"\b(int|float|Size)\b", annotation)) and "Literal" not in annotation


ALL = {
    (type(config), field.name)
    for config in [*dataclasses_of(TrainConfig()), *dataclasses_of(ModelConfig()), BackboneConfig()]
    for field in fields(config)
    if is_number(str(field.type))
}


def test_there_are_bounds_for_every_number_and_for_nothing_else():
    assert len(ALL) > 60
    assert {(config, name) for config in {config for config, _ in ALL} for name in bounds_of(config)} == ALL


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf, -1.0])
def test_no_number_is_taken_that_is_none_or_below_its_bound(wrong):
    for config, name in ALL:
        bounds = bounds_of(config)[name]
        if wrong != -1.0 or bounds.low > -1:
            assert not bounds.allows(wrong), (config, name)


def test_the_presets_are_within_bounds():
    from viper_e2e.config.presets import PRESETS

    for preset in PRESETS.values():
        check_settings("--", {"": TrainConfig(), "model.": preset()})


WRONG = {
    "--lr -0.01": "--lr -0.01: give a number at least 0",
    "--backbone-lr .nan": "--backbone-lr nan: give a number at least 0",
    "--clip-norm -1": "--clip-norm -1: give a number at least 0",
    "--weight-decay .inf": "--weight-decay inf",
    "--max-steps 0": "--max-steps 0: give a number at least 1",
    "--epochs 0": "--epochs 0",
    "--seeds 0": "--seeds 0: give a number at least 1",
    "--seed -1": "--seed -1",
    "--batch-size 0": "--batch-size 0",
    "--halve-epochs 0": "--halve-epochs 0",
    "--ema-decay 1": "--ema-decay 1: give a number from 0 up to but not 1",
    "--num-workers -1": "--num-workers -1",
    "--max-worker-restarts -1": "--max-worker-restarts -1",
    "--clip-timeout-seconds 0": "--clip-timeout-seconds 0: give a number above 0",
    "--augmentation.flip 2": "--augmentation.flip 2: give a number from 0 up to 1",
    "--model.fusion.modality-dropout 1.5": "--modality-dropout 1.5",
    "--model.fusion.num-latents 0": "--model.fusion.num-latents 0",
    "--model.faces.min-face-size 0": "--model.faces.min-face-size 0",
    "--model.faces.thresholds [0.6,0.7,1.7]": "--model.faces.thresholds 1.7",
    "--model.audio.max-piece-seconds 0": "--model.audio.max-piece-seconds 0",
    "--model.visual.crop-size 0": "--model.visual.crop-size 0",
    "--model.visual.backbone.lora-dropout 1": "--model.visual.backbone.lora-dropout 1",
    "--model.decoding.limits.max-seconds -1": "--model.decoding.limits.max-seconds -1",
}


def test_settings_out_of_bounds_are_named_in_one_line():
    with pytest.raises(ViperError) as caught:
        parse_train([*GIVEN, *" ".join(WRONG).split()], "viper train")
    told = str(caught.value).split("; ")
    assert len(told) == len(WRONG)
    for said in WRONG.values():
        assert any(line.startswith(said) for line in told), said
    assert "\n" not in str(caught.value)


def test_a_depth_that_is_none_is_told_where_it_stands():
    with pytest.raises(ViperError, match=r"--unfreeze visual=some: cannot train 'some'; allowed: none"):
        parse_train([*GIVEN, "--model.visual.backbone.train=some"], "viper train")
    with pytest.raises(ViperError, match=r"--unfreeze visual=-1: cannot train '-1'"):
        parse_train([*GIVEN, "--unfreeze=visual=-1"], "viper train")


@pytest.mark.slow
def test_the_same_holds_for_a_yaml_file_and_a_checkpoint(tmp_path):
    (tmp_path / "c.yaml").write_text("lr: -1\n")
    with pytest.raises(ViperError, match="--lr -1"):
        parse_train([*GIVEN, f"--config={tmp_path / 'c.yaml'}"], "viper train")
    data = asdict(ModelConfig())
    data["fusion"]["dropout"] = 1.5
    with pytest.raises(ViperError, match=r"c\.json: model\.fusion\.dropout 1\.5: give a number"):
        model_config_from_dict(data, "c.json")


def test_there_are_bounds_for_every_numeric_option_of_every_command():
    commands = [kind for kind in vars(options).values() if isinstance(kind, type) and is_dataclass(kind)]
    numbers = {(c, f.name) for c in commands for f in fields(c) if is_number(str(f.type))}
    assert {kind.__name__ for kind, _ in numbers} >= {
        "InferConfig",
        "EvalConfig",
        "CheckConfig",
        "BenchConfig",
    }
    assert {(config, name) for config in commands for name in bounds_of(config)} == numbers


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("infer c.mp4 --checkpoint x --batch-size 0", "--batch-size 0: give a number at least 1"),
        ("infer c.mp4 --checkpoint x --window-seconds nan", "--window-seconds nan: give a number above 0"),
        ("infer c.mp4 --checkpoint x --hop-seconds 2", "--hop-seconds is the time between windows"),
        ("eval --shards x.tar --out o --checkpoint x --num-workers -2", "--num-workers -2"),
        ("ablate --shards x.tar --out o --checkpoint x --batch-size -1", "--batch-size -1"),
        ("check --shards x.tar --clip-timeout-seconds 0", "--clip-timeout-seconds 0"),
        ("bench --shards x.tar --seconds 0", "--seconds 0: give a number above 0"),
        ("pack --videos v --labels l --out o --seed -1", "--seed -1"),
        ("train --train-shards x.tar --run-dir r --epochs 0", "--epochs 0"),
    ],
)
def test_a_commands_own_option_out_of_bounds_is_one_line(words, said, capsys):
    assert cli.main(words.split()) == 1
    assert said in (err := capsys.readouterr().err)
    assert err.count("\n") == 1
