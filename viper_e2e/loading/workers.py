"""workers.py: processes that read and decode ahead, each expendable: a crash or a hang costs one clip.

Why not `torch.utils.data.DataLoader`: its SIGCHLD handler raises wherever the main thread happens to be, for
instance with half of the parameters updated; a worker's death takes everything already decoded with it and
names no sample; and its workers hold torch (hundreds of megabytes each) and need room in `/dev/shm`. Here
the parent knows what each worker was given, so it knows which clip ended it; the others continue undisturbed.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import signal
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn

from viper_e2e.errors import ViperError
from viper_e2e.loading.handover import receive
from viper_e2e.loading.worker_process import Job, Raised, WorkerError, WorkerLost, main_hidden, serve
from viper_e2e.runtime import RunningTime, count_of, shown_level

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext, SpawnContext

START_SECONDS = 120.0
"""A worker that has not come up by then will not."""
TIME_LIMIT_SECONDS = 300.0
"""Default time limit for one clip."""
MAX_RESTARTS = 1000
"""Workers that clips may cost, unless said otherwise."""
MAX_BLAMELESS = 5
"""So many workers in a row may be lost before they have begun anything: no clip is to blame for more."""


GUARD = (
    "a script whose own functions go to workers keeps what it does under "
    '`if __name__ == "__main__":`, since workers import it; or give num_workers=0'
)


@dataclass
class _Worker:
    process: BaseProcess
    connection: connection.Connection
    since: float
    """When it last reported something, or was given something to do."""
    jobs: deque[Job] = field(default_factory=deque)
    """Handed out and unanswered, in the order in which the worker takes them."""
    state: Literal["starting", "idle", "working"] = "starting"
    """State last reported; a `working` worker does the first of its jobs."""


class PoolStats(NamedTuple):
    """Statistics of a pool."""

    pids: tuple[int, ...]
    """Process ids of its workers."""
    num_unanswered: int
    """Items that workers have, done or not, and have not answered."""
    num_waiting: int
    """Outcomes that are there and were not asked for yet."""


class WorkerPool:
    """Processes that compute `task(item)`; the parent asks for outcomes in whatever order it likes.

    `task` is picklable and its modules should be torch-free: workers are started fresh (`forkserver`, or
    `spawn` where that is all there is), so they share no lock, no thread and no device with the parent. They
    ignore SIGINT, SIGTERM and SIGUSR1, which schedulers send to whole process groups: the parent decides when
    they end, and they end with it.
    """

    def __init__(
        self,
        task: Callable[[Any], Any],
        num_workers: int,
        *,
        time_limit_seconds: float = TIME_LIMIT_SECONDS,
        max_restarts: int = MAX_RESTARTS,
        num_threads: int | None = 1,
    ):
        """``num_threads``: that OpenMP may use in each; None: as many as it likes."""
        self.num_threads = num_threads
        self.time_limit_seconds = time_limit_seconds
        self.max_restarts = max_restarts
        self.lost_workers: list[str] = []
        """`name: reason` of each worker lost since `reset_restarts`; if it had no clip, what it did."""
        self._blameless = 0
        self._now = RunningTime()
        self._payload = pickle.dumps(task)
        self._context: ForkServerContext | SpawnContext = (
            multiprocessing.get_context("forkserver")
            if "forkserver" in multiprocessing.get_all_start_methods()
            else multiprocessing.get_context("spawn")
        )
        self._outcomes: dict[int, Any] = {}
        self._wanted: set[int] = set()
        self._next_ticket = 0
        self._workers: list[_Worker] = []
        self._close = Finalize(self, _end_workers, args=(self._workers, self._now), exitpriority=100)
        self._workers.extend(self._start() for _ in range(num_workers))

    def submit(self, item: object, name: str) -> int:
        """Queue `task(item)`; the ticket is for `outcome`. `item` is sent as it is; `name` is for messages."""
        job = Job(self._next_ticket, item, name)
        self._next_ticket += 1
        self._wanted.add(job.ticket)
        worker = min(self._workers, key=lambda worker: len(worker.jobs))
        if not worker.jobs and not self._receive(worker):
            worker = self._replace(worker)  # lost while idle: no clip is to blame
        self._hand_out(worker, job)
        return job.ticket

    def outcome(self, ticket: int) -> Any:
        """Wait for `task`'s result, or the `WorkerLost` it became.

        A `ViperError` in the task is raised here, any other exception as `WorkerError`. More than
        `max_restarts` lost workers: `ViperError` naming what ended each.
        """
        while ticket not in self._outcomes:
            self._wait()
        self._wanted.discard(ticket)
        result = self._outcomes.pop(ticket)
        if isinstance(result, Raised):
            raise result.exception
        return result

    def discard(self, tickets: Iterable[int]) -> None:
        """These outcomes are no longer wanted."""
        for ticket in tickets:
            self._wanted.discard(ticket)
            self._outcomes.pop(ticket, None)

    def stats(self) -> PoolStats:
        """After taking in what workers have sent; waits for nothing and replaces nobody."""
        for worker in self._workers:
            self._receive(worker)
        pids = tuple(worker.process.pid or 0 for worker in self._workers)
        return PoolStats(pids, sum(len(worker.jobs) for worker in self._workers), len(self._outcomes))

    def reset_restarts(self) -> None:
        """Restart the count of lost workers."""
        self.lost_workers.clear()

    def close(self) -> None:
        """End all workers at once: they have nothing to lose."""
        self._close()

    # --- the life of a worker -------------------------------------------------------------------

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=serve,
            args=(theirs, self._payload, self.num_threads, shown_level()),
            name="viper-worker",
            daemon=True,
        )
        with main_hidden(unless=b"__main__" in self._payload):
            process.start()
        theirs.close()
        return _Worker(process, ours, self._now())

    def _hand_out(self, worker: _Worker, job: Job) -> None:
        if not worker.jobs and worker.state == "idle":
            worker.since = self._now()
        worker.jobs.append(job)
        # A worker that has just died is found, with this job not begun, by the next `_wait`.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            worker.connection.send(tuple(job))

    def _wait(self) -> None:
        """Take in what workers have sent; sleep until one sends, dies or overruns."""
        busy = [worker for worker in self._workers if worker.jobs]
        assert busy, "waiting for an outcome that nobody works on"
        patience = min(worker.since + self._limit(worker) for worker in busy) - self._now()
        # Not `process.sentinel`: that also fires when a signal to the process group ends the forkserver.
        connection.wait([worker.connection for worker in busy], timeout=max(0.0, patience))
        for worker in busy:
            if not self._receive(worker):
                self._replace(worker)
            elif worker.jobs and self._now() - worker.since > self._limit(worker):
                self._replace(worker, f"ran longer than {self._limit(worker):g} s")

    def _limit(self, worker: _Worker) -> float:
        if worker.state == "starting":
            return max(START_SECONDS, self.time_limit_seconds)
        return self.time_limit_seconds

    def _receive(self, worker: _Worker) -> bool:
        """Take in every message that has arrived; False: the worker is gone."""
        try:
            while worker.connection.poll():
                kind, content = worker.connection.recv()
                worker.since = self._now()
                if kind == "failed to start":
                    self.close()
                    raise WorkerError(f"a worker could not start:\n{content}")
                if kind == "begun":
                    self._blameless = 0
                if kind == "result":
                    result = receive(worker.connection, content)
                    ticket = worker.jobs.popleft().ticket
                    if ticket in self._wanted:
                        self._outcomes[ticket] = result
                worker.state = "working" if kind == "begun" else "idle"
        except (EOFError, ConnectionResetError):
            return False
        return True

    def _replace(self, worker: _Worker, reason: str = "") -> _Worker:
        """Put a fresh worker in the place of a lost one, and the blame on what it was working on."""
        if reason:
            worker.process.kill()
        worker.process.join(5.0)
        worker.connection.close()
        reason = reason or _how_it_ended(worker.process.exitcode)
        name = "idle" if worker.state == "idle" else "starting"
        self._blameless += worker.state != "working"
        if worker.state == "working":
            lost = worker.jobs.popleft()
            name = lost.name
            if lost.ticket in self._wanted:
                self._outcomes[lost.ticket] = WorkerLost(reason)
        self.lost_workers.append(f"{name}: {reason}")
        if len(self.lost_workers) > self.max_restarts:
            self._give_up(f"at most {self.max_restarts} are replaced")
        if self._blameless > MAX_BLAMELESS:
            self._give_up(f"the last {self._blameless} before they had begun a clip")
        fresh = self._start()
        self._workers[self._workers.index(worker)] = fresh
        for job in worker.jobs:
            self._hand_out(fresh, job)
        return fresh

    def _give_up(self, which: str) -> NoReturn:
        self.close()
        shown = self.lost_workers[-10:]
        more = f"{len(self.lost_workers) - len(shown)} before; " if len(self.lost_workers) > len(shown) else ""
        lost = (
            f"{count_of(len(self.lost_workers), 'worker was', 'workers were')} lost, {which} "
            f"({more}{'; '.join(shown)})"
        )
        if self._blameless < min(MAX_BLAMELESS, len(self.lost_workers)):
            advice = (
                "take these clips out of the shards, or raise --clip-timeout-seconds or --max-worker-restarts"
            )
        elif b"__main__" in self._payload:
            advice = GUARD
        else:
            advice = "is there too little memory? try fewer of them, or --num-workers 0"
        raise ViperError(f"{lost}; {advice}")


def _end_workers(workers: list[_Worker], clock: RunningTime) -> None:
    clock.end()
    for worker in workers:
        worker.process.kill()
        worker.connection.close()
    for worker in workers:
        worker.process.join(5.0)
    workers.clear()


def _how_it_ended(exit_code: int | None) -> str:
    if exit_code is None:
        return "does not end"
    if exit_code < 0:
        return f"killed by {signal.Signals(-exit_code).name}"
    return f"exited with code {exit_code}"
