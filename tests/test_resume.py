"""A run that is stopped, killed or damaged goes on bitwise where it stood, or says why it cannot."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import ROOT
from support.selection import some_of
from support.training_runs import JOINT, arguments, lines, same, weights

from viper_e2e.model.checkpoint import newest_whole

pytestmark = [pytest.mark.survival, pytest.mark.slow]

CODES = {signal.SIGTERM: 143, signal.SIGUSR1: 138, signal.SIGINT: 130}
TRAINED = {"frozen": ("--freeze=all",), "joint": ()}


def losses_equal(one: Path, other: Path) -> bool:
    return (one / "metrics.jsonl").read_text() == (other / "metrics.jsonl").read_text()


@pytest.fixture(scope="module")
def whole_runs(corpus, fork_server, tmp_path_factory):
    """`whole_runs(*words)`: the folder of an uninterrupted run, made once."""
    made: dict[tuple[str, ...], Path] = {}

    def run(*words: str) -> Path:
        if words not in made:
            made[words] = tmp_path_factory.mktemp("whole") / "run"
            assert fork_server.fork("train", arguments(corpus, made[words], *words)).wait() == 0
        return made[words]

    return run


# --- a signal, then --resume ----------------------------------------------------------------------

COMBINATIONS = [
    (trained, workers, accumulation, reuse, loss)
    for trained, accumulation, reuse in itertools.product(TRAINED, (1, 3), ("0", "1GB"))
    for workers, loss in ((0, "mse=1"), (0, "mse=1,pearson=0.5,ccc=0.5"), (2, "mse=1"))
]
KEPT = [COMBINATIONS[20]]
"""With workers and accumulation; each takes three trainings, and the campaign runs all."""


@pytest.mark.parametrize(
    "combination",
    some_of(COMBINATIONS, lambda _, combination: combination in KEPT, lambda some: "-".join(map(str, some))),
)
def test_a_stopped_run_goes_on_bitwise(corpus, fork_server, whole_runs, tmp_path, combination):
    trained, workers, accumulation, reuse, loss = combination
    common = (*JOINT, "--epochs=2", f"--val-shards={corpus}/shards/val-*.tar", *TRAINED[trained])
    common += (f"--accumulation={accumulation}", f"--loss={loss}")
    whole = whole_runs(*common)
    run = tmp_path / "run"
    words = arguments(corpus, run, *common, f"--num-workers={workers}", f"--reuse-memory={reuse}")
    choice = COMBINATIONS.index(combination)
    number = list(CODES)[choice % 3]
    step = (0, 2)[choice % 2] if accumulation == 3 else (1, 4, 5, 6)[choice % 4]
    assert fork_server.fork("stop", words, step, number).wait() == CODES[number]
    assert fork_server.fork("train", [*words, "--resume"]).wait() == 0
    assert same(weights(whole), weights(run))
    assert same(weights(whole, "best"), weights(run, "best"))
    assert losses_equal(whole, run)


def test_there_are_as_many_combinations_as_promised():
    assert len(set(COMBINATIONS)) == 24


MODALITIES = ("visual", "audio", "textual", "visual,audio,textual")
PRECISIONS = ("no", "bf16", "fp16")
TRAINED_BACKBONES = {"textual": "image_text", "visual,audio,textual": "visual,audio=1,image_text"}
MATRIX = [(m, p, t) for m in MODALITIES for p in PRECISIONS for t in ("frozen", "trained")]


@pytest.mark.parametrize(
    ("modalities", "precision", "trained"),
    [
        pytest.param(*case, marks=() if case == ("textual", "bf16", "trained") else (pytest.mark.campaign,))
        for case in MATRIX
    ],
)
def test_every_modality_goes_on_bitwise_in_every_precision(
    corpus, fork_server, tmp_path, modalities, precision, trained
):
    unfrozen = TRAINED_BACKBONES.get(modalities, modalities)
    common = [f"--modalities={modalities}", f"--mixed-precision={precision}", "--epochs=2", "--batch-size=4"]
    common += ["--lr=0.01", "--ema-decay=0.9", f"--val-shards={corpus}/shards/val-*.tar"]
    common += [f"--unfreeze={unfrozen}"] if trained == "trained" else ["--freeze=all"]

    def run(case: str, folder: str, *more: object, words: tuple[str, ...] = ()) -> int:
        given = [case, arguments(corpus, tmp_path / folder, *common, *words), *more]
        child = fork_server.fork("with_scaler", *given) if precision == "fp16" else fork_server.fork(*given)
        return child.wait()

    assert run("train", "whole") == 0
    assert run("stop", "cut", 1, signal.SIGTERM) == 143
    assert run("train", "cut", words=("--resume",)) == 0
    for name in ("last", "best"):
        assert same(weights(tmp_path / "whole", name), weights(tmp_path / "cut", name))
    assert losses_equal(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.slow
def test_validation_in_bf16_scores_what_eval_scores(corpus, fork_server, tmp_path):
    words = ["--modalities=visual,textual", "--mixed-precision=bf16", "--epochs=1", "--batch-size=4"]
    val = f"{corpus}/shards/val-*.tar"
    child = fork_server.fork("train", arguments(corpus, tmp_path / "run", *words, f"--val-shards={val}"))
    assert child.wait() == 0, child.said
    given = ["eval", f"--shards={val}", f"--checkpoint={tmp_path / 'run/checkpoints/last'}"]
    given += [f"--out={tmp_path / 'out'}", "--mixed-precision=bf16"]
    child = fork_server.fork("command", given)
    assert child.wait() in (0, 2), child.said
    scored = json.loads((tmp_path / "out" / "metrics.json").read_text())
    validated = lines(tmp_path / "run", "metrics.jsonl")[0]["val"]
    assert scored["mse"] == pytest.approx(validated["mse"], abs=1e-6)


@pytest.mark.campaign
@pytest.mark.parametrize("number", CODES, ids=[number.name for number in CODES])
def test_a_real_process_stops_by_each_signal_and_goes_on_bitwise(
    corpus, fork_server, whole_runs, tmp_path, number
):
    words = (*JOINT, "--epochs=16")
    whole = whole_runs(*words)
    run = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *arguments(corpus, run, *words)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
    )
    while not lines(run, "metrics.jsonl"):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    assert process.wait(timeout=120) == CODES[number]
    assert fork_server.fork("train", [*arguments(corpus, run, *words), "--resume"]).wait() == 0
    assert same(weights(whole), weights(run))
    assert losses_equal(whole, run)


@pytest.mark.campaign
def test_a_lost_terminal_saves_like_the_others_and_says_how_to_go_on(corpus, fork_server, whole_runs, tmp_path):
    common = (*JOINT, "--epochs=2")
    run = tmp_path / "my run"
    words = arguments(corpus, run, *common)
    stopped = fork_server.fork("stop", words, 2, signal.SIGHUP)
    assert stopped.wait() == 129
    assert (run / "checkpoints/last/manifest.json").exists()
    assert fork_server.fork("train", [*words, "--resume"]).wait() == 0
    assert same(weights(whole_runs(*common)), weights(run))


def test_a_second_signal_leaves_at_once(corpus, fork_server, tmp_path):
    child = fork_server.fork("hang", arguments(corpus, tmp_path / "run", *JOINT), 2)
    while "hanging" not in child.said:
        time.sleep(0.01)
    child.send(signal.SIGTERM)
    time.sleep(0.05)
    child.send(signal.SIGUSR1)
    assert child.wait() == 138
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_two_runs_on_one_folder_and_the_folder_of_a_dead_one(corpus, fork_server, whole_runs, tmp_path):
    run = tmp_path / "run"
    words = arguments(corpus, run, *JOINT)
    first = fork_server.fork("hang", [*words, "--save-every-steps=1"], 2)
    while "hanging" not in first.said:
        time.sleep(0.01)
    second = fork_server.fork("train", [*words, "--resume"])
    assert second.wait() == 1
    assert f"process {first.pid} on" in second.said
    first.send(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    assert fork_server.fork("train", [*words, "--resume"]).wait() == 0
    assert same(weights(whole_runs(*JOINT)), weights(run))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((1, 0), (2, 0)),
        pytest.param((2, 0), (1, 0), marks=pytest.mark.campaign),
        ((1, 2), (1, 0)),
        pytest.param((1, 0), (3, 0), marks=pytest.mark.campaign),
    ],
)
def test_with_other_processes_or_workers_the_rest_is_trained_exactly_once(
    corpus, fork_server, tmp_path, before, after
):
    files = []
    for (processes, workers), stop_at, more in ((before, 1, ()), (after, None, ("--resume",))):
        files.append(tmp_path / f"positions {stop_at}")
        words = arguments(corpus, tmp_path / "run", "--epochs=2", "--batch-size=1", *more)
        words.append(f"--num-workers={workers}")
        children = fork_server.fork_processes(processes, "record_positions", words, str(files[-1]), stop_at)
        assert [child.wait() for child in children] == [0 if more else 143] * processes, children[0].said
    positions = [
        tuple(json.loads(line))
        for file in files
        for part in tmp_path.glob(f"{file.name}.*")
        for line in part.read_text().splitlines()
    ]
    assert sorted(positions) == [(epoch, position) for epoch in range(2) for position in range(8)]


# --- kill -9 --------------------------------------------------------------------------------------


def kill_at_random_times(
    corpus: Path, fork_server, whole: Path, folder: Path, kills: int, words
) -> list[float]:
    """Kill and resume runs until so many were killed; each must end as the uninterrupted one did."""
    chance = random.Random(len(str(kills)))
    since = time.monotonic()
    assert fork_server.fork("train", arguments(corpus, folder / "timed", *words)).wait() == 0
    longest, finished, killed_after = time.monotonic() - since, 0, []
    while len(killed_after) < kills or not finished:
        run = folder / f"run {finished}"
        resume = ("--resume",) if (run / "config.yaml").exists() else ()
        child = fork_server.fork("train", [*arguments(corpus, run, *words), *resume])
        since = time.monotonic()
        until = since + chance.uniform(0, longest) if len(killed_after) < kills else since + 600
        while time.monotonic() < until and "all done" not in child.said and alive(child.pid):
            time.sleep(0.002)
        child.send(signal.SIGKILL)
        code = child.wait()
        if code == -signal.SIGKILL:
            killed_after.append(time.monotonic() - since)
            continue
        assert code == 0, child.said
        assert same(weights(whole), weights(run))
        assert losses_equal(whole, run)
        longest = time.monotonic() - since
        finished += 1
        shutil.rmtree(run)
    return killed_after


def alive(pid: int) -> bool:
    """Whether a child of the fork server still works; an ended one is a zombie until it is waited for."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


