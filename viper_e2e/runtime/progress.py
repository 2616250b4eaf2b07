"""progress.py: progress of a long command: a bar on a terminal, elsewhere a line every half minute."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from viper_e2e.runtime.terminal import SteadyConsole

LINE_SECONDS = 30.0
"""Between two lines where there is no terminal: what is silent for longer looks as if it hung."""
WIDE = 100
"""Columns from which on there is room for a long bar and for the time that has passed."""

Counted = Callable[[int, int], None]
"""Called with (clips done, clips in all)."""


NOTE = Column(max_width=24, no_wrap=True, overflow="ellipsis")


class ProgressBar(Progress):
    """Tasks with a ``note``, which is always shown, and ``details``, shown as far as there is room.

    ``is_silent``: of the further processes of a run, which draw and say nothing. ``ends``: without a terminal
    the last count is a line as well, however short the task was.
    """

    def __init__(self, console: Console, *, is_silent: bool = False, ends: bool = False):
        is_drawn = console.is_terminal and not is_silent
        bar_width = 30 if console.width >= WIDE else 16
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(bar_width=bar_width),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False, table_column=NOTE),
            _Remaining(),
            _Details(lambda: console.width),
            console=console,
            disable=not is_drawn,
        )
        self._tells = not is_drawn and not is_silent
        self._ends, self._told, self._stopped = ends, False, threading.Event()
        self._teller: threading.Thread | None = None

    # As rich has it, whose fields are anybody's.
    def add_task(self, description: str, *args: Any, **fields: Any) -> TaskID:
        begun = {"begun_at": time.monotonic(), "begun_with": fields.get("completed", 0)}
        return super().add_task(description, *args, **({"note": "", "details": ""} | begun | fields))

    def start(self) -> None:
        super().start()
        if self._tells:
            self._teller = threading.Thread(target=self._tell_now_and_then, daemon=True, name="progress")
            self._teller.start()

    def stop(self) -> None:
        super().stop()
        if self._teller is not None:
            self._stopped.set()
            self._teller.join()
            self._teller = None
            if self._told or (self._ends and any(task.completed for task in self.tasks)):
                self._tell()

    def _tell_now_and_then(self) -> None:
        while not self._stopped.wait(LINE_SECONDS):
            self._told = True
            self._tell()

    def _tell(self) -> None:
        for task in self.tasks:
            self.console.print(line_of(task), highlight=False, markup=False, soft_wrap=True)


def line_of(task: Task) -> str:
    """A task in one line: done of all, rate, time left or taken, and its note."""
    done, total = int(task.completed), int(task.total or 0)
    parts = [f"{task.description} {done:,}/{total:,}"]
    seconds, each = time.monotonic() - task.fields["begun_at"], _seconds_each(task)
    if each is not None and seconds >= 1:
        parts.append(_rate(each))
    if done < total and each is not None:
        parts.append(f"{clock(each * (total - done))} left")
    else:
        parts.append(f"{clock(seconds)} so far" if done < total else f"{clock(seconds)}")
    parts += [task.fields[name] for name in ("note", "details") if task.fields[name]]
    return " · ".join(parts)


def _rate(each: float) -> str:
    if each >= 1:
        return f"{each:.0f} s each" if each >= 10 else f"{each:.1f} s each"
    return f"{1 / each:,.0f}/s" if each <= 0.1 else f"{1 / each:.1f}/s"


def clock(seconds: float) -> str:
    """``3725`` → ``1:02:05``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _seconds_each(task: Task) -> float | None:
    """Since the task began here: what an earlier run had done does not count."""
    made = task.completed - task.fields["begun_with"]
    return (time.monotonic() - task.fields["begun_at"]) / made if made > 0 else None


class _Remaining(ProgressColumn):
    """The time left, if it can be estimated."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        each, total = _seconds_each(task), task.total
        left = "-:--" if each is None or total is None else clock(each * (total - task.completed))
        return Text(left, style="progress.remaining")


class _Details(ProgressColumn):
    """The details that fit, cut between two of them; none on a narrow terminal."""

    max_refresh = 0.5

    def __init__(self, width: Callable[[], int]):
        self._width = width
        super().__init__()

    def render(self, task: Task) -> Text:
        width = self._width()
        count = len(f"{int(task.completed)}/{int(task.total or 0)}")
        fixed = len(task.description) + (30 if width >= WIDE else 16) + count + len(task.fields["note"]) + 8
        room, shown = width - fixed - 7, ""
        for part in task.fields["details"].split(" · "):
            longer = f"{shown} · {part}" if shown else part
            if len(longer) > room:
                break
            shown = longer
        return Text(shown, style="dim", no_wrap=True)


@contextmanager
def counting(title: str, console: Console | None = None) -> Iterator[Counted]:
    """A bar that is called with (done, all), as the ``progress`` of ``pack`` and ``check``."""
    began = time.monotonic()
    with ProgressBar(console or SteadyConsole(stderr=True), ends=True) as bar:
        tasks: list[TaskID] = []  # none before the first call, so that an early error is printed alone

        def update(done: int, total: int) -> None:
            if not tasks:
                tasks.append(bar.add_task(title, total=total, begun_at=began))
            bar.update(tasks[0], completed=done, total=total)

        yield update


@contextmanager
def waiting(what: str, console: Console, *, is_silent: bool = False) -> Iterator[None]:
    """Says what is waited for while nothing can be counted: a spinner on a terminal, else lines."""
    if console.is_terminal and not is_silent:
        with console.status(what):
            yield
        return
    began, stopped = time.monotonic(), threading.Event()

    def tell() -> None:
        while not is_silent and not stopped.wait(LINE_SECONDS):
            console.print(f"{what} · {clock(time.monotonic() - began)} so far", highlight=False)

    teller = threading.Thread(target=tell, daemon=True, name="waiting")
    teller.start()
    try:
        yield
    finally:
        stopped.set()
        teller.join()
