"""test_workers.py: processes that compute ahead, and what is left when one ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from support import ROOT
from support.loader_fakes import ReadThenComputed, Task, Unpicklable

from viper_e2e.errors import ClipError, ViperError
from viper_e2e.loading.workers import WorkerError, WorkerLost, WorkerPool

pytestmark = pytest.mark.survival


@pytest.fixture
def pool():
    pool = WorkerPool(Task(), 2, time_limit_seconds=5.0)
    yield pool
    pool.close()


def ask(pool: WorkerPool, *requests: str) -> list:
    tickets = [pool.submit(Task.number(request), request) for request in requests]
    return [pool.outcome(ticket) for ticket in tickets]


def wait_until(true, seconds: float = 20.0) -> bool:
    """A watchdog, not a measurement."""
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.02)
    return true()


def test_outcomes_come_in_whatever_order_they_are_asked_for(pool):
    tickets = [pool.submit(item, f"item {item}") for item in range(6)]
    assert [pool.outcome(ticket) for ticket in reversed(tickets)] == [5, 4, 3, 2, 1, 0]


@pytest.mark.slow
@pytest.mark.parametrize("size", [0, 10, 1 << 20, 5_000_000])
def test_arrays_of_any_size_arrive_unchanged_and_writable(pool, size):
    (array,) = ask(pool, f"array {size}")
    assert np.array_equal(array, np.arange(size, dtype=np.uint8))
    array[:1] = 7
    assert array.flags.writeable


def test_no_handle_is_left_open_once_results_are_let_go(pool):
    ask(pool, "array 3000000", "array 10")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        ask(pool, "array 3000000", "array 10")
    abandoned = [pool.submit(Task.number("array 3000000"), "abandoned") for _ in range(4)]
    pool.discard(abandoned)
    ask(pool, "array 10", "array 10", "array 10", "array 10")
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


def test_what_is_wrong_with_a_clip_is_raised_as_it_was(pool):
    with pytest.raises(ClipError, match="a: no frame") as caught:
        ask(pool, "clip error")
    assert caught.value.stage == "decode"
    with pytest.raises(WorkerError, match=r"(?s)bug: failed in a worker:.*loader_fakes.py.*ZeroDivisionError"):
        ask(pool, "bug")
    assert ask(pool, "array 3")[0].tolist() == [0, 1, 2]


def test_an_item_that_memory_does_not_suffice_for_costs_itself_alone(pool):
    assert ask(pool, "too large", "array 3")[0] == WorkerLost("ran out of memory")
    assert not pool.lost_workers


@pytest.mark.skipif(not Path("/proc/self/oom_score_adj").exists(), reason="Linux alone has it")
@pytest.mark.slow
def test_where_memory_runs_out_the_system_ends_a_worker_before_its_parent(pool):
    own = int(Path("/proc/self/oom_score_adj").read_text())
    for pid in set(ask(pool, "slow pid", "slow pid")):
        assert int(Path(f"/proc/{pid}/oom_score_adj").read_text()) == min(1000, own + 500)


@pytest.mark.slow
def test_the_others_go_on_where_they_are_when_one_is_lost(pool):
    before = set(ask(pool, "slow pid", "slow pid"))
    assert len(before) == 2
    assert ask(pool, "exit 9") == [WorkerLost("exited with code 9")]
    after = set(ask(pool, "slow pid", "slow pid"))
    assert len(before & after) == 1


@pytest.mark.slow
def test_what_waited_behind_a_lost_item_is_done_by_the_next_worker():
    with_one = WorkerPool(Task(), 1, time_limit_seconds=1.0)
    assert ask(with_one, "1", "hang", "2", "exit 0", "3") == [
        1,
        WorkerLost("ran longer than 1 s"),
        2,
        WorkerLost("exited with code 0"),
        3,
    ]
    assert with_one.lost_workers == ["hang: ran longer than 1 s", "exit 0: exited with code 0"]
    with_one.close()


@pytest.fixture
def in_two_parts(tmp_path):
    pool = WorkerPool(ReadThenComputed(tmp_path), 1, time_limit_seconds=60.0)
    yield pool
    pool.close()


def test_the_next_item_is_read_while_one_is_computed_and_no_further(in_two_parts, tmp_path):
    tickets = [in_two_parts.submit(item, str(item)) for item in (0, 1, 2, 3)]
    (tmp_path / "go").touch()
    in_two_parts.outcome(tickets[0])
    assert in_two_parts.outcome(tickets[1]) == ["read 0", "read 1", "read 2"]
    assert in_two_parts.outcome(tickets[2]) == ["read 0", "read 1", "read 2", "read 3"]


def test_what_cannot_be_read_is_raised_for_its_own_item(in_two_parts, tmp_path):
    tickets = [in_two_parts.submit(item, str(item)) for item in (0, -1, 0)]
    (tmp_path / "go").touch()
    assert in_two_parts.outcome(tickets[0])
    with pytest.raises(WorkerError, match="-1 cannot be read"):
        in_two_parts.outcome(tickets[1])
    assert in_two_parts.outcome(tickets[2])


def test_what_memory_does_not_suffice_to_read_costs_its_own_item_alone(in_two_parts, tmp_path):
    tickets = [in_two_parts.submit(item, str(item)) for item in (0, -2, 0)]
    (tmp_path / "go").touch()
    assert in_two_parts.outcome(tickets[0])
    assert in_two_parts.outcome(tickets[1]) == WorkerLost("ran out of memory")
    assert in_two_parts.outcome(tickets[2])


def test_an_item_that_was_read_ahead_of_a_lost_one_is_not_to_blame(in_two_parts, tmp_path):
    tickets = [in_two_parts.submit(item, str(item)) for item in (0, 13, 14, 0)]
    (tmp_path / "read 15").touch()
    (tmp_path / "go").touch()
    outcomes = [in_two_parts.outcome(ticket) for ticket in tickets]
    assert outcomes[1] == WorkerLost("exited with code 3")
    assert "read 14" in outcomes[2]
    assert "read 14" in outcomes[3]


@pytest.mark.slow
def test_a_worker_lost_while_idle_costs_no_item(pool):
    # No waiting for its end: what it was given after that may reach a worker that is about to be gone.
    for victim in set(ask(pool, "slow pid", "slow pid")):
        os.kill(victim, signal.SIGKILL)
    assert ask(pool, "1", "2", "3") == [1, 2, 3]
    assert pool.lost_workers == ["idle: killed by SIGKILL"] * 2


def test_a_parent_that_was_busy_elsewhere_does_not_take_a_finished_item_for_a_hanging_one():
    patient = WorkerPool(Task(), 1, time_limit_seconds=0.3)
    ask(patient, "1")
    tickets = [patient.submit(item, str(item)) for item in (4, 5)]
    time.sleep(0.8)
    assert [patient.outcome(ticket) for ticket in tickets] == [4, 5]
    assert patient.lost_workers == []
    patient.close()


def test_after_too_many_losses_all_are_named_and_no_process_stays():
    strict = WorkerPool(Task(), 2, max_restarts=1)
    pids = ask(strict, "slow pid", "slow pid")
    with pytest.raises(
        ViperError, match=r"2 workers were lost, at most 1 .*exit [56]: exited with code [56]; exit"
    ):
        ask(strict, "exit 5", "exit 6")
    assert not any(map(_running, pids))


@pytest.mark.slow
def test_forgiven_losses_do_not_count():
    strict = WorkerPool(Task(), 1, max_restarts=1)
    for _ in range(3):
        assert ask(strict, "exit 5") == [WorkerLost("exited with code 5")]
        strict.reset_restarts()
    strict.close()


def test_a_task_that_no_worker_can_load_is_said_at_once():
    broken = WorkerPool(Unpicklable(), 1)
    with pytest.raises(WorkerError, match=r"(?s)could not start:.*loader_fakes.py.*cannot be loaded here"):
        ask(broken, "1")


def test_workers_ignore_signals_meant_for_the_whole_group(pool):
    pids = ask(pool, "slow pid", "slow pid")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        for pid in pids:
            os.kill(pid, number)
    assert set(ask(pool, "slow pid", "slow pid")) == set(pids)


GROUP = """
import os, signal, sys, time
from support.loader_fakes import Task
from viper_e2e.loading.workers import WorkerPool
if __name__ == "__main__":
    pool = WorkerPool(Task(), 2)
    ask = lambda: {pool.outcome(t) for t in [pool.submit(Task.number("slow pid"), "") for _ in range(4)]}
    before = ask()
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
        os.killpg(0, number)
        time.sleep(0.3)
        assert ask() == before
    assert pool.outcome(pool.submit(Task.number("exit 3"), "")).reason.startswith("exited")
    assert len(ask() & before) == 1 and len(pool.lost_workers) == 1
