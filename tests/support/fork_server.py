"""fork_server.py: a process that has imported everything forks children on request: real ones, in milliseconds.

Run as a script it is that process; `ForkServer` talks to it in lines of JSON. A child runs one function of
`process_cases` and ends as any Python program does, up to where all that was imported would be taken apart:
that takes two seconds. It can be sent signals and be killed.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

WATCHDOG_SECONDS = 120.0


class Child:
    """One forked process."""

    def __init__(self, fork_server: ForkServer, pid: int, log: Path):
        self.fork_server, self.pid, self.log = fork_server, pid, log

    def send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self, seconds: float = WATCHDOG_SECONDS) -> int:
        """The exit code, as `subprocess` has it; a child that takes too long is killed and fails the test."""
        code = self.fork_server.ask(op="wait", pid=self.pid, seconds=seconds)["code"]
        assert code is not None, f"process {self.pid} does not end:\n{self.said}"
        return code

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""


class ForkServer:
    """The process that forks; close it at the end."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._count = 0
        environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        self._server = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def fork(self, case: str, *arguments: object, **environment: str) -> Child:
        """Begin `process_cases.<case>(*arguments)`; arguments are plain data."""
        self._count += 1
        log = self.folder / f"{self._count}-{case}.log"
        made = self.ask(op="fork", case=case, arguments=arguments, environment=environment, log=str(log))
        return Child(self, made["pid"], log)

    def fork_processes(self, count: int, case: str, *arguments: object) -> list[Child]:
        """The same case in so many processes that find each other through gloo on this machine."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        shared = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "WORLD_SIZE": str(count),
            "ACCELERATE_USE_CPU": "1",
        }
        return [
            self.fork(case, *arguments, RANK=str(rank), LOCAL_RANK=str(rank), **shared) for rank in range(count)
        ]

    def ask(self, **request: object) -> dict:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())

    def close(self) -> None:
        self._server.stdin.close()
        self._server.wait()


class Leave:
    """The last function that a child calls at its end, because the first that is registered."""

    def __init__(self):
        self.code: int | None = None
        """``None``: as Python ends a program, by an exception for instance."""
        atexit.register(self)

    def __call__(self) -> None:
        if self.code is not None:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(self.code)


def together(fork_server, case: str, *given: object, expect: int | None = 0, count: int = 2) -> list[str]:
    """Run a case in several processes; what each has said."""
    children = fork_server.fork_processes(count, case, *given)
    codes = [child.wait() for child in children]
    said = [child.said for child in children]
    if expect is not None:
        assert codes == [expect] * count, "\n".join(said)
    return said


def serve() -> None:
    """Fork what is asked for and tell how it ended."""
    leave = Leave()
    from support import process_cases

    process_cases.prepare()
    # Else each child looks through all that was imported, and thereby copies it.
    gc.collect()
    gc.freeze()
    replies = os.fdopen(os.dup(1), "w")
    requests = os.fdopen(os.dup(0), "r")
    for line in requests:
        request = json.loads(line)
        if request["op"] == "wait":
            reply = {"code": wait(request["pid"], request["seconds"])}
        else:
            pid = os.fork()
            if pid == 0:
                log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                for number in (1, 2):
                    os.dup2(log, number)
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                os.environ.update(request["environment"])
                leave.code = getattr(process_cases, request["case"])(*request["arguments"])
                sys.exit(leave.code)
            reply = {"pid": pid}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def wait(pid: int, seconds: float) -> int | None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    serve()
