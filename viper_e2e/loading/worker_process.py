"""worker_process.py: the loop of a worker process: jobs in, results out, until its parent ends.

Of a task in two parts, the next item is read while this one is computed: where a store is 20 ms away, each
worker's core would otherwise stand still for 20 ms a clip.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

from viper_e2e.errors import ViperError
from viper_e2e.loading.handover import send
from viper_e2e.runtime import show_notes

GROUP_SIGNALS = [getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, n)]
"""Signals that a terminal or a scheduler sends to all processes of a run."""


LINUX_OOM_SCORE = Path("/proc/self/oom_score_adj")
WORKERS_FIRST = 500
"""Thousandths of all memory: a worker that uses this much less than its parent is still ended before it."""


class WorkerError(RuntimeError):
    """A programming error in a worker; the message ends with the worker's traceback."""


@dataclass(frozen=True)
class WorkerLost:
    """The outcome of an item that ended its worker, or that there was too little memory for."""

    reason: str
    """`"killed by SIGSEGV"`, `"exited with code 3"`, `"ran longer than 60 s"`, `"ran out of memory"`."""


class Job(NamedTuple):
    ticket: int
    item: object
    name: str


@dataclass(frozen=True)
class Raised:
    exception: Exception


Item = TypeVar("Item", contravariant=True)
Content = TypeVar("Content")


@runtime_checkable
class TwoParts(Protocol[Item, Content]):
    """A task whose first part waits for a disk or a server: `task.compute(task.read(item))` is `task(item)`."""

    def read(self, item: Item, /) -> Content: ...

    def compute(self, content: Content, /) -> object: ...


def serve(
    parent: connection.Connection, payload: bytes, num_threads: int | None, notes_level: int | None
) -> None:
    """Compute each job until the parent closes its end."""
    if notes_level is not None:
        show_notes(notes_level)
    for number in GROUP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _be_ended_first()
    if num_threads is not None:  # mostly the processes are the parallelism; read when NumPy or torch load
        os.environ["OMP_NUM_THREADS"] = str(num_threads)
    try:
        task = pickle.loads(payload)
    except Exception:  # as in `_outcome_of`
        parent.send(("failed to start", traceback.format_exc()))
        return
    try:
        parent.send(("ready", None))
        jobs = _Jobs(parent, task.read if isinstance(task, TwoParts) else None)
        compute = task.compute if isinstance(task, TwoParts) else task
        while True:
            job, read = jobs.take()
            parent.send(("begun", None))  # so that a loss is blamed on what was begun, never on what waited
            content = read.result()
            jobs.look_ahead()
            is_read = not isinstance(content, Raised | WorkerLost)
            send(parent, _outcome_of(compute, job._replace(item=content)) if is_read else content)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


class _Jobs:
    """Jobs in the order in which they come, at most one of them ahead of its turn."""

    def __init__(self, parent: connection.Connection, read: Callable[[Any], Any] | None):
        """``read``: what makes an item into what is computed, in a thread."""
        self._parent, self._read = parent, read
        self._ahead: tuple[Job, Future[Any]] | None = None

    def take(self) -> tuple[Job, Future[Any]]:
        """The next job, once there is one, and what is or will be read of it."""
        taken, self._ahead = self._ahead or self._receive(), None
        return taken

    def look_ahead(self) -> None:
        """Have the job after the one that was taken read meanwhile, if it has come."""
        if self._read is not None and self._parent.poll():
            self._ahead = self._receive()

    def _receive(self) -> tuple[Job, Future[Any]]:
        job, content = Job(*self._parent.recv()), Future[Any]()
        if self._read is None:
            content.set_result(job.item)
        else:
            # A daemon, so that a server that never answers does not keep a worker from ending.
            threading.Thread(target=_put_outcome, args=(content, self._read, job), daemon=True).start()
        return job, content


def _put_outcome(content: Future[Any], read: Callable[[Any], Any], job: Job) -> None:
    content.set_result(_outcome_of(read, job))


def _end_with_parent() -> None:
    """A worker that hangs must not outlive a parent that was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _be_ended_first() -> None:
    """Have Linux end this worker, not the run, if memory runs out."""
    with contextlib.suppress(OSError):  # another system, or not permitted
        own = int(LINUX_OOM_SCORE.read_text())
        LINUX_OOM_SCORE.write_text(str(min(1000, own + WORKERS_FIRST)))


def _outcome_of(task: Callable[[Any], Any], job: Job) -> Any:
    try:
        return task(job.item)
    except ViperError as error:
        return Raised(error)
    except MemoryError:
        return WorkerLost("ran out of memory")
    except Exception:  # nothing is forgotten: it is raised in the parent
        return Raised(WorkerError(f"{job.name}: failed in a worker:\n{traceback.format_exc()}"))


@contextlib.contextmanager
def main_hidden(*, unless: bool) -> Iterator[None]:
    """Have multiprocessing find no main module that it would run once more in a new process.

    A script without `if __name__ == "__main__":` would then do in every worker what it does here, one that
    came through a pipe is nowhere to be found, and the torch that a script imports is of no use there.
    """
    main = sys.modules["__main__"]
    if not unless:
        sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