"""


@pytest.mark.slow
def test_a_signal_to_the_whole_group_costs_no_worker(tmp_path):
    # It ends multiprocessing's forkserver, which must not be taken for the end of its children.
    assert run_script(tmp_path, GROUP).returncode == 0


STOPPED = """
import time
from support.loader_fakes import Task
from viper_e2e.loading.workers import WorkerPool
if __name__ == "__main__":
    pool = WorkerPool(Task(), 2, time_limit_seconds=4.0)
    pool.outcome(pool.submit(Task.number("slow pid"), ""))
    tickets = [pool.submit(Task.number("tenths 10"), "sound clip") for _ in range(2)]
    print("begun", flush=True)
    WAIT
    print([pool.outcome(ticket) for ticket in tickets], pool.lost_workers, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "meanwhile",
    [
        pytest.param("pass", id="waiting", marks=pytest.mark.campaign),
        pytest.param("time.sleep(0.9)", id="busy elsewhere"),
    ],
)
def test_a_group_that_is_stopped_and_goes_on_loses_no_clip(meanwhile, tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(STOPPED.replace("WAIT", meanwhile))
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    process = subprocess.Popen(
        [sys.executable, script],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout.readline() == "begun\n"
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGSTOP)
    time.sleep(5.0)
    os.killpg(process.pid, signal.SIGCONT)
    assert process.communicate(timeout=60)[0] == "[10, 10] []\n"


def test_the_pool_tells_what_it_is_at(pool):
    tickets = [pool.submit(item, "") for item in (1, 2, 3)]
    stats = pool.stats()
    assert len(set(stats.pids)) == len(stats.pids) > 0
    assert stats.num_unanswered + stats.num_waiting == 3
    assert wait_until(lambda: pool.stats()[1:] == (0, 3))
    assert [pool.outcome(ticket) for ticket in tickets] == [1, 2, 3]
    assert pool.stats()[1:] == (0, 0)
    pool.close()
    assert pool.stats() == ((), 0, 0)


class Stillborn(Task):
    """A task that ends its worker as it is unpickled."""

    def __reduce__(self):
        return os._exit, (3,)


def test_workers_that_die_before_they_begin_end_the_run_and_blame_no_clip():
    pool = WorkerPool(Stillborn(), 1)
    said = r"the last 6 before they had begun a clip \(starting: exited with code 3; .*--num-workers 0"
    with pytest.raises(ViperError, match=said):
        pool.outcome(pool.submit(1, "a clip"))
    assert pool.stats() == ((), 0, 0)


def run_script(folder: Path, code: str) -> subprocess.CompletedProcess:
    script = folder / "parent.py"
    script.write_text(code)
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return subprocess.run(
        [sys.executable, script],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        timeout=60,
        check=False,
        start_new_session=True,
    )


def _running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


PARENT = """
import os, sys, time
from support.loader_fakes import Task
from viper_e2e.loading.workers import WorkerPool
if __name__ == "__main__":
    pool = WorkerPool(Task(), 2)
    tickets = [pool.submit(Task.number("slow pid"), "") for _ in range(2)]
    print(*(pool.outcome(ticket) for ticket in tickets), flush=True)
    pool.submit(Task.number("hang"), "")
    time.sleep(0.3)
    END
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "code"),
    [("sys.exit(0)", 0), ("os.kill(os.getpid(), 9)", -9), ("raise KeyboardInterrupt", -2)],
    ids=["exits", "is killed", "is interrupted"],
)
def test_workers_end_with_their_parent_however_it_ends(end, code, tmp_path):
    done = run_script(tmp_path, PARENT.replace("END", end))
    assert done.returncode == code
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 2
    assert wait_until(lambda: not any(map(_running, pids)))


UNGUARDED = """
print("runs", flush=True)
from support.loader_fakes import Task
from viper_e2e.loading.workers import WorkerPool
pool = WorkerPool(Task(), 2)
print(*(pool.outcome(ticket) for ticket in [pool.submit(item, "") for item in (4, 5)]))
"""


def test_a_script_without_a_guard_runs_once(tmp_path):
    done = run_script(tmp_path, UNGUARDED)
    assert (done.returncode, done.stdout.split()) == (0, ["runs", "4", "5"])


def test_a_program_from_stdin_has_workers():
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable],
        input=UNGUARDED,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout.split()) == (0, ["runs", "4", "5"])


def test_a_missing_guard_is_named_where_workers_need_the_script(tmp_path):
    code = """
from viper_e2e.errors import ViperError
from viper_e2e.loading.workers import WorkerPool
def double(item):
    return 2 * item
pool = WorkerPool(double, 1, max_restarts=1)
try:
    print(pool.outcome(pool.submit(4, "clip 4")))
except ViperError as error:
    print(error)
"""
    done = run_script(tmp_path, code)
    assert "starting: exited with code 1" in done.stdout
    assert 'if __name__ == "__main__":' in done.stdout
    assert "take these clips out" not in done.stdout
    whole = "def double(item):\n    return 2 * item\n" + UNGUARDED.replace("Task()", "double")
    whole = whole.replace("pool =", 'if __name__ == "__main__":\n  pool =').replace("print(*", "  print(*")
    assert run_script(tmp_path, whole).stdout.split()[-2:] == ["8", "10"]
