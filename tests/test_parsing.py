"""Settings: preset, then YAML, then command line; a mistake is told the nearest name."""

from __future__ import annotations

import re
from argparse import ArgumentParser

import pytest
import yaml

from viper_e2e.commands.backbone_arguments import backbone_overrides
from viper_e2e.commands.cli import main
from viper_e2e.commands.parsing import parse_train
from viper_e2e.commands.settings_parser import settings_parser
from viper_e2e.commands.train_help import help_parser
from viper_e2e.config import TrainConfig, option_of, setting_of
from viper_e2e.config.depth import All
from viper_e2e.config.presets import PRESETS
from viper_e2e.errors import ViperError

NEEDED = ["--train-shards", "train.tar", "--run-dir", "run"]


def parse(*words: str):
    return parse_train([*NEEDED, *words], "viper train")


@pytest.mark.slow
@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_a_preset_alone_is_the_presets_model(preset):
    assert parse("--preset", preset).model == PRESETS[preset]()


def test_the_command_line_stands_over_yaml_and_yaml_over_the_preset(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("lr: 0.5\nbatch_size: 3\nmodel:\n  fusion:\n    dim: 33\n")
    settings = parse("--preset", "tiny", "--lr", "0.25", "--config", str(file))
    assert settings.train.lr == 0.25
    assert settings.train.batch_size == 3
    assert settings.model.fusion.dim == 33
    assert settings.model.fusion.num_latents == PRESETS["tiny"]().fusion.num_latents


@pytest.mark.slow
def test_what_was_parsed_before_leaves_nothing_behind(tmp_path):
    """A parser is kept, one for each name of the program."""
    file = tmp_path / "settings.yaml"
    file.write_text("lr: 0.5\nmodel:\n  fusion:\n    dim: 33\n")
    words = ["--preset=micro"], ["--preset=micro", "--unfreeze=visual", "--modalities=visual", "--head=ridge"]
    words += ["--preset=micro", "--config", str(file)], ["--preset=micro", "--model.fusion.dim=32", "--lr=3"]
    again = [parse(*given) for given in (*words, *reversed(words))]
    with pytest.raises(SystemExit):
        parse("--preset=micro", "--lrr=3")
    fresh = [parse_train([*NEEDED, *given], f"a program of its own, {n}") for n, given in enumerate(words)]
    assert again[:4] == fresh
    assert again[4:] == again[3::-1]


@pytest.mark.slow
def test_settings_written_down_and_read_again_are_the_same(tmp_path):
    first = parse("--preset", "micro", "--lr", "0.125", "--unfreeze", "visual=1")
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(first.to_dict()))
    assert parse_train(["--config", str(file)], "viper train") == first


NEAREST = [
    (["--lrr", "3"], "did you mean --lr?"),
    (["--batchsize", "3"], "did you mean --batch-size?"),
    (["--model.fusion.dimm", "3"], "did you mean --model.fusion.dim?"),
    (["--lr", "fast"], "lr"),
    (["--learning-rate", "1"], "did you mean --lr?"),
    (["--learning_rate=1"], "did you mean --lr?"),
    (["--num-epochs", "3"], "did you mean --epochs?"),
    (["--workers", "3"], "did you mean --num-workers?"),
    (["--gradient-accumulation-steps", "3"], "did you mean --accumulation?"),
    (["--output-dir", "x"], "did you mean --run-dir?"),
    (["--amp"], "did you mean --mixed-precision?"),
    (["--num-frames", "8"], "did you mean --model.decoding.num-frames?"),
    (["--report-to", "wandb"], "did you mean --log-with?"),
    (["--wandb"], "did you mean --log-with?"),
    (["--preset", "tinny"], "tiny"),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "told"),
    [
        pytest.param(*case, marks=() if index % 3 == 0 else pytest.mark.campaign)
        for index, case in enumerate(NEAREST)
    ],
)
def test_an_unknown_setting_is_one_line_with_the_nearest_name(capsys, words, told):
    with pytest.raises(SystemExit) as exit:
        parse(*words)
    assert exit.value.code == 1
    message = capsys.readouterr().err
    assert told in message
    assert message.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("word", ["--image-sizes", "--dropuot-path", "--print-shtap", "--foo"])
