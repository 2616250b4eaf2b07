"""retraining.py: `viper ablate --retrain`: every subset of modalities trained for itself, on one pass."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from viper_e2e.commands.parsing import parse_train
from viper_e2e.config import Depths, Settings, backbones_of, in_order
from viper_e2e.errors import ExitCode, ViperError

if TYPE_CHECKING:
    from viper_e2e.training import ManyTrainings, Outcome

RECORD = "retrained.json"


def run_retraining(words: Sequence[str], command: Sequence[str]) -> int:
    """``words``: of `viper train`. Hidden from a model that was trained with it, a modality leaves a gap; what
    a model is without it is seen once it has learned without it."""
    base = parse_train(words, "viper ablate --retrain")
    from viper_e2e.training import Trial, run_trials, settled_plan

    subsets = subsets_of(base.model.modalities)
    if len(subsets) == 1:
        raise ViperError("--retrain: this model has one modality; there is nothing to leave out")

    def make(number: int, differs: Mapping[str, str]) -> Trial:
        subset = subsets[number - 1]
        return Trial.of("+".join(subset), differs, of_subset(base, subset))

    plan = {"kind": "modalities", "trials": [{"modalities": ",".join(subset)} for subset in subsets]}
    plan = settled_plan(base, plan, Path(base.train.run_dir) / RECORD)
    code, rows = run_trials(base, make, plan, RECORD, command, judge=_judged)
    if code in (ExitCode.OK, ExitCode.SOME_FAILED):
        _show(rows, Path(base.train.run_dir))
    return code


def subsets_of(modalities: Sequence[str]) -> list[tuple[str, ...]]:
    """All of them first, whose tokens the smaller ones find."""
    names = in_order(modalities)
    return [chosen for size in range(len(names), 0, -1) for chosen in combinations(names, size)]


def of_subset(base: Settings, subset: Sequence[str]) -> Settings:
    """The same run with these modalities alone. What is read of clips stays what all together need, so that
    subsets differ in nothing else, and every clip is decoded and encoded once."""
    model = copy.deepcopy(base.model)
    model.modalities = tuple(subset)
    model.decoding.for_modalities = in_order(base.model.modalities)
    known = backbones_of(model)
    depths = Depths(tuple((name, depth) for name, depth in base.train.unfreeze.rows if name in known))
    return replace(base, model=model, train=replace(base.train, unfreeze=depths))


def _judged(many: ManyTrainings, outcome: Outcome) -> dict[str, Any]:
    """With an interval, as `viper ablate` has it."""
    from viper_e2e.scoring import finite_or_none, measure
    from viper_e2e.training import shards_of

    val = shards_of(outcome.settings)[1]
    assert val is not None, "was checked"
    scores, intervals = measure(many.predict(outcome, val))
    own = {"low": intervals.mean_pearson.low, "high": intervals.mean_pearson.high}
    by_label = {name: finite_or_none(value) for name, value in zip(scores.names, scores.pearson, strict=True)}
    return {name: finite_or_none(value) for name, value in own.items()} | {"pearson": by_label}


def _show(rows: Sequence[dict[str, Any]], folder: Path) -> None:
    from viper_e2e.commands.pictures import draw
    from viper_e2e.report import figures, stdout_console
    from viper_e2e.runtime import table
    from viper_e2e.training import ranked

    best_first = [row | {"modalities": row["settings"]["modalities"].split(",")} for row in ranked(rows)]
    cells = [
        (
            ", ".join(row["modalities"]),
            *("–" if row.get(key) is None else f"{row[key]:.3f}" for key in ("mean_pearson", "low", "high")),
            "failed" if "failed" in row else row["epoch"],
        )
        for row in best_first
    ]
    columns = ("modalities", "mean Pearson", "95 % from", "to", "epoch")
    stdout_console().print(table("trained for itself, validation", columns, cells))
    known = [
        row | {"measure": "mean Pearson", "score": row["mean_pearson"]}
        for row in best_first
        if "failed" not in row and None not in (row["mean_pearson"], row["low"], row["high"])
    ]
    if known:
        plot = folder / "retrained.png"
        draw(plot, lambda: figures.ablation_plot(known, plot))
