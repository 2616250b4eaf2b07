"""tracker_child.py: the process of a tracker: messages -> accelerate's tracker of that name."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing.connection import Connection
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

OF_LAUNCHERS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Variables to remove: with its parent's, a tracker would take itself for a process that trains."""


@dataclass(frozen=True)
class Start:
    """Start of a tracker, which may continue a run that it has."""

    project: str
    run: str
    folder: Path
    """Folder of its log, and of its own id of the run."""
    resume: bool


@dataclass(frozen=True)
class Message:
    kind: Literal["settings", "numbers", "picture"]
    values: dict[str, str | int | float | None] = field(default_factory=dict)
    path: Path = Path()
    """Path of a picture."""
    step: int | None = None


def follow(messages: Connection, name: str, start: Start) -> None:
    """Hand messages to the tracker until the pipe ends; the run that sends them decides when that is."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    log = os.open(start.folder / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    for variable in OF_LAUNCHERS:
        os.environ.pop(variable, None)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the run's, not its
    id_file = start.folder / f"{name}.id"
    known = id_file.read_text(encoding="utf-8") if start.resume and id_file.exists() else None
    tracker = _begin(name, start, known)
    id_file.write_text(_id_of(tracker), encoding="utf-8")
    while True:
        try:
            message = messages.recv()
        except EOFError:
            break
        # mlflow takes settings once: those that a resumed run has changed stand in its `changes.jsonl`.
        if not (message.kind == "settings" and name == "mlflow" and known):
            _hand_over(tracker, message)
    tracker.finish()


def _begin(name: str, start: Start, known: str | None) -> GeneralTracker:
    # accelerate's trackers ask for its state, which is here the one of a single process.
    from accelerate import PartialState, tracking

    PartialState(cpu=True)
    tracker: GeneralTracker
    if name == "trackio":
        resume = "never" if known is None else "must"
        quiet = {"embed": False, "auto_log_gpu": False, "auto_log_cpu": False}
        tracker = tracking.TrackioTracker(start.project, name=known or start.run, resume=resume, **quiet)
    elif name == "wandb":
        tracker = tracking.WandBTracker(start.project, name=start.run, id=known, resume="allow")
    else:
        tracker = tracking.MLflowTracker(start.project, run_name=start.run, run_id=known)
    tracker.start()
    return tracker


def _id_of(tracker: GeneralTracker) -> str:
    """Id by which the tracker finds the run again."""
    place = {"trackio": "name", "wandb": "id", "mlflow": "info.run_id"}[tracker.name]
    return attrgetter(place)(tracker.tracker)


def _hand_over(tracker: GeneralTracker, message: Message) -> None:
    if message.kind == "settings":
        tracker.store_init_configuration(message.values)
    elif message.kind == "numbers":
        tracker.log(message.values, step=message.step)
    elif tracker.name == "mlflow":
        tracker.log_artifact(str(message.path), "plots")
    else:
        image = import_module(tracker.name).Image(str(message.path))
        tracker.log({message.path.stem: image}, step=message.step)
