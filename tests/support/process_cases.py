"""process_cases.py: what forked processes do in the tests; a function is a case, its result the exit code."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.distributed as dist
from accelerate import Accelerator
from safetensors.torch import save_file

from support import drafts, loss_training, surroundings

# All that a case could need is imported before the fork.
from viper_e2e.commands import cli
from viper_e2e.commands.parsing import parse_train
from viper_e2e.config import MODALITIES
from viper_e2e.config.presets import PRESETS
from viper_e2e.decoding import ClipDecoder
from viper_e2e.errors import ClipError
from viper_e2e.experiments import many_trainings
from viper_e2e.fusion import TokenFusion
from viper_e2e.loading.loader import ClipBatch
from viper_e2e.model import ViPER, precision
from viper_e2e.runtime import processes
from viper_e2e.scoring import journal as parts
from viper_e2e.training import gradient_learner, reporting, saving
from viper_e2e.training.hooks import TrainerHooks
from viper_e2e.training.run_folder import RunFolder
from viper_e2e.training.trainer import Trainer, open_trainer

HOOKS: list[TrainerHooks] = []


class _NoFigures:
    """Not even put together, for which each process would load Matplotlib."""

    def training_curves(self, *_: object) -> None:
        pass

    def predicted_against_true(self, *_: object) -> None:
        pass


def prepare() -> None:
    """Before the fork: parsers of a run and of one that goes on, and all that models are made of.

    A model loads what it needs as it is built, and the optimizer a part of torch: seconds in each child.
    """
    with TemporaryDirectory() as run:
        words = ["--preset=micro", "--train-shards=a.tar", f"--run-dir={run}"]
        parse_train(words, "viper train")
        Path(run, "config.yaml").write_text("preset: micro\n")
        parse_train([*words, "--resume"], "viper train")
    module = ViPER(replace(PRESETS["micro"](), modalities=tuple(MODALITIES)))
    torch.optim.AdamW(module.fusion.parameters())
    state = torch.get_rng_state()
    module([None])
    torch.set_rng_state(state)


def rank() -> int:
    return int(os.environ.get("RANK", "0"))


def train(arguments: list[str]) -> int:
    """`viper train`."""
    reporting.figures = _NoFigures()
    return cli.main(["train", *arguments])


def viper_among(arguments: list[str], situations: list[list[str]]) -> int:
    """Any command, after the named functions of `surroundings` have changed this process."""
    for name, *given in situations:
        getattr(surroundings, name)(*given)
    if not any("MPLBACKEND" in " ".join(given) for _, *given in situations):
        drafts.draw_drafts()
    return cli.main(arguments)


def with_hooks(**hooks) -> None:
    """Runs of this process have them, beside those given before."""
    HOOKS.append(TrainerHooks(**hooks))

    def every(name: str):
        return lambda *given: [getattr(one, name)(*given) for one in HOOKS]

    all_of_them = TrainerHooks(**{field.name: every(field.name) for field in fields(TrainerHooks)})
    many_trainings.open_trainer = partial(open_trainer, hooks=all_of_them)


def before_step(step: int, act) -> None:
    """Let something happen when the given step has its batches and is about to begin."""
    with_hooks(before_step=lambda trainer, _: act(trainer) if trainer.state.step == step else None)


# --- stopping and going on ------------------------------------------------------------------------


def stop(arguments: list[str], step: int, number: int, ranks: list[int] | None = None) -> int:
    """A signal comes in while a step is under way."""
    if ranks is None or rank() in ranks:
        before_step(step, lambda trainer: os.kill(os.getpid(), number))
    return train(arguments)


def hang(arguments: list[str], step: int) -> int:
    """A step that does not end."""

    def act(_: Trainer) -> None:
        print("hanging", flush=True)
        while True:
            time.sleep(0.01)

    before_step(step, act)
    return train(arguments)


def record_positions(arguments: list[str], file: str, stop_at: int | None = None) -> int:
    """Write down which positions of which epoch are trained on, by every process in a file of its own."""
    if stop_at is not None:
        before_step(stop_at, lambda trainer: os.kill(os.getpid(), signal.SIGTERM))

    def write(_: Trainer, group: Sequence[ClipBatch]) -> None:
        with Path(f"{file}.{rank()}").open("a") as lines:
            for batch in group:
                for position in batch.positions:
                    if position is not None:
                        lines.write(json.dumps([batch.epoch, position]) + "\n")

    with_hooks(after_step=write)
    return train(arguments)


def record_losses(arguments: list[str], file: str) -> int:
    """The loss of every step, exactly."""
    losses = []
    original = reporting.Reporter.count_step

    def wrapped(self, step, value, *rest, **named):
        losses.append(value)
        return original(self, step, value, *rest, **named)

    reporting.Reporter.count_step = wrapped
    code = train(arguments)
    Path(file).write_text(json.dumps(losses))
    return code


def die_at_the_end_of_an_epoch(arguments: list[str]) -> int:
    """Killed when the epoch is in the logs and before it is in a checkpoint."""

    def die(trainer: Trainer) -> None:
        if trainer.state.validated_step == trainer.state.step:
            os.kill(os.getpid(), signal.SIGKILL)

    with_hooks(before_save=die)
    return train(arguments)


# --- death while saving ---------------------------------------------------------------------------

DIED = 77
WATCHED = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree")


def die_in_every_place_of_saving(arguments: list[str], folder: str) -> int:
    """Train a step, then save it again and again, each time dying one operation on the disk later.

    Every attempt works on a copy of the run, `folder/<n>`; the last one survives.
    """

    def attempts(trainer: Trainer) -> None:
        whole = trainer.run.folder.path
        number, code = 0, DIED
        while code == DIED:
            shutil.copytree(whole, f"{folder}/{number}")
            child = os.fork()
            if child == 0:
                # Goes on with saving, into its own copy, and ends behind it.
                trainer.run.folder.path = Path(f"{folder}/{number}")
                _die_after(number)
                return
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            number += 1
        os._exit(code)

    with_hooks(before_save=attempts, after_save=lambda _: os._exit(0))
    return train(arguments)


def _die_after(number: int) -> None:
    left = number

    def count() -> None:
        nonlocal left
        if left == 0:
            os._exit(DIED)
        left -= 1

    fsync = os.fsync

    def counted(descriptor: int) -> None:
        count()
        fsync(descriptor)

    os.fsync = counted
    sys.addaudithook(lambda event, _: count() if event in WATCHED else None)


# --- several processes ----------------------------------------------------------------------------


def record_gradients(arguments: list[str], file: str, dtype: str = "float32", step: int = 0) -> int:
    """The gradients of an optimizer step, as the optimizer sees them; all is computed in ``dtype``."""
    build, build_loss = gradient_learner.build_optimizer, gradient_learner.build_loss

    def cast(model, *rest):
        return build(model.to(getattr(torch, dtype)), *rest)

    gradient_learner.build_optimizer = cast
    gradient_learner.build_loss = lambda *given: build_loss(*given).to(getattr(torch, dtype))
    original, steps = torch.optim.AdamW.step, iter(range(10_000))

    def wrapped(self, *rest, **named):
        if next(steps) == step and rank() == 0:
            gradients = [p.grad for group in self.param_groups for p in group["params"]]
            torch.save([None if g is None else g.clone() for g in gradients], file)
        return original(self, *rest, **named)

    torch.optim.AdamW.step = wrapped
    return train(arguments)


def change_clips(arguments: list[str], what: str, ranks: list[int]) -> int:
    """On some processes every clip is unreadable, or has no sound."""
    if rank() in ranks:
        original = ClipDecoder.__call__

        def wrapped(self, *given, **named):
            clip = original(self, *given, **named)
            if what == "unreadable":
                raise ClipError("made unreadable", stage="decode", clip=clip.name)
            return replace(clip, sound=[], sound_seconds=0.0)

        ClipDecoder.__call__ = wrapped
    return train(arguments)


def log_until_full(folder: str, size: int) -> int:
    """Lines of a kilobyte, of which the disk takes no more than ``size`` bytes."""
    surroundings.files_of_at_most(str(size))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    run = RunFolder(Path(folder), resume=False)
    for _ in range(3):
        run.log("metrics.jsonl", {"text": "x" * 1000})
    print(run.refusals())
    return 0


def without_room_for_checkpoints(arguments: list[str], ranks: list[int]) -> int:
    """On some processes the disk of the run is full."""
    if rank() in ranks:

        def full(folder: Path, *_: object, **more: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))

        saving.write_over = full
    return train(arguments)


def fail(arguments: list[str], what: str, ranks: list[int], step: int) -> int:
    """On some processes something ends, or holds up, the process in the midst of training."""

    def act(_: Trainer) -> None:
        if what == "raises":
            raise ZeroDivisionError("made to fail")
        if what == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(3600)

    if rank() in ranks:
        before_step(step, act)
    return train(arguments)


def no_number(arguments: list[str], steps: list[int], ranks: list[int], times: int, file: str) -> int:
    """On some processes the forward pass of some steps is no number, the first times that they are made.

    What remains in memory at the end is written down by every process.
    """
    made = dict.fromkeys(steps, 0)
    spoil = False
    forward = TokenFusion.forward

    def spoilt(self, *rest, **named):
        return forward(self, *rest, **named) * (math.nan if spoil else 1.0)

    before: list[torch.Tensor] = []

    def begin(trainer: Trainer, _: Sequence[ClipBatch]) -> None:
        nonlocal spoil
        number = trainer.state.step
        spoil = rank() in ranks and made.get(number, times) < times
        made[number] = made.get(number, 0) + 1
        before[:] = [p.detach().clone() for p in trainer.run.module.parameters()]

    def end(trainer: Trainer, _: Sequence[ClipBatch]) -> None:
        nonlocal spoil
        number, now = trainer.state.step - 1, trainer.run.module.parameters()
        changed = any(not torch.equal(b, p) for b, p in zip(before, now, strict=True))
        if number in steps and made[number] <= times:
            assert not changed, f"step {number} changed weights of process {rank()}"
        spoil = False

    TokenFusion.forward = spoilt
    with_hooks(before_step=begin, after_step=end)
    keep_weights(file)
    return train(arguments)


def keep_weights(file: str) -> None:
    """Each process writes down its own weights at the end, and their averages."""
    close = Trainer.close

    def wrapped(self):
        kept = {n: p.detach().clone() for n, p in self.run.module.named_parameters()}
        with self.run.average.swapped_in():
            kept |= {f"average {n}": p.detach().clone() for n, p in self.run.module.named_parameters()}
        save_file(kept, f"{file}.{rank()}")
        close(self)

    Trainer.close = wrapped


def choose_differently(arguments: list[str], file: str) -> int:
    """Measured by itself, each process would take another precision; each writes down what it took."""
    precision.fastest_precision = lambda model: precision.Choice("no" if rank() else "bf16", "the test says so")
    close = Trainer.close

    def wrapped(self):
        Path(f"{file}.{rank()}").write_text(self.run.config.mixed_precision)
        close(self)

    Trainer.close = wrapped
    return train(arguments)


def count_decodes(arguments: list[str], file: str) -> int:
    """Every clip that a process decodes in training."""
    count_decoded(file)
    return train(arguments)


def count_decoded(file: str) -> None:
    original = ClipDecoder.__call__

    def wrapped(self, *rest, **named):
        with Path(f"{file}.{rank()}").open("a") as lines:
            lines.write(named["name"] + "\n")
        return original(self, *rest, **named)

    ClipDecoder.__call__ = wrapped


def speak(file: str) -> int:
    """What the processes say to one another where the device holds no number: the meta device plays the GPU.

    Writes down which group each kind of message went by, and what came of it.
    """
    accelerator = Accelerator(cpu=True)
    accelerator.state.device = torch.device("meta")
    used = []

    def watched(name: str, position: int):
        original = getattr(dist, name)

        def call(*given, **named):
            group = named.get("group") or (given[position] if len(given) > position else dist.group.WORLD)
            used.append([name, dist.get_backend(group), group is dist.group.WORLD])
            return original(*given, **named)

        setattr(dist, name, call)

    for name, position in (("all_gather", 2), ("all_gather_object", 2), ("barrier", 0)):
        watched(name, position)
    everyone = processes.Processes(accelerator)
    used.clear()
    table = everyone.gather_scalars(rank() + 0.1, 2, purpose="numbers")
    items = everyone.gather_list([rank()] * (rank() + 1), purpose="records")
    everyone.wait("the end")
    Path(f"{file}.{rank()}").write_text(json.dumps([table.tolist(), items, used]))
    return 0


def train_on_loss(folder: str) -> int:
    """A small model and the loss by itself under DistributedDataParallel."""
    loss_training.train_on_loss(rank(), int(os.environ["WORLD_SIZE"]), folder)
    return 0


def lose_a_worker(arguments: list[str], ranks: list[int]) -> int:
    """On some processes a clip has ended its worker by the time of the first step."""

    def lose(trainer: Trainer) -> None:
        trainer.run.quarantine.train.add("0", "killed by SIGSEGV")

    if rank() in ranks:
        before_step(0, lose)
    return train(arguments)


def score(arguments: list[str], file: str, die_after: int | None = None) -> int:
    """`viper infer` or `viper eval`, which may die once so many clips of a process are scored."""
    count_decoded(file)
    drafts.draw_drafts()
    if die_after is not None:
        add = parts.ResultJournal.add
        scored = 0

        def dying(self, outcomes):
            nonlocal scored
            add(self, outcomes)
            scored += len(outcomes)
            if scored >= die_after:
                os._exit(DIED)

        parts.ResultJournal.add = dying
    return cli.main(arguments)


def command(arguments: list[str]) -> int:
    """`viper` with any arguments."""
    drafts.draw_drafts()
    return cli.main(arguments)


def with_scaler(case: str, *arguments: object) -> int:
    """Another case on a device that scales fp16's loss: torch's own scaler, which accelerate gives no CPU."""
    original = many_trainings.Accelerator

    def scaling(**how: object):
        made = original(**how)
        made.scaler, made.native_amp = torch.amp.GradScaler("cpu"), True
        return made

    many_trainings.Accelerator = scaling
    return globals()[case](*arguments)
