"""run.py: `viper train`: one run, or one per seed, in one or several processes."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

from viper_e2e.config import Settings
from viper_e2e.model import check_compiler, keep_compiled_in
from viper_e2e.runtime import Processes, console, heed_launcher, plain_json, write_text
from viper_e2e.training.resuming import with_absolute_paths
from viper_e2e.training.ridge_training import RidgeTrainer
from viper_e2e.training.run_folder import write_settings
from viper_e2e.training.tables import seeds_table
from viper_e2e.training.trainer import Trainer
from viper_e2e.training.yardstick import verdict


def train(settings: Settings) -> int:
    """Train as the settings say; returns the exit code: 0, or the signal's if one asked to stop."""
    heed_launcher()
    accelerator = Accelerator(
        # The module computes in its own precision; only the loss of float16 has to be scaled outside of it.
        mixed_precision="fp16" if settings.train.mixed_precision == "fp16" else "no",
        step_scheduler_with_optimizer=False,
        # The detector's weights are buffers: the same everywhere, and not to be sent at every step.
        kwargs_handlers=[
            DistributedDataParallelKwargs(broadcast_buffers=False),
            InitProcessGroupKwargs(timeout=timedelta(seconds=settings.train.process_timeout_seconds)),
        ],
    )
    processes = Processes(accelerator)
    if settings.train.mixed_precision == "fp16" and accelerator.scaler is None and accelerator.is_main_process:
        console.print(
            "[yellow]--mixed-precision fp16: on this device the loss is not scaled, so small gradients "
            "become 0; bf16 or no needs no scaling[/yellow]"
        )
    if settings.train.compile:
        keep_compiled_in(Path(settings.train.run_dir) / "compiled")
        with processes.telling_failures():
            check_compiler(accelerator.device)
    code, logs = 0, {}
    precision = settings.train.mixed_precision
    for run in seeded(settings):
        run.train.mixed_precision = precision
        with processes.telling_failures():
            kind = RidgeTrainer if run.model.fusion.kind == "ridge" else Trainer
            trainer = kind(run, accelerator, processes)
            if settings.train.seeds > 1 and accelerator.is_main_process:
                # So that `--resume --run-dir` alone goes on with all seeds.
                write_settings(Path(settings.train.run_dir), with_absolute_paths(settings))
            try:
                # What `auto` came to for the first seed holds for all of them.
                precision = trainer.config.mixed_precision
                code = trainer.train()
            finally:
                trainer.close()
        if code:
            if accelerator.is_main_process:
                console.print(stopped_line(trainer, settings.words), soft_wrap=True, markup=False)
            break
        if accelerator.is_main_process:
            logs[run.train.seed] = trainer.run.read_log("metrics.jsonl")
            console.print(finished_lines(trainer), soft_wrap=True, markup=False)
            if below := verdict(logs[run.train.seed]):
                console.print(below, style="yellow", soft_wrap=True, markup=False)
    summary = summarised(logs)
    if len(summary["seeds"]) > 1:
        console.print(seeds_table(summary))
        write_text(Path(settings.train.run_dir) / "seeds.json", plain_json.dumps(summary, indent=2) + "\n")
    accelerator.end_training()
    return code


def _rank(val: Mapping[str, Any]) -> tuple[float, float]:
    """By what chose the checkpoints; where that is undefined, by MSE."""
    pearson, mse = val.get("best_by", val["mean_pearson"]), val.get("mean_mse")
    return -2.0 if pearson is None else pearson, 0.0 if pearson is not None or mse is None else -mse


def stopped_line(trainer: Trainer, words: Sequence[str]) -> str:
    """Where a run that was asked to stop stands, and the command that goes on with it."""
    again = shlex.join(["viper", "train", *words, *([] if "--resume" in words else ["--resume"])])
    launched = " (started by torchrun as before)" if trainer.processes.count > 1 else ""
    step, total = trainer.state.step, trainer.total_steps
    return (
        f"stopped after step {step:,} of {total:,}; saved in {trainer.run.last}; go on{launched} with:\n{again}"
    )


def finished_lines(trainer: Trainer) -> str:
    """Where the model of a finished run is, how good it was, and what to do with it."""
    config, best = trainer.config, trainer.state.best.get("best")
    if best is None or not config.val_shards:
        next_step = ["viper", "infer", "CLIP", "--checkpoint", str(trainer.run.last)]
        return f"trained model: {trainer.run.last}\nnext: {shlex.join(next_step)}"
    words = ["--checkpoint", str(trainer.run.best), "--shards", config.val_shards]
    next_step = ["viper", "eval", *words, "--out", str(trainer.run.path / "eval")]
    judged = f"validation, {trainer.validation.judged_by} {best:.4f}"
    return f"best model: {trainer.run.best} ({judged})\nnext: {shlex.join(next_step)}"


def seeded(settings: Settings) -> list[Settings]:
    """The runs that ``seeds`` asks for: one, or one per seed in ``run_dir/seed-N``."""
    config = settings.train
    if config.seeds == 1:
        return [settings]
    runs = []
    for seed in range(config.seed, config.seed + config.seeds):
        folder = Path(config.run_dir) / f"seed-{seed}"
        # What was interrupted had not come to its later seeds yet.
        begun = (folder / "config.yaml").exists() or seed == config.seed
        train = replace(config, seed=seed, seeds=1, run_dir=str(folder), resume=config.resume and begun)
        runs.append(replace(settings, train=train, model=deepcopy(settings.model)))
    return runs


def summarised(logs: Mapping[int, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Mean and standard deviation over seeds, as the challenge's baseline tells them (Christ et al. 2022).

    ``logs``: seed → its ``metrics.jsonl``. Of each the epoch with the best mean Pearson counts, the one that
    ``checkpoints/best`` holds; a seed that was never validated is left out. ``seeds``, and per measure
    ``{"values", "mean", "deviation"}``, which are ``None`` where a value is undefined.
    """
    best = {}
    for seed, log in logs.items():
        validated = [record["val"] for record in log if record.get("val")]
        if validated:
            best[seed] = max(validated, key=_rank)
    summary: dict[str, Any] = {"seeds": list(best)}
    for name in ("mean_pearson", "mean_ccc", "mean_mse"):
        values = [val[name] for val in best.values()]
        known = len(values) > 1 and None not in values
        summary[name] = {
            "values": values,
            "mean": fmean(values) if known else None,
            "deviation": stdev(values) if known else None,
        }
    return summary
