"""Options of every command: one dataclass each, the same from the command line and from a YAML file."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import sys
from dataclasses import MISSING, fields

import pytest
from support import ROOT

from viper_e2e import config as kinds
from viper_e2e.commands.cli import COMMANDS, main
from viper_e2e.commands.command_line import parse, parse_beside_train, parser_of
from viper_e2e.commands.completion import options_of, script
from viper_e2e.commands.parsing import parse_train
from viper_e2e.errors import ViperError

LEAST = {
    kinds.InferConfig: ["clip.mp4", "--checkpoint=c"],
    kinds.EvalConfig: ["--checkpoint=c", "--shards=s", "--out=o"],
    kinds.AblateConfig: ["--checkpoint=c", "--shards=s", "--out=o"],
    kinds.CalibrateConfig: ["--checkpoint=c", "--shards=s"],
    kinds.CheckConfig: ["--shards=s"],
    kinds.IndexConfig: ["s.tar"],
    kinds.PackConfig: ["--videos=v", "--labels=l.csv", "--out=o"],
    kinds.ExportConfig: ["--checkpoint=c", "--out=o"],
    kinds.ImportConfig: ["a.model", "--out=o"],
    kinds.BenchConfig: ["--shards=s"],
    kinds.SweepConfig: [],
    kinds.CrossValConfig: [],
    kinds.CompareConfig: ["one", "two"],
}
"""What each command cannot do without."""


def words_for(kind: type) -> list[str]:
    """Every option of a command with a value that is not its default."""
    words = []
    for action in parser_of(kind, "viper")._actions:
        if not action.option_strings or action.dest in ("help", "config", "print_config", "quiet", "verbose"):
            continue
        name = action.option_strings[0]
        if action.nargs == 0:
            words.append(name)
        else:
            numbers = {None: "x", int: "7", float: "0.25"}
            value = list(action.choices)[-1] if action.choices else numbers.get(action.type, "7GB")
            words.append(f"{name}={value}")
    positional = [action.dest for action in parser_of(kind, "viper")._actions if not action.option_strings]
    return [*words, *(f"a {name}" for name in positional)]


@pytest.mark.parametrize("kind", LEAST, ids=lambda kind: kind.__name__)
def test_what_is_printed_as_a_file_is_read_as_the_same_options(kind, tmp_path, capsys):
    words = words_for(kind)
    given = parse(kind, words, "viper")
    changed = [field.name for field in fields(kind) if getattr(given, field.name) != field.default]
    assert changed == [field.name for field in fields(kind)]
    with pytest.raises(SystemExit) as ended:
        parse(kind, [*words, "--print-config"], "viper")
    assert ended.value.code == 0
    file = tmp_path / "options.yaml"
    file.write_text(capsys.readouterr().out)
    assert parse(kind, ["--config", str(file)], "viper") == given


BESIDE_TRAIN = {
    kinds.CrossValConfig: ["--folds=3", "--by=Speaker"],
    kinds.SweepConfig: ["--grid=lr=1e-3,1e-4", "--grid=loss=mse=1,ccc=1|mse"],
    kinds.BenchConfig: ["--shards=s.tar", "--seconds=3"],
}
"""Commands that understand what `viper train` does, and some options of their own."""


@pytest.mark.parametrize("kind", BESIDE_TRAIN, ids=lambda kind: kind.__name__)
def test_one_file_holds_a_command_s_own_options_and_those_of_training(kind, tmp_path, capsys):
    words = [*BESIDE_TRAIN[kind], "--train-shards=t.tar", "--run-dir=r", "--epochs=3", "--preset=micro"]

    def read(words: list[str]):
        options, files, others = parse_beside_train(kind, words, "viper")
        return options, parse_train(others, "viper", options, files)

    with pytest.raises(SystemExit) as ended:
        read([*words, "--print-config"])
    assert ended.value.code == 0
    file = tmp_path / "all.yaml"
    file.write_text(capsys.readouterr().out)
    options, settings = read(["--config", str(file)])
    assert options == read(words)[0]
    assert settings.to_dict() == read(words)[1].to_dict()
    assert read(["--epochs=4", f"--config={file}"])[1].train.epochs == 4, "words win, wherever they stand"
    file.write_text(file.read_text() + "epoch: 5\n")
    with pytest.raises(SystemExit):
        read(["--config", str(file)])
    assert "did you mean epochs?" in capsys.readouterr().err


@pytest.mark.parametrize("kind", BESIDE_TRAIN, ids=lambda kind: kind.__name__)
def test_a_file_is_read_once_as_it_may_be_a_pipe(kind):
    own, training = BESIDE_TRAIN[kind], "train_shards: t.tar\nrun_dir: r\npreset: micro\nepochs: 7\n"
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as pipe:
        pipe.write(training)
    _, files, others = parse_beside_train(kind, [*own, f"--config=/dev/fd/{reading}"], "viper")
    os.close(reading)
    for lr in (0.1, 0.2):
        train = parse_train([*others, "--preset=micro", f"--lr={lr}"], "viper", files=files).train
        assert (train.epochs, train.lr) == (7, lr)


@pytest.mark.parametrize("command", ["train", "cv", "sweep", "bench"])
@pytest.mark.parametrize("wrong", ["--bogus=3", "--epochs=0"])
def test_a_file_is_not_printed_of_settings_that_would_be_refused(command, wrong, capsys):
    own = {"sweep": ["--grid=lr=1e-3"], "bench": ["--shards=s"]}.get(command, [])
    try:
        code = main([command, *own, wrong, "--print-config"])
    except SystemExit as ended:
        code = ended.code
    out, err = capsys.readouterr()
    assert (code, out) == (1, "")
    assert wrong.partition("=")[0] in err


def test_what_is_cut_short_is_no_option(capsys):
    # `--max-side` once was taken for `--max-side-in`, which refuses clips.
    with pytest.raises(SystemExit):
        parse_train(["--max-side=640", "--train-shards=t", "--run-dir=r"], "viper train")
    assert "did you mean --model.decoding.max-side?" in capsys.readouterr().err


@pytest.mark.parametrize("kind", LEAST, ids=lambda kind: kind.__name__)
def test_what_is_not_given_has_the_default_of_its_dataclass(kind):
    given = parse(kind, LEAST[kind], "viper")
    for field in fields(kind):
        if field.default is not MISSING and not field.metadata["missing"]:
            assert getattr(given, field.name) == field.default
        elif field.default_factory is not MISSING:
            assert getattr(given, field.name) == field.default_factory()


def test_the_command_line_wins_over_the_file(tmp_path):
    file = tmp_path / "options.yaml"
    file.write_text("shards: a\nout: b\ncheckpoint: c\nbatch_size: 3\nreport: true\nnum-workers: 2\n")
    given = parse(kinds.EvalConfig, ["--config", str(file), "--batch-size", "5"], "viper eval")
    assert (given.batch_size, given.num_workers, given.report, given.bom) == (5, 2, True, False)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("batchsize: 3\n", "did you mean batch_size?"),
        ("", "holds no settings"),
        ("- shards\n", "holds no settings"),
        ("a: &a 1\nshards: *a\n", "aliases"),
        ("shards: {a: 1}\n", "give one value or a list"),
        ("shards: [", "not valid YAML"),
        ("shards: !!python/object/apply:os.getcwd []\n", "not valid YAML"),
        ("batch_size: 0\n", "give a number"),
        ("shards: 2020-13-45\n", "not valid YAML"),
        (f"batch_size: {'9' * 5_000}\n", "not valid YAML"),
        ("[" * 100_000, "nested more than 32 levels deep"),
        ("shards:\n" + "".join(f"{' ' * n}- \n" for n in range(100)), "nested more than 32 levels deep"),
        ("#" * 5_000_000, "over 4,194,304 bytes"),
    ],
)
def test_a_file_that_cannot_be_right_is_told_in_one_line(tmp_path, content, told):
    file = tmp_path / "options.yaml"
    file.write_text(content)
    with pytest.raises(ViperError, match=told.replace("?", r"\?")) as error:
        parse(kinds.EvalConfig, [*LEAST[kinds.EvalConfig], "--config", str(file)], "viper eval")
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(ViperError, match=r"--config nowhere.yaml: cannot be read"):
        parse(kinds.BenchConfig, ["--config", "nowhere.yaml"], "viper bench")


@pytest.mark.parametrize("option", ["--plot", "--render"])
def test_a_clip_that_an_option_took_for_its_value_is_named(option, capsys):
    with pytest.raises(SystemExit):
        main(["infer", "--checkpoint", "run", option, "clip.mp4"])
    told = capsys.readouterr().err
    assert "required: CLIP" in told
    assert f"{option} took clip.mp4 as its value: write CLIP before {option}" in told


def test_env_names_versions_cores_and_decoders(capsys):
    assert main(["env"]) == 0
    rows = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert {"viper_e2e", "python", "torch", "cores", "GPUs", "decoders"} <= set(rows)
    assert "pyav" in rows["decoders"]


TYPED = [("viper inf", "infer"), ("viper eval --subm", "--submission"), ("viper cv --strat", "--stratify")]
TYPED += [("viper cv --weight-d", "--weight-decay"), ("viper train --help-a", "--help-all")]


ASK = 'COMP_WORDS=({words}); COMP_CWORD={place}; _viper; echo "${{COMPREPLY[@]}}"'


def test_bash_completes_commands_and_their_options():
    lines = [ASK.format(words=words, place=words.count(" ")) for words, _ in TYPED]
    done = run_in("bash", "\n".join([script("bash", COMMANDS), *lines]))
    assert done.splitlines() == [found for _, found in TYPED]


def test_zsh_is_offered_them_and_keeps_by_itself_those_that_begin_as_typed():
    ready = f"autoload -U compinit && compinit -u -D\n{script('zsh', COMMANDS)}setopt ksharrays shwordsplit"
    lines = [ASK.format(words=words, place=words.count(" ")) for words, _ in TYPED]
    done = run_in("zsh", "\n".join([ready, *lines]))
    for line, (_, found) in zip(done.splitlines(), TYPED, strict=True):
        assert found in line.split()


def test_fish_completes_commands_options_and_choices_and_says_what_each_means():
    typed = [*(words for words, _ in TYPED), "viper eval --no-face "]
    done = run_in("fish", script("fish", COMMANDS) + "\n".join(f"complete -C '{words}'" for words in typed))
    found = [line.split("\t") for line in done.splitlines()]
    assert [word for word, *_ in found] == [*(found for _, found in TYPED), "nan", "score"]
    assert found[0][1] == COMMANDS["infer"].summary
    assert found[1][1] == "also write the challenge's submission.csv"


def test_completion_and_help_know_the_same_options(capsys):
    for name, command in COMMANDS.items():
        with pytest.raises(SystemExit):
            main([name, "--help"])
        told = set(re.findall(r"^ +(?:-\w, )?(--[\w.-]+)", capsys.readouterr().out, re.MULTILINE))
        known = set(options_of(name, command))
        assert told == known or (command.reads_settings and told < known), name


def test_fish_gets_a_quoted_description_of_every_option():
    lines = [line for line in script("fish", COMMANDS).splitlines() if " -d " in line]
    assert all(re.search(r" -d '(?:[^'\\]|\\.)*'$", line) for line in lines)


def run_in(shell: str, text: str) -> str:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    return subprocess.run([shell, "-c", text], capture_output=True, text=True, check=True).stdout


@pytest.fixture
def volume():
    """Leaves the package's logger as it was."""
    logger = logging.getLogger("viper_e2e")
    before = logger.level, list(logger.handlers)
    yield logger
    logger.setLevel(before[0])
    logger.handlers[:] = before[1]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ([], "note: info\nnote: warning\n"),
        (["-q"], "note: warning\n"),
        (["-v"], "note: debug\nnote: info\nnote: warning\n"),
    ],
)
def test_notes_reach_people_as_loudly_as_they_ask(flags, told, volume, capsys, monkeypatch):
    from viper_e2e.runtime.console import console

    def noting(_):
        for _ in range(2):
            volume.debug("debug")
            volume.info("info")
            volume.warning("warning")
        return 0

    volume.handlers.clear()
    monkeypatch.setattr(console, "quiet", False)
    monkeypatch.setattr("viper_e2e.commands.env.run_env", noting)
    assert main(["env", *flags]) == 0
    assert capsys.readouterr().err == told


