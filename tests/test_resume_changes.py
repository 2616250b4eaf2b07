"""A resumed run with something changed: either the change takes effect, or it is refused in a line."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import yaml
from accelerate import Accelerator
from support.training_runs import arguments, lines, run

from viper_e2e.commands.cli import main
from viper_e2e.commands.parsing import parse_train
from viper_e2e.config import FusionConfig
from viper_e2e.packing import pack
from viper_e2e.tables import write_labels
from viper_e2e.training.trainer import Trainer, open_trainer

pytestmark = pytest.mark.slow

BEGUN = (
    "--unfreeze=visual",
    "--batch-size=2",
    "--lr=0.01",
    "--backbone-lr=0.001",
    "--epochs=2",
    "--max-steps=2",
)
GO_ON = "--max-steps=3"


def repacked(corpus: Path, folder: Path, *, order=("Joy", "Fear"), change=None, drop: str = "") -> Path:
    with (corpus / "labels.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["File_ID"] != drop]
    for row in rows:
        row |= change(row) if change else {}
    folder.mkdir(parents=True)
    write_labels(folder / "labels.csv", [{k: row[k] for k in ("File_ID", "Split", *order)} for row in rows])
    assert pack(corpus / "videos", folder / "labels.csv", folder / "shards").exit_code == 0
    return folder / "shards"


@pytest.fixture(scope="module")
def shards(corpus, tmp_path_factory) -> Path:
    """The corpus packed as all the others here are."""
    return repacked(corpus, tmp_path_factory.mktemp("shards") / "same")


@pytest.fixture(scope="module")
def begun(shards, tmp_path_factory) -> Path:
    """A run of two steps, stopped in the middle of an epoch."""
    folder = tmp_path_factory.mktemp("begun") / "run"
    return run(shards.parent, folder, *BEGUN, f"--val-shards={shards}/val-*.tar")


@pytest.fixture
def going_on(begun, tmp_path):
    """A copy of the run, whose settings still name the first one's folder."""
    return shutil.copytree(begun, tmp_path / "run")


def resume(folder: Path, *words: str) -> int:
    """`viper train` with nothing but this."""
    return main(["train", "--resume", f"--run-dir={folder}", *words])


def trained(folder: Path, *words: str) -> Trainer:
    """In this process, to look at it."""
    settings = parse_train(["--resume", f"--run-dir={folder}", *words], "viper train")
    trainer = open_trainer(settings, Accelerator(cpu=True, step_scheduler_with_optimizer=False))
    assert trainer.train() == 0
    trainer.close()
    return trainer


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def said_to_be(folder: Path) -> dict:
    return yaml.safe_load((folder / "config.yaml").read_text())


REFUSED = [
    ("--seed=3", "--seed: 3; the run has 0"),
    ("--batch-size=4", "--batch-size: 4; the run has 2"),
    ("--accumulation=2", "--accumulation: 2; the run has 1"),
    ("--loss=ccc=1", "--loss: ccc=1; the run has mse=1"),
    ("--schedule=constant", "--schedule: constant; the run has cosine"),
    ("--mixed-precision=bf16", "--mixed-precision: bf16; the run has no"),
    ("--modalities=visual", "--model.modalities: ['visual']; the run has ['visual', 'audio']"),
    ("--model.fusion.output=linear", "--model.fusion.output: linear; the run has auto"),
    ("--model.decoding.span-seconds=1", "--model.decoding.span-seconds: 1.0; the run has"),
    ("--model.faces.margin=0.3", "--model.faces.margin: 0.3; the run has"),
    ("--freeze=visual", "--unfreeze: visual=none,audio=none; the run has visual=all,audio=none"),
    ("--unfreeze=audio", "--unfreeze: visual=all,audio=all; the run has visual=all,audio=none"),
    ("--augment=all", "--augment: all; the run has none"),
    ("--ema-decay=0.9", "--ema-decay: 0.9; the run has 0.0"),
    ("--shuffle-window=4", "--shuffle-window: 4; the run has 2048"),
    ("--preset=tiny", "--preset: tiny; the run has micro"),
    ("--rescale", "--rescale: True; the run has False"),
    ("--unfreeze-at=1:audio=all", "--unfreeze-at: 1:audio=all; the run has none"),
]
TRIED = ("--seed=3", "--loss=ccc=1", "--modalities=visual", "--freeze=visual", "--augment=all", "--preset=tiny")
TRIED += ("--rescale", "--unfreeze-at=1:audio=all")
"""One of each kind of setting; the campaign tries all."""


@pytest.mark.parametrize(
    ("word", "said"),
    [
        pytest.param(word, said, id=word, marks=() if word in TRIED else pytest.mark.campaign)
        for word, said in REFUSED
    ],
)
def test_what_may_not_change_is_refused_in_a_line_and_nothing_is_written(going_on, word, said, capsys):
    before = content(going_on)
    assert resume(going_on, GO_ON, word) == 1
    told = capsys.readouterr().err
    assert said in told
    assert "name another --run-dir" in told
    assert content(going_on) == before


def test_every_difference_is_a_line_of_its_own(going_on, capsys):
    assert resume(going_on, "--seed=3", "--batch-size=4", "--lr=1e-5", "--loss=ccc=1") == 1
    assert [line.split(":")[0].strip() for line in capsys.readouterr().err.strip().split("\n")[1:]] == [
        "--batch-size",
        "--loss",
        "--seed",
    ]


