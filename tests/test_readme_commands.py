"""Commands in README and the site, run letter by letter in a new shell, where `make demo` has been."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support import ROOT
from support.media import make_clip

from viper_e2e.commands.command_line import parse
from viper_e2e.commands.parsing import parse_train
from viper_e2e.config.options import InferConfig
from viper_e2e.config.presets import micro
from viper_e2e.model.viper import ViPER

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [README, *(path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("docs/**/*.md")))]
FENCED = [
    found for page in PAGES for found in re.findall(r"^```(\w*)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
]
BLOCKS = [(kind, block) for kind, block in FENCED if kind not in ("python", "py", "yaml")]
ACTIVATION = ". .venv/bin/activate\n"


def commands(kind: str, block: str) -> str:
    """What of a block is typed: all of it, or what stands behind the prompts."""
    if kind != "console":
        return block
    return "".join(re.findall(r"^\$ ((?:.*\\\n)*.*\n)", block, re.MULTILINE))


def block_with(words: str) -> str:
    (found,) = (commands(*block) for block in BLOCKS if words in commands(*block))
    return found


@pytest.fixture(scope="module")
def place(corpus, tmp_path_factory) -> Path:
    """A clone as `make demo` leaves it, but with tiny clips, and somebody's own corpus."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("train.py", "infer.py", "viper_e2e"):
        (folder / name).symlink_to(ROOT / name)
    (folder / ".venv").symlink_to(sys.prefix)
    shards = folder / "demo" / "shards"
    shutil.copytree(corpus / "shards", shards)
    for path in shards.glob("val-*"):
        shutil.copyfile(path, path.with_name(path.name.replace("val", "test")))
    torch.manual_seed(0)
    ViPER(micro(), labels_of(corpus)).save_pretrained(folder / "demo" / "run" / "checkpoints" / "best")
    (folder / "demo" / "corpus").mkdir()
    make_clip(folder / "demo" / "corpus" / "new_clip.mp4")
    shutil.copytree(corpus / "videos", folder / "videos")
    shutil.copyfile(corpus / "labels.csv", folder / "labels.csv")
    make_clip(folder / "clip.mp4")
    return folder


def labels_of(corpus: Path):
    from viper_e2e.shards import ShardSet

    return ShardSet(f"{corpus}/shards/*.tar").labels


def type_in(place: Path, text: str) -> subprocess.CompletedProcess:
    """In a shell that knows nothing but what README tells it."""
    # Of a test run: that our own tree is imported, wherever the environment has its own from.
    own = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    own |= {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(Path.home()), "COLUMNS": "120"}
    own |= {name: text for name, text in os.environ.items() if name.startswith("LC_") or name == "LANG"}
    return subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", text],
        cwd=place,
        env=own,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_shell_is_told_where_the_commands_are(place):
    assert README.index(ACTIVATION) < README.index("$ python train.py")
    assert type_in(place, "viper --version").returncode == 127
    told = type_in(place, ACTIVATION + "viper --version; command -v python")
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("viper_e2e ")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "made"),
    [
        pytest.param(
            "python train.py --preset tiny",
            ["demo/again/checkpoints/best/model.safetensors"],
            id="train",
            marks=pytest.mark.campaign,
        ),
        pytest.param(
            "viper eval --checkpoint demo/run",
            ["demo/scores/metrics.json", "demo/scores/predictions.csv"],
            id="eval",
            marks=pytest.mark.campaign,
        ),
        pytest.param(
            "python infer.py demo/corpus",
            ["demo/new_clip.json", "demo/new_clip.mp4"],
            id="infer",
            marks=pytest.mark.campaign,
        ),
        pytest.param("viper export --checkpoint demo/run", ["model/manifest.json"], id="export"),
    ],
)
def test_what_make_demo_runs_can_be_typed_after_it(words, made, place):
    done = type_in(place, ACTIVATION + block_with(words))
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    for name in made:
        assert (place / name).is_file(), name


@pytest.mark.campaign
def test_a_corpus_of_ones_own_is_packed_and_checked_and_only_weights_are_missing(place):
    pack, check, train = block_with("viper check --shards 'shards/*.tar' --faces").splitlines()
    done = type_in(place, f"{ACTIVATION}{pack}\n{check}")
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    assert_only_the_hub_is_missing(type_in(place, ACTIVATION + train))


