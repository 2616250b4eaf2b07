"""worker_process.py: the loop of a worker process: jobs in, results out, until its parent ends."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any, NamedTuple

from viper_e2e.errors import ViperError
from viper_e2e.loading.handover import send
from viper_e2e.runtime import show_notes

GROUP_SIGNALS = [getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, n)]
"""What a terminal or a scheduler sends to all processes of a run."""


class WorkerError(RuntimeError):
    """A programming error in a worker; the message ends with the worker's traceback."""


class Job(NamedTuple):
    ticket: int
    item: object
    name: str


@dataclass(frozen=True)
class Raised:
    exception: Exception


def serve(
    parent: connection.Connection, payload: bytes, num_threads: int | None, notes_level: int | None
) -> None:
    """Compute each job until the parent closes its end."""
    if notes_level is not None:
        show_notes(notes_level)
    for number in GROUP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if num_threads is not None:  # mostly the processes are the parallelism; read when NumPy or torch load
        os.environ["OMP_NUM_THREADS"] = str(num_threads)
    try:
        task = pickle.loads(payload)
    except Exception:  # as in `_outcome_of`
        parent.send(("failed to start", traceback.format_exc()))
        return
    try:
        parent.send(("ready", None))
        while True:
            job = Job(*parent.recv())
            parent.send(("begun", None))  # so that a loss is blamed on what was begun, never on what waited
            send(parent, _outcome_of(task, job))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _end_with_parent() -> None:
    """A worker that hangs must not outlive a parent that was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _outcome_of(task: Callable[[Any], Any], job: Job) -> Any:
    try:
        return task(job.item)
    except ViperError as error:
        return Raised(error)
    except Exception:  # nothing is forgotten: it is raised in the parent
        return Raised(WorkerError(f"{job.name}: failed in a worker:\n{traceback.format_exc()}"))