def test_what_is_like_no_setting_is_likened_to_none(capsys, word):
    with pytest.raises(SystemExit):
        parse(word, "3")
    assert "did you mean" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--init-from", "a_b/c--d_e"], "--init-from a_b/c--d_e"),
        (["--init_from=a_b"], "--init-from=a_b"),
        (["--run-dir"], "argument --run-dir: expected one argument"),
    ],
)
def test_messages_name_options_with_dashes_and_values_as_they_are(capsys, words, told):
    with pytest.raises(SystemExit):
        parse_train(words, "viper train")
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("--gpu", "--device"),
        ("--cuda", "--device"),
        ("--ckpt", "--checkpoint"),
        ("--batchsize", "--batch-size"),
    ],
)
def test_other_commands_know_what_others_call_their_options(capsys, word, told):
    with pytest.raises(SystemExit) as exit:
        main(["infer", "clip.mp4", "--checkpoint", "x", word, "0"])
    assert exit.value.code == 1
    assert f"did you mean {told}?" in capsys.readouterr().err


def test_an_unknown_setting_in_yaml_is_told_the_nearest_name(tmp_path, capsys):
    file = tmp_path / "settings.yaml"
    file.write_text("model:\n  fusion:\n    dimm: 33\n")
    with pytest.raises(SystemExit):
        parse("--config", str(file))
    assert "did you mean model.fusion.dim?" in capsys.readouterr().err


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(ViperError, match=r"--config nowhere\.yaml: cannot be read"):
        parse("--config", "nowhere.yaml")


@pytest.mark.parametrize("content", ["", "# all of it commented out\n", "- lr\n", "lr\n"])
def test_a_file_without_settings_is_named(tmp_path, content):
    file = tmp_path / "settings.yaml"
    file.write_text(content)
    with pytest.raises(ViperError, match=re.escape(f"{file}: holds no settings")):
        parse("--config", str(file))


def test_yaml_tags_that_would_build_objects_are_refused(tmp_path):
    canary = tmp_path / "canary"
    file = tmp_path / "settings.yaml"
    file.write_text(f'lr: !!python/object/apply:os.system ["touch {canary}"]\n')
    with pytest.raises(ViperError, match="not valid YAML"):
        parse("--config", str(file))
    assert not canary.exists()


@pytest.mark.slow
def test_freeze_and_unfreeze_set_the_depth_of_backbones():
    settings = parse("--preset", "tiny", "--freeze", "all", "--unfreeze", "audio=1")
    assert str(settings.train.unfreeze) == "visual=none,audio=1"
    assert parse("--preset", "base", "--unfreeze", "visual").train.unfreeze.of("visual") == All()


@pytest.mark.slow
def test_a_backbone_is_replaced_by_a_folder_and_an_unknown_one_told_the_nearest():
    assert parse("--backbone", "visual=/a/b-c_d").model.visual.backbone.source == "/a/b-c_d"
    with pytest.raises(ViperError, match="did you mean visual"):
        parse("--backbone", "visul=/a")
    with pytest.raises(ViperError, match="visual=PATH"):
        parse("--backbone", "visual")
    assert backbone_overrides(["audio=x/y"]) == {"audio": "x/y"}


@pytest.mark.slow
def test_a_bare_resume_is_a_switch():
    assert parse("--resume").train.resume
    assert not parse("--resume", "false").train.resume
    assert parse("--resume", "--lr", "1").train.lr == 1.0


def test_missing_shards_are_named():
    with pytest.raises(ViperError, match="--train-shards"):
        parse_train(["--run-dir", "run"], "viper train")


