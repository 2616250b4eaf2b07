"""training.py: `viper train`: one run, or one per seed, in one or several processes."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from datetime import timedelta

from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

from ..parsing import Settings
from .display import console, seeds_table
from .evaluation import score
from .processes import Processes
from .trainer import Trainer


def train(settings: Settings) -> int:
    """Train as the settings say; returns the exit code: 0, or the signal's if one asked to stop."""
    accelerator = Accelerator(
        mixed_precision=settings.train.mixed_precision,
        step_scheduler_with_optimizer=False,
        # The detector's weights are buffers: the same everywhere, and not to be sent at every step.
        kwargs_handlers=[
            DistributedDataParallelKwargs(broadcast_buffers=False),
            InitProcessGroupKwargs(timeout=timedelta(seconds=settings.train.process_timeout_seconds)),
        ],
    )
    processes = Processes(accelerator)
    code, last_scores = 0, []
    for run in seeded(settings):
        with processes.telling_failures():
            trainer = Trainer(run, accelerator, processes)
            try:
                code = trainer.train()
            finally:
                trainer.close()
        if code or trainer.predictions is None:
            break
        last_scores.append(score(trainer.predictions))
    if len(last_scores) > 1 and accelerator.is_main_process:
        console.print(seeds_table(last_scores))
    accelerator.end_training()
    return code


def seeded(settings: Settings) -> list[Settings]:
    """The runs that ``seeds`` asks for: one, or one per seed in ``run_dir/seed-N``."""
    config = settings.train
    if config.seeds == 1:
        return [settings]
    numbers = range(config.seed, config.seed + config.seeds)
    return [
        Settings(
            replace(config, seed=n, seeds=1, run_dir=f"{config.run_dir}/seed-{n}"), deepcopy(settings.model)
        )
        for n in numbers
    ]
