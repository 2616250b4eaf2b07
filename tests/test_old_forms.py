"""Settings as earlier versions wrote them are read as what they meant, from files and from command lines."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from viper_e2e.commands.parsing import parse_train
from viper_e2e.config import model_config_from_dict
from viper_e2e.config.depth import All, Blocks, Depths, Frozen, LaterDepths
from viper_e2e.config.old_forms import settings_of_now, split_model
from viper_e2e.errors import ViperError
from viper_e2e.training.resuming import SavedRun, differences

OLD_RUN = Path(__file__).with_name("run_config_schema_1.yaml")
"""As `viper train` wrote it when the model's settings still held what only training reads."""
PARTIAL = """
lr: 0.002
unfreeze_at: null
model:
  visual:
    backbone:
      train: '1'
      gradient_checkpointing: true
  fusion:
    modality_dropout: 0.3
"""


def parse(*words: str):
    return parse_train(["--preset=tiny", "--train-shards=x", "--run-dir=y", *words], "viper train")


@pytest.fixture
def old_run(tmp_path) -> Path:
    (tmp_path / "config.yaml").write_text(OLD_RUN.read_text().replace("RUN", str(tmp_path)))
    return tmp_path


def test_a_file_of_some_settings_means_what_it_meant(tmp_path):
    (tmp_path / "old.yaml").write_text(PARTIAL)
    train = parse(f"--config={tmp_path / 'old.yaml'}").train
    assert (train.lr, train.modality_dropout, train.gradient_checkpointing) == (0.002, 0.3, True)
    assert train.unfreeze == Depths((("visual", Blocks(1)), ("audio", All())))
    assert train.unfreeze_at == LaterDepths()
    # The command line still wins.
    train = parse(f"--config={tmp_path / 'old.yaml'}", "--unfreeze=visual=2", "--modality-dropout=0").train
    assert (train.unfreeze.of("visual"), train.modality_dropout) == (Blocks(2), 0.0)
    assert parse(f"--config={tmp_path / 'old.yaml'}", "--freeze=all").train.unfreeze == Depths()


@pytest.mark.parametrize(
    ("words", "depth"),
    [
        (("--model.visual.backbone.train=none",), Frozen()),
        (("--model.visual.backbone.train", "2"), Blocks(2)),
        (("--model.visual.backbone.train=2", "--unfreeze=visual=1"), Blocks(1)),
    ],
)
def test_options_under_their_old_names_mean_what_they_meant(words, depth):
    more = ("--model.visual.backbone.gradient-checkpointing", "true", "--model.fusion.modality-dropout=0.4")
    train = parse(*words, *more).train
    assert train.unfreeze.of("visual") == depth
    assert train.unfreeze.of("audio") == All()
    assert (train.gradient_checkpointing, train.modality_dropout) == (True, 0.4)


def test_a_run_that_an_earlier_version_began_goes_on_as_it_was(old_run):
    settings = parse_train(["--resume", f"--run-dir={old_run}"], "viper train")
    assert str(settings.train.unfreeze) == "visual=1,audio=none"
    assert settings.train.modality_dropout == 0.4
    assert settings.model.audio.backbone.lora_rank == 2
    saved = SavedRun.of(old_run)
    assert saved is not None
    assert [name for name, *_ in differences(saved.settings, settings.to_dict())] == ["resume"]


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("--unfreeze=audio", "unfreeze"),
        ("--freeze=visual", "unfreeze"),
        ("--modality-dropout=0.1", "modality_dropout"),
        ("--unfreeze-at=1:visual=2", "unfreeze_at"),
    ],
)
def test_what_has_changed_of_such_a_run_is_still_noticed(old_run, word, name):
    settings = parse_train(["--resume", f"--run-dir={old_run}", word], "viper train")
    saved = SavedRun.of(old_run)
    assert saved is not None
    assert name in [name for name, *_ in differences(saved.settings, settings.to_dict())]


def test_settings_of_a_later_version_are_refused_in_one_line(tmp_path):
    (tmp_path / "new.yaml").write_text("schema: 99\nlr: 0.1\n")
    with pytest.raises(
        ViperError, match=r"new\.yaml: has schema 99, this version reads up to \d+; install a newer"
    ):
        parse(f"--config={tmp_path / 'new.yaml'}")


def test_what_is_in_todays_form_stays_as_it_is():
    data = {"schema": 2, "unfreeze": "visual=1", "model": {"fusion": {"dim": 8}, "visual": {"layers": 2}}}
    assert settings_of_now(data, "x") == {name: data[name] for name in ("unfreeze", "model")}


def test_an_architecture_may_have_settings_of_these_names():
    model = {"visual": {"backbone": {"config": {"train": 1, "gradient_checkpointing": True}, "train": "all"}}}
    now, training = split_model(model)
    assert now == {"visual": {"backbone": {"config": {"train": 1, "gradient_checkpointing": True}}}}
    assert training == {"unfreeze": "visual=all"}


def test_the_model_of_an_old_checkpoint_is_read_without_what_decided_its_training():
    old = yaml.safe_load(OLD_RUN.read_text())["model"]
    assert "train" in old["visual"]["backbone"]
    with pytest.raises(ViperError, match="train"):
        model_config_from_dict(old, "config.json")
    model = model_config_from_dict(split_model(old)[0], "config.json")
    assert model.audio.backbone.lora_rank == 2
