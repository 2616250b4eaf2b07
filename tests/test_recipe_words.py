"""`--recipe`: one word that stands for ordinary settings, each of which may be given beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from support.training_runs import arguments, lines, make_corpus, same, weights

from viper_e2e.commands.parsing import parse_train
from viper_e2e.config import PRESETS, LaterDepths, backbones_of
from viper_e2e.errors import ViperError

NEEDED = ("--train-shards=train.tar", "--run-dir=run", "--modalities=visual,audio")


def parse(*words: str, recipe: str = "lpft"):
    return parse_train([*NEEDED, f"--recipe={recipe}", *words], "viper train")


def ranks(settings) -> dict[str, int]:
    return {name: backbone.lora_rank for name, backbone in backbones_of(settings.model).items()}


def test_the_word_is_ordinary_settings_of_all_pretrained_backbones():
    settings = parse("--epochs=8", "--modalities=visual,audio,textual,words")
    assert settings.train.unfreeze_at == LaterDepths.parse("6:visual=2,6:audio=2,6:words=2")
    assert settings.train.layer_decay < 1
    assert settings.train.reuse_memory.num_bytes > 0
    assert settings.to_dict()["recipe"] == "lpft"
    assert set(ranks(settings).values()) == {0}


def test_its_variant_adds_adapters_that_train_as_late():
    settings = parse("--epochs=8", "--modalities=visual,audio,textual,words", recipe="lora")
    assert settings.train.unfreeze_at == LaterDepths.parse("6:visual=lora,6:audio=lora,6:words=lora")
    assert {name for name, rank in ranks(settings).items() if rank == 8} == {"visual", "audio", "words"}
    assert settings.train.reuse_memory.num_bytes > 0
    assert settings.to_dict()["recipe"] == "lora"


@pytest.mark.parametrize(
    ("words", "phases", "expected"),
    [
        (("--lora=visual=4",), "6:visual=lora,6:audio=lora", {"visual": 4, "audio": 8}),
        (("--freeze=audio",), "6:visual=lora", {"visual": 8, "audio": 0}),
        (("--unfreeze=audio=1",), "6:visual=lora", {"visual": 8, "audio": 0}),
        (("--unfreeze-at=3:audio=lora",), "3:audio=lora", {"visual": 0, "audio": 8}),
        (("--unfreeze-at=3:audio=1,2:visual=lora",), "2:visual=lora,3:audio=1", {"visual": 8, "audio": 0}),
        (("--model.audio.backbone.lora-rank=2",), "6:visual=lora,6:audio=lora", {"visual": 8, "audio": 2}),
    ],
)
def test_adapters_are_of_the_backbones_and_ranks_that_people_say(words, phases, expected):
    settings = parse("--epochs=8", *words, recipe="lora")
    assert settings.train.unfreeze_at == LaterDepths.parse(phases)
    assert ranks(settings) == expected


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (("--layer-decay=0.9",), "layer_decay", 0.9),
        (("--backbone-lr=0.1",), "backbone_lr", 0.1),
        (("--unfreeze-at=1:visual=1",), "unfreeze_at", LaterDepths.parse("1:visual=1")),
        (("--freeze=audio", "--epochs=8"), "unfreeze_at", LaterDepths.parse("6:visual=2")),
        (("--unfreeze=audio=1", "--epochs=8"), "unfreeze_at", LaterDepths.parse("6:visual=2")),
        (("--epochs=2",), "unfreeze_at", LaterDepths.parse("1:visual=2,1:audio=2")),
    ],
)
def test_what_people_say_beside_it_counts(words, name, value):
    assert getattr(parse(*words).train, name) == value
    before = parse_train([*words, *NEEDED, "--recipe=lpft"], "viper train")
    assert getattr(before.train, name) == value


def test_a_file_may_name_the_recipe_and_settings_beside_it(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("recipe: lpft\nepochs: 8\nlayer_decay: 0.5\n")
    train = parse_train([*NEEDED, f"--config={file}"], "viper train").train
    assert (str(train.unfreeze_at), train.layer_decay) == ("6:visual=2,6:audio=2", 0.5)


@pytest.mark.parametrize("recipe", ["lpft", "lora"])
def test_settings_of_a_run_with_it_are_read_as_they_were(tmp_path, recipe):
    first = parse("--epochs=8", "--freeze=audio", recipe=recipe)
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(first.to_dict()))
    assert parse_train([f"--config={file}"], "viper train") == first


@pytest.mark.parametrize("recipe", ["lpft", "lora"])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--preset=tiny",), "those of this model are random"),
        (("--head=ridge",), "--head ridge"),
        (("--epochs=1",), "--epochs 1"),
        (("--freeze=all",), "nothing is left"),
        (("--unfreeze=visual=1,audio=1",), "nothing is left"),
    ],
)
def test_where_it_makes_no_sense_it_is_refused_in_one_line(words, said, recipe):
    with pytest.raises(ViperError) as caught:
        parse(*words, recipe=recipe)
    assert f"--recipe {recipe}" in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_blocks_of_backbones_with_adapters_of_their_own_are_left_out():
    assert str(parse("--epochs=8", "--lora=audio=4").train.unfreeze_at) == "6:visual=2"
    with pytest.raises(ViperError, match="nothing is left"):
        parse("--lora=visual=4,audio=4")


# --- runs -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("recipe") / "corpus", num_train=6, num_val=3)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory) -> str:
    """An image backbone of two blocks, as from the hub."""
    from transformers import ViTConfig, ViTModel

    folder = tmp_path_factory.mktemp("pretrained")
    architecture = {k: v for k, v in PRESETS["micro"]().visual.backbone.config.items() if k != "model_type"}
    ViTModel(ViTConfig(**architecture), add_pooling_layer=False).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text('{"size": 32, "resample": 2}')
    return str(folder)


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "depth"), [("lpft", "1"), ("lora", "lora")])
def test_the_head_learns_first_and_a_run_goes_on_bitwise(
    corpus, pretrained, tmp_path, fork_server, recipe, depth
):
    words = [f"--recipe={recipe}", "--epochs=4", f"--backbone=visual={pretrained}", "--batch-size=2"]
    words += [f"--val-shards={corpus}/shards/val-*.tar", f"--unfreeze-at=3:visual={depth}"]
    # Each in a process of its own, with as many threads: sums depend on their number.
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    child = fork_server.fork("train", arguments(corpus, whole, *words))
    assert child.wait() == 0, child.said
    assert "val" in lines(whole, "metrics.jsonl")[0]
    child = fork_server.fork("stop", arguments(corpus, halves, *words), 10, 15)
    assert child.wait() == 143, child.said
    child = fork_server.fork("train", arguments(corpus, halves, *words, "--resume"))
    assert child.wait() == 0, child.said
    assert same(weights(whole), weights(halves))
    assert same(weights(whole, "best"), weights(halves, "best"))
