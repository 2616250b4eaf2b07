"""tracker_process.py: trackio, wandb or mlflow in a process of its own, which the run never waits for."""

from __future__ import annotations

import atexit
import multiprocessing
import queue
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread

from viper_e2e.training.tracker_child import Message, Start, follow

MAX_WAITING = 100_000
"""Messages that a tracker may be behind; it holds up nothing, but memory has an end."""
END_SECONDS = 60.0
"""A tracker has so long to send what it still holds when a run ends."""


class TrackerProcess:
    """One tracker that can fail, hang or die without holding up the run.

    Its package runs in a process of its own, which is sent messages and never waited for: a network that hangs
    costs the run nothing. What it prints goes to ``trackers/NAME.log`` in the run folder.
    """

    def __init__(self, name: str, start: Start, tell: Callable[[str], None]):
        """``tell``: what is called with the one line that says why it has stopped."""
        self.name, self._tell = name, tell
        self._log = start.folder / f"{name}.log"
        self._is_lost = False
        self._waiting: queue.Queue[Message | None] = queue.Queue(MAX_WAITING)
        context = multiprocessing.get_context("spawn")
        receiver, sender = context.Pipe(duplex=False)
        start.folder.mkdir(parents=True, exist_ok=True)
        self._process = context.Process(target=follow, args=(receiver, name, start), name=name, daemon=True)
        self._process.start()
        # Python ends such processes at its exit by a signal that this one ignores, and waits for them.
        atexit.register(self._process.kill)
        receiver.close()
        self._sending = Thread(target=self._send_all, args=(sender,), daemon=True)
        self._sending.start()

    def settings(self, values: Mapping[str, str | int | float | None]) -> None:
        self._put(Message("settings", dict(values)))

    def numbers(self, values: Mapping[str, int | float], step: int) -> None:
        self._put(Message("numbers", dict(values), step=step))

    def picture(self, path: Path, step: int) -> None:
        """A PNG file, listed under its name."""
        self._put(Message("picture", path=path, step=step))

    def close(self) -> None:
        """Let it send the rest, for `END_SECONDS` at most."""
        self._put(None)
        # One that was given up has nothing to send.
        until = time.monotonic() + (0.0 if self._is_lost else END_SECONDS)
        for part in (self._sending, self._process):
            part.join(max(0.0, until - time.monotonic()))
        atexit.unregister(self._process.kill)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
            self._lose(f"did not end within {END_SECONDS:g} s")
        elif self._process.exitcode:
            self._lose(self._last_words())

    def _put(self, message: Message | None) -> None:
        if not self._is_lost and not self._process.is_alive():
            self._lose(self._last_words())
        if self._is_lost:
            return
        try:
            self._waiting.put_nowait(message)
        except queue.Full:
            self._lose(f"is {MAX_WAITING:,} messages behind")

    def _send_all(self, sender: Connection) -> None:
        with sender:
            while (message := self._waiting.get()) is not None:
                try:
                    sender.send(message)
                except OSError:  # it is gone; `_put` and `close` say so
                    return

    def _lose(self, reason: str) -> None:
        if not self._is_lost:
            self._is_lost = True
            self._tell(f"{self.name} no longer receives this run: {reason}; see {self._log}")

    def _last_words(self) -> str:
        text = self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""
        lines = text.strip().splitlines()
        return lines[-1][:300] if lines else f"its process ended with exit code {self._process.exitcode}"
