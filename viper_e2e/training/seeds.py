"""seeds.py: a training per seed (`--seeds`, `--ensemble`), and the mean and deviation of their scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from viper_e2e.config import Settings
from viper_e2e.training.tables import measures_in
from viper_e2e.training.validation import best_epoch, judgement, rank


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


def summarised(logs: Mapping[int, Sequence[Mapping[str, Any]]], best_by: str = "") -> dict[str, Any]:
    """Mean and standard deviation over seeds, as the challenge's baseline tells them (Christ et al. 2022).

    ``logs``: seed → its ``metrics.jsonl``. Of each the epoch counts that ``checkpoints/best`` holds; a seed
    that was never validated is left out. ``seeds``, ``best`` of them, ``chosen_by`` (the measure that chose it
    and the epochs), and per measure ``{"values", "mean", "deviation"}``, of which the latter are ``None`` where
    a value is undefined; of tasks also each in its own measures, under ``tasks``.
    """
    best = {}
    for seed, log in logs.items():
        if (found := best_epoch(log)) is not None:
            best[seed] = found["val"]
    summary: dict[str, Any] = {"seeds": list(best)}
    if not best:
        return summary
    first = next(iter(best.values()))
    summary["best"] = max(best, key=lambda seed: rank(judgement(best[seed]).score, best[seed]["mean_mse"]))
    summary["chosen_by"] = judgement(first, best_by).measure
    for name in ("mean_pearson", "mean_ccc", "mean_mse"):
        summary[name] = _spread([val[name] for val in best.values()])
    if "tasks" in first:
        summary["tasks"] = {
            task: {
                name: _spread([val["tasks"][task][name] for val in best.values()])
                for name in measures_in(record)
            }
            for task, record in first["tasks"].items()
        }
    return summary


def _spread(values: Sequence[float | None]) -> dict[str, Any]:
    known = [value for value in values if value is not None]
    is_known = len(values) > 1 and len(known) == len(values)
    return {
        "values": list(values),
        "mean": fmean(known) if is_known else None,
        "deviation": stdev(known) if is_known else None,
    }
