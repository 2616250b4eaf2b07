"""What goes wrong in a step is written down, counted in order, and stops the run when it is too much."""

from __future__ import annotations

import json
import math

import pytest
import torch
from accelerate import Accelerator

from viper_e2e.errors import ViperError
from viper_e2e.loading.loader import ClipBatch
from viper_e2e.loading.order import Cursor
from viper_e2e.loading.skips import SkipRecord
from viper_e2e.runtime.processes import Processes
from viper_e2e.training.guarding import Guard
from viper_e2e.training.run_folder import RunFolder
from viper_e2e.training.state import TrainingState


@pytest.fixture
def guard(tmp_path):
    run = RunFolder(tmp_path / "run", resume=False)
    yield Guard(run, Processes(Accelerator(cpu=True)), "skip")
    run.release()


@pytest.fixture
def state():
    return TrainingState(Cursor(0))


def group(*keys: str) -> list[ClipBatch]:
    count = len(keys)
    return [
        ClipBatch(
            epoch=0,
            positions=[i if key else None for i, key in enumerate(keys)],
            keys=list(keys),
            clips=[None] * count,
            intensities=torch.zeros(count, 2),
            weights=torch.ones(count),
            file_ids=[""] * count,
            shards=[""] * count,
            next_position=count,
            ends_step=True,
        )
    ]


def skipped(position: int) -> SkipRecord:
    return SkipRecord(f"k{position}", "train-000000.tar", "decode", "damaged", 0, position)


def log(guard: Guard, name: str) -> list[dict]:
    path = guard.run.path / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_skips_are_counted_in_the_order_of_positions(guard):
    # As two processes hand them in: each has its own clips of the step in order.
    guard.count_skips(range(6), [skipped(4), skipped(1), skipped(5)], 3)
    assert (guard.skips.num_seen, guard.skips.num_skipped, guard.skips.in_a_row) == (6, 3, 2)
    guard.count_skips(range(6, 10), [], 0)
    assert (guard.skips.num_seen, guard.skips.in_a_row) == (10, 0)
    assert [record["position"] for record in log(guard, "skipped.jsonl")] == [1, 4, 5]


def test_too_many_in_a_row_over_all_processes_stop_the_run(guard):
    with pytest.raises(ViperError, match="101 clips in a row"):
        guard.count_skips(range(101), [skipped(position) for position in range(101)], 101)


def test_a_loss_far_above_the_usual_is_logged_with_its_clips(guard, state):
    for step in range(30):
        state.step = step
        guard.watch_loss(state, 0.1 + 0.001 * step, group("a"))
    assert log(guard, "spikes.jsonl") == []
    state.step = 30
    guard.watch_loss(state, 2.0, group("b", "c", ""))
    (spike,) = log(guard, "spikes.jsonl")
    assert (spike["step"], spike["loss"], spike["keys"]) == (30, 2.0, ["b", "c"])
    assert spike["median"] == pytest.approx(0.1145)


def test_the_first_losses_of_a_run_are_no_spikes(guard, state):
    for loss in (0.001, 5.0, 0.001, 5.0):
        guard.watch_loss(state, loss, group("a"))
    assert log(guard, "spikes.jsonl") == []


def test_recent_losses_do_not_grow_without_end(guard, state):
    for _ in range(300):
        guard.watch_loss(state, 0.1, group("a"))
    assert len(state.recent_losses) == 100


def bad_steps(guard: Guard, state: TrainingState, first: int) -> None:
    for step in range(first, first + 3):
        state.step = step
        guard.count_bad_step(state, math.nan, math.inf, group(f"clip {step}"))


def test_steps_without_a_number_are_logged_for_replay(guard, state):
    bad_steps(guard, state, 5)
    assert state.bad_steps == 3
    assert state.bad_keys == ["clip 5", "clip 6", "clip 7"]
    assert [(r["step"], r["loss"], r["gradient_norm"], r["keys"]) for r in log(guard, "nonfinite.jsonl")] == [
        (step, "nan", "inf", [f"clip {step}"]) for step in (5, 6, 7)
    ]


def test_having_gone_back_once_a_run_that_is_no_further_stops(guard, state):
    state.went_back_at, state.last_good_step = 7, 7
    with pytest.raises(ViperError, match=r"again 3 steps .*nonfinite\.jsonl"):
        bad_steps(guard, state, 8)


def test_having_made_a_good_step_further_on_it_may_go_back_again(guard, state):
    state.went_back_at, state.last_good_step = 7, 9
    bad_steps(guard, state, 10)
    assert state.bad_steps == 3


def test_clips_lost_before_the_200th_are_judged_when_it_comes_without_a_further_loss(guard):
    guard.count_skips(range(10), [skipped(n) for n in range(5)], 5)
    for first in range(10, 190, 10):
        guard.count_skips(range(first, first + 10), [], 0)
    with pytest.raises(ViperError, match=r"5 of 200 clips could not be used \(2.5%"):
        guard.count_skips(range(190, 200), [], 0)