@pytest.mark.slow
def test_a_table_of_classes_and_numbers_is_packed_by_the_command_shown(place):
    table = ["File_ID,Split,Emotion,Valence"]
    table += [f"{i},train,{('joy', 'fear')[i % 2]},{i / 10}" for i in range(4)]
    (place / "tasks").mkdir()
    (place / "tasks" / "labels.csv").write_text("\n".join(table) + "\n")
    command = block_with("--tasks Emotion=class,Valence=number").replace("labels.csv", "tasks/labels.csv")
    done = type_in(place, ACTIVATION + command.replace("--out shards", "--out tasks/shards"))
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    assert "class of emotion: fear, joy" in done.stdout


@pytest.mark.parametrize(
    "words", ["--class-weights balanced", "s3://corpus", "acted=0.3:acted", "--seeds 5", "--ensemble 5"]
)
def test_what_cannot_be_reached_from_a_test_is_understood_all_the_same(words):
    lines = block_with(words).replace("\\\n", " ").splitlines()
    for command, *given in (shlex.split(line)[1:] for line in lines):
        if command == "train":
            parse_train(given, "viper train")
        else:
            parse(InferConfig, given, "viper infer")


@pytest.mark.campaign
def test_released_checkpoints_are_fetched_by_the_commands_shown(place):
    (place / "shards").mkdir(exist_ok=True)
    for path in (place / "demo" / "shards").glob("test-*"):
        shutil.copyfile(path, place / "shards" / path.name)
    for line in block_with("VaianiLorenzo/ViPER-VA").splitlines():
        assert_only_the_hub_is_missing(type_in(place, ACTIVATION + line))


def assert_only_the_hub_is_missing(done: subprocess.CompletedProcess) -> None:
    """Nothing can be fetched where tests run: that is said in our own words, and no option is wrong."""
    assert done.returncode == 1, done.stdout[-1000:] + done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    assert re.search(r"hub|fetch", done.stderr), done.stderr


def test_all_blocks_are_known():
    """A new block gets its test here; several machines and Slurm cannot be had in a test."""
    known = [
        "make demo",
        ACTIVATION,
        "python train.py --preset tiny",
        "viper eval --checkpoint demo/run",
        "python infer.py demo/corpus",
        "viper export --checkpoint demo/run",
        "viper check --shards 'shards/*.tar' --faces",
        "--tasks Emotion=class,Valence=number",
        "--class-weights balanced",
        "viper eval … --by Gender,subject",
        "viper calibrate --checkpoint RUN",
        "viper cv --train-shards",
        "viper train … --folds runs/cv/folds.json --fold 3",
        "viper compare runs/ridge",
        "viper eval … --map",
        "s3://corpus",
        "python datasets/meld.py --facts",
        "acted=0.3:acted",
        "File_ID,Path,Split,Start,End",
        "viper pack … --dry-run",
        "--window-seconds 2 --out shards",
        "TRACKIO_DIR=runs/trackio",
        "--seeds 5",
        "--ensemble 5",
        "--grid fusion.dropout",
        "--random 20",
        "--optuna 30",
        "viper ablate --retrain --preset",
        "--transcribe openai",
        "VaianiLorenzo/ViPER-VA",
        "python infer.py clip.mp4 --checkpoint RUN",
        "viper infer --config scores.yaml",
        "torchrun --standalone",
        "#SBATCH",
        "viper_e2e/\n  errors.py",
    ]
    for kind, block in BLOCKS:
        assert sum(words in commands(kind, block) for words in known) == 1, block


def test_the_scripts_for_slurm_and_torchrun_are_read_by_a_shell():
    for words in ("torchrun --standalone", "#SBATCH"):
        subprocess.run(["bash", "-n", "-c", block_with(words)], check=True)


def test_what_pip_is_told_to_install_can_be_installed():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    extras = dict(config["options.extras_require"])
    packages = {re.split(r"[\[<>=;]", line)[0] for text in extras.values() for line in text.split()}
    told = re.findall(r"pip install ('[^']+'|[^\s`]+)", "".join(PAGES))
    assert len(told) > 3
    for what in told:
        extra = re.fullmatch(r"'?\.(?:\[([\w-]+)\])?'?", what)
        assert extra.group(1) in (None, *extras) if extra else what in packages, what