def test_of_many_clips_with_the_same_note_the_first_is_named(volume, capsys):
    volume.handlers.clear()
    assert main(["env", "-v"]) == 0
    capsys.readouterr()
    for name in ("a.mp4", "b.mp4"):
        for reason in ("its pictures change midway", "it does not mirror pictures"):
            volume.info("%s is read by PyAV, not by %s: %s", name, "decord", reason)
    told = capsys.readouterr().err.splitlines()
    assert told == [
        "note: a.mp4 is read by PyAV, not by decord: its pictures change midway",
        "note: a.mp4 is read by PyAV, not by decord: it does not mirror pictures",
    ]


def test_notes_of_workers_reach_people_too(tmp_path):
    (tmp_path / "noting.py").write_text("""
import logging

def note(item):
    logging.getLogger("viper_e2e.decoding").info("clip %s is read by PyAV", item)
    return item
""")
    code = """
from noting import note
from viper_e2e.loading.workers import WorkerPool
from viper_e2e.runtime.notes import show_notes

show_notes()
pool = WorkerPool(note, 1, time_limit_seconds=30.0)
assert pool.outcome(pool.submit(1, "clip 1")) == 1
pool.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == "note: clip 1 is read by PyAV\n"


def test_words_of_a_tables_header_stay_whole_where_there_is_room():
    from rich.console import Console

    from viper_e2e.runtime import table

    rows = [("visual, audio, textual, action units", "0.825", "0.182"), ("audio", "0.849", "0.234")]
    made = table("", ("modalities", "valence.rmse", "95 %"), rows)
    screen = Console(width=30, color_system=None)
    with screen.capture() as shown:
        screen.print(made)
    assert {"modalities", "valence.rmse"} <= set(shown.get().split())


@pytest.mark.parametrize("word", ["--num-workers", "--num_workers", "num-workers", "num_workers"])
def test_a_setting_has_one_name_whichever_way_its_option_is_written(word):
    assert kinds.setting_of(word) == "num_workers"
    assert kinds.option_of(kinds.setting_of(word)) == "--num-workers"


def test_each_unknown_option_has_its_nearest_name(capsys):
    with pytest.raises(SystemExit):
        parse(kinds.CheckConfig, ["--shards=x", "--workers=2", "--outptu", "y", "--qqq"], "viper check")
    assert "did you mean --num-workers for --workers, --output for --outptu?" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--batch-size=3", "--out=a_b"], ["--batch_size", "3", "--out", "a_b"]])
def test_every_command_understands_dashes_and_underscores_in_names(words):
    options = parse(kinds.EvalConfig, [*words, "--shards=x_y", "--checkpoint=c"], "viper eval")
    assert (options.batch_size, options.out, options.shards) == (3, "a_b", "x_y")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("batch_sise: 3\n", "has no setting 'batch_sise'; did you mean batch_size?"),
        (
            "model: {faces: {margim: 3}}\n",
            "has no setting 'model.faces.margim'; did you mean model.faces.margin?",
        ),
    ],
)
def test_a_setting_that_training_does_not_know_is_told_with_its_file(content, told, tmp_path, capsys):
    right, wrong = tmp_path / "right.yaml", tmp_path / "wrong.yaml"
    right.write_text("batch_size: 3\n")
    wrong.write_text(content)
    with pytest.raises(SystemExit):
        parse_train([f"--config={right}", f"--config={wrong}", "--preset=micro"], "viper train")
    assert capsys.readouterr().err.startswith(f"viper train: {wrong}: {told}")