KILLED = (*JOINT, "--save-every-steps=1")


@pytest.mark.slow
def test_killed_at_random_times_a_run_ends_as_the_uninterrupted_one(corpus, fork_server, whole_runs, tmp_path):
    assert len(kill_at_random_times(corpus, fork_server, whole_runs(*JOINT), tmp_path, 3, KILLED)) == 3


@pytest.mark.campaign
def test_a_hundred_kills(corpus, fork_server, whole_runs, tmp_path):
    assert len(kill_at_random_times(corpus, fork_server, whole_runs(*JOINT), tmp_path, 100, KILLED)) == 100


def test_an_epoch_that_was_logged_but_not_saved_stands_in_the_log_once(
    corpus, fork_server, whole_runs, tmp_path
):
    run = tmp_path / "run"
    words = arguments(corpus, run, *KILLED)
    assert fork_server.fork("die_at_the_end_of_an_epoch", words).wait() == -signal.SIGKILL
    assert len(lines(run, "metrics.jsonl")) == 1
    assert fork_server.fork("train", [*words, "--resume"]).wait() == 0
    assert losses_equal(whole_runs(*JOINT), run)


# --- checkpoints: death while saving, damage ------------------------------------------------------


@pytest.fixture(scope="module")
def saved_twice(corpus, fork_server, tmp_path_factory) -> Path:
    """A run stopped after its third step, with the checkpoints of the second and the third."""
    run = tmp_path_factory.mktemp("saved") / "run"
    words = [*arguments(corpus, run, *JOINT), "--save-every-steps=1"]
    assert fork_server.fork("stop", words, 2, signal.SIGTERM).wait() == 143
    return run


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.campaign
def test_death_in_every_place_of_saving_leaves_a_whole_checkpoint(
    corpus, fork_server, whole_runs, saved_twice, tmp_path
):
    run = tmp_path / "run"
    shutil.copytree(saved_twice, run)
    words = [*arguments(corpus, run, *JOINT), "--save-every-steps=1", "--resume"]
    attempts = tmp_path / "attempts"
    assert fork_server.fork("die_in_every_place_of_saving", words, str(attempts)).wait() == 0
    number = len(list(attempts.iterdir()))
    assert number > 40
    old = content(run / "checkpoints" / "last")
    new = content(attempts / str(number - 1) / "checkpoints" / "last")
    assert old != new
    survivors = {}
    for attempt in range(number):
        last = attempts / str(attempt) / "checkpoints" / "last"
        whole, _ = newest_whole(last)
        assert whole is not None, f"nothing whole after death at operation {attempt}"
        assert content(whole) in (old, new), f"operation {attempt}"
        others = frozenset(p.name for p in last.parent.iterdir())
        survivors.setdefault((whole.name, content(whole) == new, others), attempts / str(attempt))
    assert {name for name, _, _ in survivors} == {"last", "last.new"}
    for folder in survivors.values():
        again = [*arguments(corpus, folder, *JOINT), "--resume"]
        assert fork_server.fork("train", again).wait() == 0
        assert same(weights(whole_runs(*JOINT)), weights(folder))