def test_words_of_a_file_written_before_are_read(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("loss: mse=1\naugment: none\nreuse_memory: '0'\nunfreeze_at: null\n")
    train = parse("--preset=micro", f"--config={file}").train
    assert (train.loss, train.reuse_memory.num_bytes) == (TrainConfig().loss, 0)
    assert not train.augment
    assert not train.unfreeze_at
    file.write_text("loss: ccc\naugment: box, pixels\nreuse_memory: 2000\nunfreeze_at: 1:visual=all\n")
    data = parse("--preset=micro", f"--config={file}").to_dict()
    words = [data[name] for name in ("loss", "augment", "reuse_memory", "unfreeze_at")]
    assert words == ["ccc=1", "pixels,box", "2kB", "1:visual=all"]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("--lr=x", "--lr x: give a number"),
        ("--epochs=1.5", "--epochs 1.5: give a whole number"),
        ("--max-steps=x", "--max-steps x: give a whole number or null"),
        ("--mixed-precision=bf8", "--mixed-precision bf8: choose no, bf16, fp16 or auto"),
        ("--model.fusion.kind=x", "--model.fusion.kind x: choose tokens, concat, ridge or ensemble"),
        ("--model.faces.thresholds=0.5", "--model.faces.thresholds 0.5: give a list such as"),
        ("--head=x", "--head x: choose tokens, concat, ridge or ensemble"),
        ("--loss=mse=x", "--loss 'mse=x': 'x' is not a weight; give a number from 0 up"),
        ("--augment=pixles", "--augment 'pixles': choose none, all, or some of pixels,box,sound"),
        ("--reuse-memory=0.000001", "--reuse-memory '0.000001' is less than one byte; is the unit missing"),
        ("--reuse-memory=much", "--reuse-memory 'much' is not a size; write, for example, 2GB"),
        (
            "--unfreeze-at=2:visual",
            "--unfreeze-at '2:visual': write it as EPOCH:BACKBONE=DEPTH, e.g. 2:visual=4",
        ),
        ("--unfreez=visual", "unrecognized arguments: --unfreez=visual; did you mean --unfreeze?"),
        ("--max-bytes=much", "--max-bytes 'much' is not a size; write, for example, 2GB"),
    ],
)
def test_a_value_of_the_wrong_type_is_one_line_with_option_value_and_what_would_be_right(word, said, capsys):
    with pytest.raises(SystemExit):
        parse("--preset=micro", word)
    assert said in (err := capsys.readouterr().err)
    assert err.count("\n") == 1
    assert "Parser key" not in err


@pytest.mark.parametrize("words", [("--unfreeze",), ("--unfreeze", "--epochs=1")])
def test_unfreeze_without_backbones_is_told_what_to_name(words):
    with pytest.raises(
        ViperError, match=r"--unfreeze: name the backbones to train, e\.g\. --unfreeze visual=4"
    ):
        parse(*words)


@pytest.mark.parametrize("preset", PRESETS)
def test_help_names_every_setting_that_the_parser_reads_and_no_other(preset):
    read = options_of(settings_parser(preset, "viper train", is_new=True))
    told = options_of(help_parser(preset, "viper train", is_short=False)) - {"--quiet", "--verbose"}
    optional = {name for name in told | read if name.startswith("--model.textual.sentence-encoder")}
    whole = {name.rpartition(".")[0] for name in read}  # a dataclass at once, as YAML
    assert told - optional == read - whole - optional - {"--print-shtab"}
    assert optional & told


def options_of(parser: ArgumentParser) -> set[str]:
    return {option_of(setting_of(word)) for word in parser._option_string_actions if word.startswith("--")}


def test_help_shows_what_a_preset_sets_and_what_there_is_to_choose_from(capsys):
    with pytest.raises(SystemExit) as end:
        parse_train(["--preset", "tiny", "--lr", "none", "--help"], "viper train")
    assert end.value.code == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "--lr LR Peak learning rate of the fusion head. (default: 0.001)" in told
    assert "(default: visual=all,audio=all,motion=all,words=all)" in told
    assert "--compile {true,false}" in told
    assert "--model.faces.margin MARGIN" not in told


def test_each_group_of_settings_says_what_it_is_about(capsys):
    with pytest.raises(SystemExit):
        parse_train(["--help-all"], "viper train")
    told = capsys.readouterr().out
    assert "Settings for finding and following faces:" in told
    assert "<factory>" not in told  # a class without a sentence of its own shows its signature
