"""Several processes train as one, and when one is lost the others say which and end."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support import ROOT
from support.fork_server import together
from support.training_runs import JOINT, arguments, largest_difference, lines, make_corpus, run, same, weights

from viper_e2e.commands.cli import main

pytestmark = [pytest.mark.survival, pytest.mark.slow]

TWO = (*JOINT, "--batch-size=1")
"""In two processes the same steps as JOINT in one."""


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(("--loss=mse=1",), id="mse", marks=pytest.mark.campaign),
        pytest.param(("--loss=pearson=1,ccc=1",), id="correlations", marks=pytest.mark.campaign),
        pytest.param(("--loss=mse=1,pearson=1", "--accumulation=2"), id="accumulation"),
        pytest.param(
            ("--loss=ccc=1", "--unfreeze=visual=1,audio=1", "--reuse-memory=1GB"),
            id="blocks",
            marks=pytest.mark.campaign,
        ),
    ],
)
def test_gradients_of_two_processes_are_those_of_one(corpus, fork_server, tmp_path, words):
    is_mse = words[0] == "--loss=mse=1"
    # A correlation divides by how much predictions differ, which is little at first: in float32 rounding grows
    # to 1e-5 there (largest gradient 0.66). In float64 it hides nothing.
    dtype, bound = ("float32", 1e-6) if is_mse else ("float64", 1e-12)
    words = (*words, "--max-steps=1", "--clip-norm=0", "--seed=3")
    alone, shared = tmp_path / "alone.pt", tmp_path / "shared.pt"
    how = arguments(corpus, tmp_path / "1", *JOINT, *words), str(alone), dtype
    one = fork_server.fork("record_gradients", *how)
    assert one.wait() == 0, one.said
    together(
        fork_server, "record_gradients", arguments(corpus, tmp_path / "2", *TWO, *words), str(shared), dtype
    )
    compared = 0
    for ours, theirs in zip(torch.load(alone), torch.load(shared), strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            assert ours.dtype == getattr(torch, dtype)
            assert (ours - theirs).abs().max() <= bound
            compared += bool(ours.abs().max() > 1e-4)
    assert compared > 20


def test_numbers_and_records_go_by_a_group_of_the_cpu_whatever_the_device(fork_server, tmp_path):
    together(fork_server, "speak", str(tmp_path / "said"))
    for rank in range(2):
        table, items, used = json.loads((tmp_path / f"said.{rank}").read_text())
        assert table == [[0.1, 2.0], [1.1, 2.0]]
        assert items == [0, 1, 1]
        assert {name for name, *_ in used} == {"all_gather", "all_gather_object", "barrier"}
        assert {(backend, is_world) for _, backend, is_world in used} == {("gloo", False)}


@pytest.fixture(scope="module")
def validated(corpus, fork_server, tmp_path_factory):
    """A run in one process and its twin in two, with validation; the weights hardly move."""
    folder = tmp_path_factory.mktemp("validated")
    words = (f"--val-shards={corpus}/shards/val-*.tar", "--max-steps=1", "--lr=1e-9", "--backbone-lr=1e-9")
    assert fork_server.fork("train", arguments(corpus, folder / "1", *JOINT, *words)).wait() == 0
    together(fork_server, "train", arguments(corpus, folder / "2", *TWO, "--batch-size=3", *words))
    return folder


def test_validation_counts_each_clip_once_and_measures_the_same(validated):
    one, two = (lines(validated / name, "metrics.jsonl")[0]["val"] for name in "12")
    assert one["num_clips"] == two["num_clips"] == 4
    for measure in ("pearson", "ccc", "mse"):
        for emotion, value in one[measure].items():
            assert two[measure][emotion] == (None if value is None else pytest.approx(value, abs=1e-6))


@pytest.mark.campaign
def test_more_processes_and_workers_than_shards(corpus, fork_server, tmp_path):
    words = arguments(corpus, tmp_path / "run", *TWO, "--epochs=1", "--num-workers=2")
    assert len(list((corpus / "shards").glob("train-*.tar"))) == 1
    together(fork_server, "train", words, count=3)
    assert lines(tmp_path / "run", "metrics.jsonl")[0]["step"] == 3  # 8 clips, 3 at a time


def test_a_process_that_can_read_no_clip_at_all_keeps_step(corpus, fork_server, tmp_path):
    words = arguments(corpus, tmp_path / "run", *TWO, "--epochs=2")
    together(fork_server, "change_clips", words, "unreadable", [1])
    skipped = [record["key"] for record in lines(tmp_path / "run", "skipped.jsonl")]
    assert skipped
    assert len(skipped) == len(set(skipped))
    assert lines(tmp_path / "run", "metrics.jsonl")[-1]["step"] == 8


def test_validation_clips_that_one_process_cannot_read_are_counted_by_all(corpus, fork_server, tmp_path):
    words = arguments(corpus, tmp_path / "run", *TWO, "--epochs=1", f"--val-shards={corpus}/shards/val-*.tar")
    together(fork_server, "change_clips", words, "unreadable", [1])
    records = [r for r in lines(tmp_path / "run", "skipped.jsonl") if r.get("split") == "val"]
    assert len({record["key"] for record in records}) == len(records) == 2
    assert lines(tmp_path / "run", "metrics.jsonl")[0]["val"]["num_left_out"] == 2


def test_sound_that_is_absent_on_one_process_only(corpus, fork_server, tmp_path):
    words = arguments(corpus, tmp_path / "run", *TWO, "--epochs=1")
    together(fork_server, "change_clips", words, "silent", [1])
    assert lines(tmp_path / "run", "metrics.jsonl")[-1]["step"] == 4


@pytest.mark.parametrize(
    ("what", "lost"),
    [
        ("raises", 1),
        pytest.param("dies", 0, marks=pytest.mark.campaign),
        pytest.param("stalls", 1, marks=pytest.mark.campaign),
        pytest.param("raises", 0, marks=pytest.mark.campaign),
        pytest.param("dies", 1, marks=pytest.mark.campaign),
        pytest.param("stalls", 0, marks=pytest.mark.campaign),
    ],
)
def test_when_a_process_is_lost_the_others_name_it_and_end(corpus, fork_server, tmp_path, what, lost):
    words = arguments(corpus, tmp_path / "run", *TWO, "--process-timeout-seconds=8")
    children = fork_server.fork_processes(2, "fail", words, what, [lost], 2)
    survivor = children[1 - lost]
    assert survivor.wait() == 1, survivor.said
    assert f"process {lost}" in survivor.said
    if what == "raises":
        assert "made to fail" in children[lost].said
        if lost:  # the store, and what is written there, lives in the first process
            assert "process 1 failed: ZeroDivisionError: made to fail" in survivor.said
    children[lost].send(signal.SIGKILL)
    assert children[lost].wait() != 0


def test_one_unreadable_clip_ends_all_where_errors_are_raised(corpus, fork_server, tmp_path):
    words = arguments(corpus, tmp_path / "run", *TWO, "--on-error=raise")
    said = together(fork_server, "change_clips", words, "unreadable", [1], expect=1)
    assert "made unreadable" in said[1]
    assert "process 1 failed: ViperError" in said[0]


def test_clips_in_memory_are_used_again_by_their_process(corpus, fork_server, tmp_path):
    plain = arguments(corpus, tmp_path / "plain", *TWO, "--epochs=2")
    cached = arguments(corpus, tmp_path / "cached", *TWO, "--epochs=2", "--reuse-memory=1GB")
    together(fork_server, "train", plain)
    together(fork_server, "count_decodes", cached, str(tmp_path / "decoded"))
    assert same(weights(tmp_path / "plain"), weights(tmp_path / "cached"))
    decoded = [(tmp_path / f"decoded.{rank}").read_text().split() for rank in range(2)]
    assert all(len(keys) == len(set(keys)) for keys in decoded)
    assert set(decoded[0]) | set(decoded[1]) == {str(i) for i in range(8)}


def test_trainings_of_one_command_find_clips_where_their_home_is(corpus, vit, fork_server, tmp_path):
    words = ("--modalities=visual", f"--backbone=visual={vit}", "--max-steps=4")
    two = arguments(corpus, tmp_path / "two", "--batch-size=2", *words, "--seeds=2")
    together(fork_server, "count_decodes", two, str(tmp_path / "decoded"))
    decoded = [(tmp_path / f"decoded.{rank}").read_text().split() for rank in range(2)]
    assert all(len(keys) == len(set(keys)) for keys in decoded)
    one = run(corpus, tmp_path / "one", "--batch-size=4", *words, "--seeds=2")
    for seed in ("seed-0", "seed-1"):
        assert largest_difference(weights(one / seed), weights(tmp_path / "two" / seed)) <= 1e-6


@pytest.mark.campaign
def test_two_processes_sweep_as_one_does(corpus, vit, fork_server, tmp_path):
    words = ["--modalities=visual", f"--backbone=visual={vit}", "--max-steps=2"]
    words += [f"--val-shards={corpus}/shards/val-*.tar", "--grid", "lr=1e-3,1e-2", "backbone_lr=1e-4,1e-5"]
    own = arguments(corpus, tmp_path / "two", "--batch-size=1", *words)
    said = together(fork_server, "command", ["sweep", *own])
    assert main(["sweep", *arguments(corpus, tmp_path / "one", "--batch-size=2", *words)]) == 0
    one, two = (json.loads((tmp_path / name / "sweep.json").read_text())["trials"] for name in ("one", "two"))
    for a, b in zip(one, two, strict=True):
        assert b["mean_mse"] == pytest.approx(a["mean_mse"], abs=1e-6)
        assert a.get("same_as") == b.get("same_as")
    assert sum("had no effect" in text for text in said) == 1
    assert sum("mean Pearson" in text.partition("\nsweep")[2] for text in said) == 1, (
        "one alone prints the table"
    )


@pytest.mark.campaign
def test_two_processes_cross_validate_as_one_does(corpus, vit, fork_server, tmp_path):
    words = [
        "--folds=2",
        "--modalities=visual",
        f"--backbone=visual={vit}",
        "--max-steps=2",
    ]
    own = arguments(corpus, tmp_path / "two", *words, "--batch-size=1")
    said = together(fork_server, "command", ["cv", *own])
    assert main(["cv", *arguments(corpus, tmp_path / "one", *words, "--batch-size=2")]) == 0
    for fold in ("fold-1", "fold-2"):
        one, two = (list(csv.DictReader((tmp_path / n / fold / "held_out.csv").open())) for n in ("one", "two"))
        assert [row["key"] for row in one] == [row["key"] for row in two]
        for a, b in zip(one, two, strict=True):
            for name in ("predicted_joy", "predicted_fear"):
                assert float(b[name]) == pytest.approx(float(a[name]), abs=1e-6)
        assert largest_difference(weights(tmp_path / "one" / fold), weights(tmp_path / "two" / fold)) <= 1e-6
    assert sum("measure" in text for text in said) == 1, "one process alone prints the tables"


def test_a_step_without_a_number_on_one_process_is_made_on_none(corpus, fork_server, tmp_path):
    words = arguments(corpus, tmp_path / "run", *TWO, "--epochs=1")
    together(fork_server, "no_number", words, [2], [1], 1, str(tmp_path / "weights"))
    record, *more = lines(tmp_path / "run", "nonfinite.jsonl")
    assert not more
    assert record["step"] == 2
    assert len(record["keys"]) == 2  # of both processes
    assert same(load_file(tmp_path / "weights.0"), load_file(tmp_path / "weights.1"))


def test_three_steps_without_a_number_send_all_back_to_the_last_checkpoint(corpus, fork_server, tmp_path):
    words = arguments(corpus, tmp_path / "run", *TWO, "--epochs=2")
    said = together(fork_server, "no_number", words, [5, 6, 7], [1], 1, str(tmp_path / "weights"))
    assert "back to step 4 without" in said[0]
    bad = lines(tmp_path / "run", "nonfinite.jsonl")
    assert [record["step"] for record in bad] == [5, 6, 7]
    skipped = {record["key"]: record for record in lines(tmp_path / "run", "skipped.jsonl")}
    assert set(skipped) == {key for record in bad for key in record["keys"]}
    assert {record["stage"] for record in skipped.values()} == {"quarantine"}
    assert same(load_file(tmp_path / "weights.0"), load_file(tmp_path / "weights.1"))
    assert lines(tmp_path / "run", "metrics.jsonl")[-1]["step"] == 8
    state = torch.load(tmp_path / "run" / "checkpoints" / "last" / "training.pt", weights_only=True)
    assert set(state["quarantined"]["train"]) == set(skipped)


def test_a_signal_to_one_process_stops_all_and_two_go_on_bitwise(corpus, fork_server, tmp_path):
    whole = arguments(corpus, tmp_path / "whole", *TWO, "--epochs=2")
    together(fork_server, "train", whole)
    words = arguments(corpus, tmp_path / "run", *TWO, "--epochs=2")
    together(fork_server, "stop", words, 5, signal.SIGUSR1, [1], expect=138)
    together(fork_server, "train", [*words, "--resume"])
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "run"))


def test_a_clip_that_ended_a_worker_of_one_process_is_known_to_the_checkpoint(corpus, fork_server, tmp_path):
    words = arguments(corpus, tmp_path / "run", *TWO, "--epochs=1")
    together(fork_server, "lose_a_worker", words, [1])
    state = torch.load(tmp_path / "run" / "checkpoints" / "last" / "training.pt", weights_only=True)
    assert state["quarantined"] == {"train": {"0": "killed by SIGSEGV"}, "val": {}}


def test_weights_of_two_processes_are_those_of_one(corpus, fork_server, tmp_path):
    # Adam divides by the gradient's size: after a few steps roundings of 1e-8 have grown.
    words = ("--max-steps=3", "--lr=0.001", "--backbone-lr=0.001")
    assert fork_server.fork("train", arguments(corpus, tmp_path / "1", *JOINT, *words)).wait() == 0
    together(fork_server, "train", arguments(corpus, tmp_path / "2", *TWO, *words))
    assert largest_difference(weights(tmp_path / "1"), weights(tmp_path / "2")) <= 1e-5


# --- infer and eval -------------------------------------------------------------------------------


def scoring(validated, corpus, folder, what: str) -> tuple[list[str], Path]:
    """Words of a command that scores clips, and the file in which it all ends."""
    model = ["--checkpoint", str(validated / "1" / "checkpoints" / "best"), "--num-workers=0", "--batch-size=1"]
    folder.mkdir()
    if what == "eval":
        return [
            "eval",
            *model,
            f"--shards={corpus}/shards/train-*.tar",
            f"--out={folder}",
        ], folder / "predictions.csv"
    return ["infer", str(corpus / "videos"), *model, f"--output={folder}/records.csv"], folder / "records.csv"


def table_of(path: Path) -> list[dict[str, str | float]]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: float(v) if v.replace(".", "").isdigit() else v for name, v in row.items()} for row in rows]


@pytest.mark.parametrize("what", ["eval", pytest.param("infer", marks=pytest.mark.campaign)])
def test_clips_are_scored_once_by_two_processes_also_after_a_death(
    validated, corpus, fork_server, tmp_path, what
):
    words, one = scoring(validated, corpus, tmp_path / "1", what)
    assert fork_server.fork("score", words, str(tmp_path / "alone")).wait() == 0
    assert not list((tmp_path / "1").rglob("process-*"))  # all of it is in the one file
    words, two = scoring(validated, corpus, tmp_path / "2", what)
    together(fork_server, "score", words, str(tmp_path / "before"), 2, expect=77)
    assert not two.exists()
    parts = sorted((tmp_path / "2").rglob("process-*.jsonl"))
    assert [part.name for part in parts] == ["process-0-of-2.jsonl", "process-1-of-2.jsonl"]
    with parts[0].open("a") as torn:
        torn.write('{"identity": "')
    together(fork_server, "score", words, str(tmp_path / "after"))
    decoded = [
        key for name in ("before", "after") for r in "01" for key in decoded_by(tmp_path / f"{name}.{r}")
    ]
    assert sorted(decoded) == sorted(decoded_by(tmp_path / "alone.0"))
    assert len(decoded_by(tmp_path / "before.0")) == len(decoded_by(tmp_path / "before.1")) == 2
    for ours, theirs in zip(table_of(one), table_of(two), strict=True):
        assert theirs == pytest.approx(ours, abs=1e-6)
    together(fork_server, "score", words, str(tmp_path / "again"))
    assert not list(tmp_path.glob("again.*"))  # nothing was left to be decoded


def decoded_by(file: Path) -> list[str]:
    return file.read_text().split()


# --- the real launcher ----------------------------------------------------------------------------


def torchrun(*words: str) -> subprocess.CompletedProcess:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*launch, *words], env=environment, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.campaign
def test_torchrun_trains_in_two_processes_and_names_the_one_that_fails(corpus, tmp_path):
    run = tmp_path / "run"
    done = torchrun(str(ROOT / "train.py"), *arguments(corpus, run, *TWO, "--epochs=1"))
    assert done.returncode == 0, done.stderr
    assert lines(run, "metrics.jsonl")[0]["step"] == 4
    torn = make_corpus(tmp_path / "torn", num_train=4, num_val=0)
    shard = next((torn / "shards").glob("train-*.tar"))
    data = bytearray(shard.read_bytes())
    start = data.index(b"ftyp")
    data[start - 4 : start + 300] = bytes(304)
    shard.write_bytes(data)
    failed = torchrun(str(ROOT / "train.py"), *arguments(torn, tmp_path / "torn run", *TWO, "--on-error=raise"))
    assert failed.returncode != 0
    assert "process 0 of 2" in failed.stderr or "process 1 of 2" in failed.stderr


@pytest.mark.campaign
def test_torchrun_ablates_in_two_processes_as_one_does(corpus, tmp_path):
    """Started as people start it; `test_identity.py` has the same in forked processes."""
    model = run(corpus, tmp_path / "run", "--epochs=1", "--batch-size=4")
    words = [f"--checkpoint={model}/checkpoints/last", f"--shards={corpus}/shards/train-*.tar"]
    words = ["ablate", *words, "--num-workers=1", "--batch-size=2"]
    assert main([*words, f"--out={tmp_path}/one"]) == 0
    done = torchrun("-m", "viper_e2e", *words, f"--out={tmp_path}/two")
    assert done.returncode == 0, done.stderr
    one, two = (json.loads((tmp_path / n / "ablation.json").read_text()) for n in ("one", "two"))
    assert one["failed"] == two["failed"] == {}
    assert [row["modalities"] for row in one["rows"]] == [row["modalities"] for row in two["rows"]]
    for a, b in zip(one["rows"], two["rows"], strict=True):
        for name in ("mean_pearson", "low", "high"):
            assert b[name] == pytest.approx(a[name], abs=1.01e-6)  # written to six digits
        assert b["pearson"] == pytest.approx(a["pearson"], abs=1.01e-6)
    assert done.stdout.count("mean Pearson") == 1, "one process alone prints the table"
