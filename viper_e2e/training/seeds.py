"""seeds.py: a training per seed (`--seeds`, `--ensemble`), and the mean and deviation of what they come to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from viper_e2e.config import Settings
from viper_e2e.training.validation import best_epoch


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
        if (found := best_epoch(log)) is not None:
            best[seed] = found["val"]
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