DATA = {
    "other values": (
        {"change": lambda row: {"Joy": 0.5}},
        "--train-shards: other clips or labels than in the run",
    ),
    "a clip less": ({"drop": "[3]"}, "--train-shards: 7 clips in 1 shard; the run has 8 in 1"),
    "other names": (
        {"order": ("Fear", "Anger"), "change": lambda row: {"Anger": row["Joy"]}},
        "labels: fear, anger",
    ),
}


@pytest.mark.parametrize("name", DATA)
def test_other_data_is_refused(corpus, going_on, tmp_path, name, capsys):
    how, said = DATA[name]
    other = repacked(corpus, tmp_path / "other", **how)
    before = content(going_on)
    words = [f"--train-shards={other}/train-*.tar", f"--val-shards={other}/val-*.tar"]
    assert resume(going_on, GO_ON, *words) == 1
    assert said in capsys.readouterr().err
    assert content(going_on) == before


def test_other_validation_clips_are_refused(shards, going_on, capsys):
    assert resume(going_on, GO_ON, f"--val-shards={shards}/train-*.tar") == 1
    assert "--val-shards: 8 clips in 1 shard; the run has 4 in 1" in capsys.readouterr().err


def test_rates_and_decay_take_effect_and_are_what_the_settings_say(going_on):
    words = ("--lr=0.0001", "--backbone-lr=0.00002", "--weight-decay=0.5", "--clip-norm=0.25", GO_ON)
    trainer = trained(going_on, *words)
    assert {group["initial_lr"] for group in trainer.learner.optimizer.param_groups} == {0.0001, 0.00002}
    assert {group["weight_decay"] for group in trainer.learner.optimizer.param_groups} == {0.5, 0.0}
    assert max(group["lr"] for group in trainer.learner.optimizer.param_groups) <= 0.0001
    saved = said_to_be(going_on)
    assert (saved["lr"], saved["weight_decay"], saved["max_steps"]) == (0.0001, 0.5, 3)
    (change,) = lines(going_on, "changes.jsonl")
    assert change["step"] == 2
    assert change["changes"]["lr"] == [0.01, 0.0001]


def test_a_run_at_its_end_does_not_claim_what_it_did_not_use(going_on, capsys):
    before = said_to_be(going_on)
    assert resume(going_on, "--lr=0.5") == 0
    assert said_to_be(going_on) == before
    assert "nothing is left to train" in capsys.readouterr().err


ALLOWED = (
    *("--num-workers=1", "--prefetch=3", "--reuse-memory=1GB", "--save-every-steps=1", "--on-error=raise"),
    *("--clip-timeout-seconds=50", "--save-every-minutes=9", "--process-timeout-seconds=70", "--epochs=1"),
)


def test_how_the_work_is_done_may_change_and_the_run_moves_with_its_shards(
    going_on, shards, tmp_path, monkeypatch
):
    moved = shutil.copytree(shards, tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    assert resume(Path("run"), GO_ON, *ALLOWED, "--train-shards=elsewhere/train-*.tar") == 0
    saved = said_to_be(going_on)
    assert (saved["num_workers"], saved["epochs"], saved["on_error"]) == (1, 1, "raise")
    assert saved["train_shards"] == f"{moved}/train-*.tar"
    assert saved["run_dir"] == str(going_on)
    assert lines(going_on, "metrics.jsonl")[-1]["step"] == 3


def test_a_run_that_began_before_a_setting_existed_goes_on_with_its_default(going_on):
    """The preset may have another value for it by now; the run had none."""
    saved = said_to_be(going_on)
    assert saved["model"]["fusion"].pop("dropout") == 0.0 != FusionConfig().dropout
    (going_on / "config.yaml").write_text(yaml.safe_dump(saved))
    assert resume(going_on, GO_ON) == 0
    assert said_to_be(going_on)["model"]["fusion"]["dropout"] == FusionConfig().dropout


def test_columns_in_another_order_are_the_same_labels(corpus, going_on, tmp_path):
    swapped = repacked(corpus, tmp_path / "swapped", order=("Fear", "Joy"))
    words = [f"--train-shards={swapped}/train-*.tar", f"--val-shards={swapped}/val-*.tar"]
    one = shutil.copytree(going_on, tmp_path / "one")
    assert resume(one, GO_ON) == resume(going_on, GO_ON, *words) == 0
    assert (one / "metrics.jsonl").read_text() == (going_on / "metrics.jsonl").read_text()
    labels = json.loads((going_on / "checkpoints/last/config.json").read_text())["labels"]
    assert labels["columns"] == ["Joy", "Fear"]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("config.yaml", "lr: ["),
        ("config.yaml", "[" * 2_000),
        ("data.json", "{"),
        ("data.json", '{"labels": 5}'),
        ("data.json", '{"train": {}}'),
        ("data.json", '{"train": {"clips": 1, "sha256": "", "shards": [5]}}'),
    ],
)
def test_a_damaged_record_of_the_run_is_an_error_in_a_line(going_on, file, text, capsys):
    (going_on / file).write_text(text)
    assert resume(going_on) == 1
    (line,) = capsys.readouterr().err.strip().split("\n")
    assert file in line


@pytest.mark.campaign
def test_seeds_go_on_by_their_folder_alone(shards, tmp_path):
    words = arguments(shards.parent, tmp_path / "runs", "--batch-size=4", "--max-steps=1", "--seeds=2")
    assert main(["train", *words]) == 0
    assert resume(tmp_path / "runs", "--max-steps=2") == 0
    for seed in (0, 1):
        assert lines(tmp_path / "runs" / f"seed-{seed}", "metrics.jsonl")[-1]["step"] == 2
