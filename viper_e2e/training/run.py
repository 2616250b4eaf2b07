"""run.py: `viper train`: one run, or one per seed, in one or several processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from viper_e2e.config import Settings
from viper_e2e.runtime import console, plain_json, write_text
from viper_e2e.training.joining import check_joinable, join
from viper_e2e.training.one_pass import ManyTrainings
from viper_e2e.training.resuming import with_absolute_paths
from viper_e2e.training.run_folder import write_settings
from viper_e2e.training.tables import seeds_table


def train(settings: Settings) -> int:
    """Train as the settings say; returns the exit code: 0, or the signal's if one asked to stop."""
    check_joinable(settings)
    runs, outcomes = seeded(settings), {}
    folder = Path(settings.train.run_dir)
    with ManyTrainings(settings, command=["viper", "train", *settings.words], shares=len(runs) > 1) as many:

        def begun() -> None:
            if len(runs) > 1 and many.processes.is_main:
                # So that `--resume --run-dir` alone goes on with all seeds.
                write_settings(folder, with_absolute_paths(settings))

        many.check_free(runs)
        for run in runs:
            outcome = many.train(run, begun)
            if outcome is None:
                return many.code
            outcomes[run.train.seed] = outcome
        summary = summarised({seed: outcome.log for seed, outcome in outcomes.items()})
        if settings.train.ensemble > 1:
            target = folder / "checkpoints" / "best"
            summary["ensemble"] = join(many, [*outcomes.values()], target)
            if many.processes.is_main:
                console.print(ensemble_lines(target, summary["ensemble"]), soft_wrap=True, markup=False)
        if many.processes.is_main and len(summary["seeds"]) > 1:
            console.print(seeds_table(summary))
            write_text(folder / "seeds.json", plain_json.dumps(summary, indent=2) + "\n")
    return many.code


def ensemble_lines(model: Path, scores: Mapping[str, Any]) -> str:
    """Where the model of all seeds is, and how good."""
    pearson = scores.get("mean_pearson")
    judged = "" if pearson is None else f" (validation, mean Pearson {pearson:.4f})"
    return f"model of all seeds: {model}{judged}\nnext: viper infer CLIP --checkpoint {model.parent.parent}"


def _rank(val: Mapping[str, Any]) -> tuple[float, float]:
    """By what chose the checkpoints; where that is undefined, by MSE."""
    pearson, mse = val.get("best_by", val["mean_pearson"]), val.get("mean_mse")
    return -2.0 if pearson is None else pearson, 0.0 if pearson is not None or mse is None else -mse


def seeded(settings: Settings) -> list[Settings]:
    """The runs that ``seeds`` or ``ensemble`` ask for: one, or one per seed in ``run_dir/seed-N``."""
    config = settings.train
    count = max(config.seeds, config.ensemble)
    if count == 1:
        return [settings]
    runs = []
    for seed in range(config.seed, config.seed + count):
        folder = Path(config.run_dir) / f"seed-{seed}"
        # What was interrupted had not come to its later seeds yet.
        begun = (folder / "config.yaml").exists() or seed == config.seed
        train = replace(
            config, seed=seed, seeds=1, ensemble=1, run_dir=str(folder), resume=config.resume and begun
        )
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
