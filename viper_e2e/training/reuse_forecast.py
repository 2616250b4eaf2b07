"""reuse_forecast.py: a forecast where memory holds only some clips: how many, and how long the rest takes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from viper_e2e.loading import ClipStore
from viper_e2e.runtime import free_bytes

if TYPE_CHECKING:
    from viper_e2e.training.shared_clips import SharedClips
    from viper_e2e.training.training_run import TrainingRun

MIN_CLIPS = 16
"""Clips measured before a forecast; fewer if memory is full by then."""
SURELY = 0.9
"""Share of the clips: if more seem to fit, wait until memory is full, as clips differ in length."""
_UNITS = (("GB", 10**9), ("MB", 10**6), ("kB", 10**3), ("", 1))


@dataclass(frozen=True)
class Rounds:
    """Counts of passes."""

    num_train: int
    num_val: int
    """Clips, of all processes."""
    epochs: int
    trainings: int = 1
    """Trainings of the command on the same clips."""
    num_processes: int = 1


class ReuseForecast:
    """Looks on while the first clips pass and are held, and tells once what not holding the others costs.

    The time is that of a clip's first pass, with decoding and head: a cached clip saves all of it but the head.
    """

    def __init__(
        self,
        store: ClipStore,
        rounds: Rounds,
        tell: Callable[[str], None],
        free_bytes: Callable[[], int],
        now: Callable[[], float] = time.monotonic,
    ):
        """``free_bytes``: that the device has, beside cached clips."""
        self._store, self._rounds, self._tell, self._free_bytes = store, rounds, tell, free_bytes
        self._now, self._began = now, now()
        self._num_seen, self._seconds_each = 0, 0.0
        again = rounds.epochs * rounds.trainings > 1
        self._is_over = not (store.budget_bytes and again)

    def begin(self) -> None:
        """The first clips are waited for from now on."""
        self._began = self._now()

    def see(self, num_clips: int) -> None:
        """So many clips of this process have passed since the last call, the first of them also ``begin``."""
        if self._is_over:
            return
        rounds, num_held = self._rounds, self._store.num_cached
        if self._num_seen * rounds.num_processes < rounds.num_train:
            # Later the clips that are held pass in no time.
            self._num_seen += num_clips
            self._seconds_each = (self._now() - self._began) / max(self._num_seen, 1)
        total = math.ceil((rounds.num_train + rounds.num_val) / rounds.num_processes)
        self._is_over = num_held >= total
        are_enough = self._num_seen >= min(MIN_CLIPS, math.ceil(rounds.num_train / rounds.num_processes))
        if self._is_over or not (num_held or are_enough):
            return
        each = self._store.nbytes / num_held if num_held else self._store.budget_bytes + 1
        is_full = self._store.nbytes + each > self._store.budget_bytes
        fitting = num_held if is_full else int(self._store.budget_bytes / each)
        if is_full or (are_enough and fitting < SURELY * total):
            self._is_over = True
            self._tell(self._line(fitting, total, each if num_held else 0.0, is_full=is_full))

    def _line(self, fitting: int, total: int, each: float, *, is_full: bool) -> str:
        rounds = self._rounds
        passes = rounds.epochs * rounds.trainings - 1
        more = (total - fitting) * passes * self._seconds_each
        held, rest = fitting * rounds.num_processes, (total - fitting) * rounds.num_processes
        whole = rounds.num_train + rounds.num_val
        counts = {"trainings": rounds.trainings, "epochs": rounds.epochs}
        within = " × ".join(f"{count:,} {name}" for name, count in counts.items() if count > 1)
        line = (
            f"holding {'' if is_full else 'about '}{held:,} of {whole:,} clips in "
            f"{said_size(self._store.budget_bytes)}; the other {min(rest, whole - held):,} are decoded and "
            f"encoded again in each of {within}: about {said_seconds(more)} more"
        )
        if not each:
            return f"{line}; --reuse-memory has no room for even one"
        wanted = math.ceil(1.05 * each * total)
        fits = wanted - self._store.nbytes < self._free_bytes()
        each_process = " in each process" if rounds.num_processes > 1 else ""
        hint = f"--reuse-memory {said_size(wanted)} would hold all" if fits else f"all take {said_size(wanted)}"
        return f"{line}; {hint}{each_process}"


def forecast_for(run: TrainingRun, steps: int, clips: SharedClips | None) -> ReuseForecast:
    """The forecast of a run that is about to begin and takes so many steps; of several on the same clips, the
    first speaks for all."""
    rounds = Rounds(
        num_train=len(run.train_shards),
        num_val=len(run.val_shards or ()),
        epochs=math.ceil(steps / max(1, run.loader.num_steps())),
        trainings=clips.num_trainings if clips is not None else 1,
        num_processes=run.processes.count,
    )
    speaks = run.processes.is_main and (clips is None or clips.is_first())
    device = run.module.device
    return ReuseForecast(
        run.clip_cache,
        rounds,
        run.reporter.tell if speaks else lambda line: None,
        lambda: free_bytes(device),
    )


def said_size(num_bytes: int) -> str:
    """At least so many bytes, as `--reuse-memory` takes them: two digits or more."""
    name, unit = next((n, u) for n, u in _UNITS if num_bytes >= u or u == 1)
    value = num_bytes / unit
    return f"{math.ceil(value * 10) / 10 if value < 10 else math.ceil(value):g}{name}"


def said_seconds(seconds: float) -> str:
    """``3 h 10 min``, of no more digits than an estimate has."""
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60} min"
