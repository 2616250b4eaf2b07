"""bench.py: `viper bench`: how fast training would go on given shards, what limits it, and what to change."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

import torch

from viper_e2e.clip import DecodedClip
from viper_e2e.config import Settings
from viper_e2e.errors import ClipError, ExitCode, ViperError
from viper_e2e.loading import ClipBatch, ClipLoader, notes_on_reading
from viper_e2e.model import StageClock, ViPER, check_compiler, compile_model, compute_dtype, resolve_precision
from viper_e2e.runtime import (
    AS_IT_IS,
    console,
    count_of,
    first_of,
    progress_bar,
    table,
    tell_problems,
    without_collecting,
)
from viper_e2e.shards import ShardSet
from viper_e2e.training import build_optimizer, make_loader

_PHASES = 4
WAITING_MATTERS = 0.05
"""A smaller share of time spent waiting for clips is not what limits a run."""


@dataclass(frozen=True)
class Speeds:
    """Measured speeds, in clips per second."""

    read: float
    """Bytes out of the shards, one process."""
    loaded: float
    """Out of the loader into nothing, with the workers that were asked for."""
    computed: float
    """Training steps on clips that lie decoded in memory."""
    trained: float
    """Both together: what a run would do."""
    waiting: float
    """Share of the time of a run spent waiting for clips."""
    shares: dict[str, float]
    """Share of the time of a training step by stage, the largest first."""
    num_workers: int
    num_cores: int
    frozen: bool
    """Whether all encoders are, so that clips can be cached in memory."""
    is_half: bool
    """Whether backbones compute in half precision."""
    unusable: tuple[str, ...] = ()
    """Keys of clips that could not be used."""
    backboned: frozenset[str] = frozenset()
    """Stages that are encoders with a backbone."""


def run_bench(settings: Settings, shards: ShardSet, seconds: float) -> int:
    """Measure for about ``seconds``, print what came out and what follows from it."""
    if not len(shards):
        raise ViperError("the shards are empty; there is nothing to measure")
    tell_problems(notes_on_reading(shards.remote_reading, (shards,)))
    with progress_bar() as bar:
        task = bar.add_task("measuring", total=_PHASES)

        def tell(what: str) -> None:
            bar.update(task, advance=bool(bar.tasks[0].fields["note"]), note=what)

        speeds = measure(settings, shards, seconds / _PHASES, tell)
    workers = speeds.num_workers
    where = f"by {count_of(workers, 'worker')}" if workers else "in this process (--num-workers 0)"
    rows = [
        ("read from shards", f"{speeds.read:.1f}"),
        (f"decoded {where}", f"{speeds.loaded:.1f}"),
        ("training steps on decoded clips", f"{speeds.computed:.1f}"),
        ("training from shards", f"{speeds.trained:.1f}"),
    ]
    console.print(table("speed", ("what", "clips/s"), rows))
    parts = [(name, f"{share:.0%}") for name, share in speeds.shares.items()]
    console.print(table("a training step", ("stage", "share"), parts))
    console.print(f"waiting for clips: {speeds.waiting:.0%} of the time")
    if speeds.unusable:
        several = count_of(len(speeds.unusable), "clip")
        console.print(
            f"{several} could not be used: {first_of(speeds.unusable)}; `viper check --shards …` says why",
            **AS_IT_IS,
        )
    for line in advice(speeds):
        console.print(line)
    return ExitCode.OK


def measure(
    settings: Settings, shards: ShardSet, seconds: float, tell: Callable[[str], None] = lambda what: None
) -> Speeds:
    """Each speed for about ``seconds``; ``tell`` is called with what is being measured."""
    tell("loading the model")
    with without_collecting():
        model = ViPER(settings.model)
    model.to("cuda" if torch.cuda.is_available() else "cpu").train()
    precision = resolve_precision(settings.train.mixed_precision, model)
    model.set_compute_dtype(compute_dtype(precision))
    if settings.train.compile:
        check_compiler(model.device)
        compile_model(model)
    optimizer = build_optimizer(model, settings.train)
    clock = StageClock(model, synchronize=True)

    def step(batch: ClipBatch) -> None:
        _train(model, optimizer, batch)

    unusable: dict[str, None] = {}
    tell("reading shards")
    read = _rate(seconds, (_read(shards, i) for i in _forever(len(shards))))
    with make_loader(shards, settings) as loader:
        tell("decoding")
        loaded = _rate(seconds, map(_num_usable, _batches(loader, unusable)))
        batch = next(batch for batch in _batches(loader, unusable) if _num_usable(batch))
        tell("training steps")
        step(batch)
        clock.reset()
        since = time.perf_counter()
        computed = _rate(seconds, (_done(step, batch) for _ in count()))
        shares = clock.shares(time.perf_counter() - since)
        tell("training from shards")
        loader.stream.waiting_seconds, since = 0.0, time.perf_counter()
        trained = _rate(seconds, (_done(step, batch) for batch in _batches(loader, unusable)))
        waiting = loader.stream.waiting_seconds / (time.perf_counter() - since)
    clock.close()
    shares["crops, backward, optimizer"] = max(0.0, 1.0 - sum(shares.values()))
    return Speeds(
        read=read,
        loaded=loaded,
        computed=computed,
        trained=trained,
        waiting=waiting,
        shares=dict(sorted(shares.items(), key=lambda item: -item[1])),
        num_workers=settings.train.num_workers,
        num_cores=num_cores(),
        frozen=all(encoder.is_frozen for encoder in model.encoders.values()),
        is_half=precision != "no",
        unusable=tuple(unusable),
        backboned=frozenset(name for name, encoder in model.encoders.items() if encoder.backbones()),
    )


def num_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _train(model: ViPER, optimizer: torch.optim.Optimizer, batch: ClipBatch) -> None:
    """A training step whose loss asks for no labels: what it costs does not depend on them."""
    output = model(batch.clips, [0] * len(batch.clips))
    output.intensities.square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def _done(step: Callable[[ClipBatch], None], batch: ClipBatch) -> int:
    step(batch)
    return _num_usable(batch)


def _read(shards: ShardSet, index: int) -> int:
    shards.read(index)
    return 1


def _num_usable(batch: ClipBatch) -> int:
    return sum(isinstance(clip, DecodedClip) for clip in batch.clips)


def _forever(number: int) -> Iterator[int]:
    return (i for _ in count() for i in range(number))


def _batches(loader: ClipLoader, unusable: dict[str, None]) -> Iterator[ClipBatch]:
    """Epoch after epoch; an epoch without a usable clip ends it. Keys of clips that cannot be used are kept."""
    for epoch in count():
        num_usable = 0
        for batch in loader.epoch(epoch):
            num_usable += _num_usable(batch)
            rows = zip(batch.keys, batch.clips, strict=True)
            unusable |= {key: None for key, clip in rows if isinstance(clip, ClipError)}
            yield batch
        if not num_usable:
            raise ViperError("no clip of the shards can be read; `viper check --shards …` says why")


def _rate(seconds: float, work: Iterator[int]) -> float:
    """Clips per second of an iterator that tells how many each of its rounds did; the first warms up."""
    next(work)
    since, done = time.perf_counter(), 0
    while True:
        done += next(work)
        elapsed = time.perf_counter() - since
        if elapsed >= seconds:
            return done / elapsed


def advice(speeds: Speeds) -> list[str]:
    """Limits of a run, and settings to change, most useful first."""
    if speeds.waiting <= WAITING_MATTERS:
        return _compute(speeds)
    if speeds.loaded < speeds.computed:
        return _feed(speeds)
    short = (
        "training waits although clips are decoded faster than they are used: decoding starts again in each "
        "epoch, and epochs of so few clips end before it is ahead; measure on more clips"
    )
    return [short, *_compute(speeds)]


def _feed(speeds: Speeds) -> list[str]:
    reuse = "hold clips in memory from the second epoch on: --reuse-memory 8GB" if speeds.frozen else ""
    if speeds.read < 1.5 * speeds.loaded:
        hints = ["copy the shards to a local disk", reuse]
        return ["limited by reading: shards are read too slowly for the decoders", *_hints(hints)]
    if speeds.num_workers < speeds.num_cores:
        per_worker = speeds.loaded / max(1, speeds.num_workers)
        wanted = min(speeds.num_cores, math.ceil(speeds.computed / per_worker))
        more = f"decode in more processes: --num-workers {max(wanted, speeds.num_workers + 1)}"
        return ["limited by decoding: too few workers", *_hints([more, reuse])]
    hints = [
        reuse,
        "read fewer frames: --model.decoding.num-frames 16",
        "store clips smaller, or with more keyframes (x264 -g 60)",
    ]
    return [f"limited by decoding: all {speeds.num_cores} cores are busy", *_hints(hints)]


def _compute(speeds: Speeds) -> list[str]:
    largest = next(iter(speeds.shares))
    hints = []
    if speeds.frozen:
        hints.append("encode each clip once and hold it: --reuse-memory 8GB")
    if largest == "detection":
        hints.append("detect less often: --model.faces.detect-seconds 1.0")
        hints.append("look for larger faces only: --model.faces.min-face-size 60")
    elif largest in speeds.backboned and not speeds.is_half:
        hints.append("compute in half precision where the processor has it: --mixed-precision auto")
    elif not speeds.frozen:
        hints.append("train fewer blocks, e.g. --unfreeze visual=4")
    if speeds.num_workers >= speeds.num_cores:
        hints.append(f"leave a core to the model: --num-workers {max(1, speeds.num_cores - 1)}")
    return [f"limited by computing, most of all by {largest} ({speeds.shares[largest]:.0%})", *_hints(hints)]


def _hints(hints: list[str]) -> list[str]:
    return [f"  - {hint}" for hint in hints if hint]