DAMAGES = ("cut", "flipped", "deleted", "emptied")


def damage(path: Path, kind: str, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    if kind == "cut":
        path.write_bytes(data[: chance.randrange(len(data))])
    elif kind == "flipped":
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
    elif kind == "deleted":
        path.unlink()
    else:
        path.write_bytes(b"")


def test_every_damage_to_every_file_is_found_and_the_previous_checkpoint_taken(saved_twice, tmp_path):
    # The model card is for people: nothing is computed with it.
    names = [name for name, data in content(saved_twice / "checkpoints" / "last").items() if data]
    names.remove("README.md")
    assert {"model.safetensors", "training.pt", "config.json", "manifest.json"} <= set(names)
    chance = random.Random(0)
    previous = content(saved_twice / "checkpoints" / "last.previous")
    found = 0
    for name, kind in itertools.product(names, DAMAGES):
        for _ in range(5 if kind in ("cut", "flipped") else 1):
            checkpoints = tmp_path / "checkpoints"
            shutil.copytree(saved_twice / "checkpoints", checkpoints)
            damage(checkpoints / "last" / name, kind, chance)
            taken, complaints = newest_whole(checkpoints / "last")
            assert taken == checkpoints / "last.previous", (name, kind)
            assert content(taken) == previous
            assert len(complaints) == 1
            assert f"{checkpoints / 'last'}/" in complaints[0]
            shutil.rmtree(checkpoints)
            found += 1
    assert found == 12 * len(names)


def test_from_the_previous_checkpoint_a_run_ends_the_same(
    corpus, fork_server, whole_runs, saved_twice, tmp_path
):
    run = tmp_path / "run"
    shutil.copytree(saved_twice, run)
    damage(run / "checkpoints" / "last" / "model.safetensors", "flipped", random.Random(1))
    child = fork_server.fork("train", [*arguments(corpus, run, *JOINT), "--resume"])
    assert child.wait() == 0
    assert "last/model.safetensors: content differs from the manifest" in child.said
    assert "continuing from" in child.said
    assert same(weights(whole_runs(*JOINT)), weights(run))


def test_killed_in_its_first_save_a_run_restarts_and_says_so(corpus, fork_server, whole_runs, tmp_path):
    run = tmp_path / "run"
    words = [*arguments(corpus, run, *JOINT), "--save-every-steps=1"]
    first = fork_server.fork("hang", words, 0)
    while "hanging" not in first.said:
        time.sleep(0.01)
    first.send(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    unfinished = run / "checkpoints" / "last.new"
    unfinished.mkdir(parents=True)
    (unfinished / "config.json").write_text("{}")
    child = fork_server.fork("train", [*words, "--resume"])
    assert child.wait() == 0
    assert "nothing was saved before the run ended; it starts again" in child.said
    assert same(weights(whole_runs(*JOINT)), weights(run))


def test_with_every_checkpoint_damaged_a_run_stops(corpus, fork_server, saved_twice, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(saved_twice, run)
    for name in ("last", "last.previous"):
        damage(run / "checkpoints" / name / "training.pt", "cut", random.Random(2))
    child = fork_server.fork("train", [*arguments(corpus, run, *JOINT), "--resume"])
    assert child.wait() == 1
    assert "no undamaged checkpoint to resume from" in child.said
