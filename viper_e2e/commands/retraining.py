"""retraining.py: `viper ablate --retrain`: trains every subset of modalities, on one pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from viper_e2e.commands.parsing import parse_train
from viper_e2e.commands.sweeping import tell_ending
from viper_e2e.config import Settings, backbones_of, in_order, with_settings
from viper_e2e.errors import ExitCode, ViperError
from viper_e2e.runtime import without_collecting

if TYPE_CHECKING:
    from viper_e2e.experiments import ManyTrainings, Outcome, Rescored, TrialRow

RECORD = "retrained.json"


def run_retraining(words: Sequence[str], command: Sequence[str]) -> int:
    """``words``: of `viper train`. Hidden from a model that was trained with it, a modality leaves a gap; what
    a model is without it is seen once it has learned without it."""
    base = parse_train(words, "viper ablate --retrain")
    with without_collecting():
        from viper_e2e.experiments import Plan, Trial, run_trials, settled_plan
        from viper_e2e.training import check_goes_on

    if base.train.resume:
        check_goes_on(Path(base.train.run_dir), "ablate --retrain")
    subsets = subsets_of(base.model.modalities)
    if len(subsets) == 1:
        raise ViperError("--retrain: this model has one modality; there is nothing to leave out")

    def make(number: int, differs: Mapping[str, str]) -> Trial:
        subset = subsets[number - 1]
        return Trial.of("+".join(subset), differs, of_subset(base, subset))

    plan = Plan("modalities", trials=tuple({"modalities": ",".join(subset)} for subset in subsets))
    plan = settled_plan(base, plan, Path(base.train.run_dir) / RECORD)
    code, rows = run_trials(base, make, plan, RECORD, command, rescore=_rescored)
    if not rows or code not in (ExitCode.OK, ExitCode.SOME_FAILED):
        return code
    return code if _show(rows, Path(base.train.run_dir)) else ExitCode.SOME_FAILED


def subsets_of(modalities: Sequence[str]) -> list[tuple[str, ...]]:
    """All of them first, whose tokens the smaller ones find."""
    names = in_order(modalities)
    return [chosen for size in range(len(names), 0, -1) for chosen in combinations(names, size)]


def of_subset(base: Settings, subset: Sequence[str]) -> Settings:
    """The same run with these modalities alone. What is read of clips stays what all together need, so that
    subsets differ in nothing else, and every clip is decoded and encoded once."""
    model = with_settings(
        base.model,
        {"modalities": tuple(subset), "decoding.for_modalities": in_order(base.model.modalities)},
    )
    known = backbones_of(model)
    depths, later = base.train.unfreeze.only(known), base.train.unfreeze_at.only(known)
    return replace(base, model=model, train=replace(base.train, unfreeze=depths, unfreeze_at=later))


def _rescored(many: ManyTrainings, outcome: Outcome) -> Rescored:
    """Score again, for the interval of the judging measure if it is a single one, as in `viper ablate`."""
    from viper_e2e.experiments import Rescored
    from viper_e2e.scoring import interval_of_main, scores_of, scores_record
    from viper_e2e.training import shards_of

    val, best_by = shards_of(outcome.settings)[1], outcome.settings.train.best_by
    assert val is not None, "was checked"
    scores = scores_of(many.predict(outcome, val))
    return Rescored(**interval_of_main(scores.tasks, best_by), pearson=scores_record(scores)["pearson"])


def _show(rows: Sequence[TrialRow], folder: Path) -> bool:
    """Table, plot and what to do next; whether the plot could be drawn."""
    from viper_e2e.commands.pictures import draw
    from viper_e2e.experiments import ranked
    from viper_e2e.report import figures, stdout_console
    from viper_e2e.runtime import table

    best_first = ranked(rows)
    others = list(best_first[0].other_measures)
    cells = []
    for row in best_first:
        rescored = row.rescored
        told = [row.value, *((rescored.low, rescored.high) if rescored is not None else (None, None))]
        told += [None for _ in others] if row.failed else [*row.other_measures.values()]
        shown = ("–" if value is None else f"{value:.3f}" for value in told)
        cells.append((", ".join(_modalities(row)), *shown, "failed" if row.failed else row.epoch))
    columns = ("modalities", best_first[0].measure, "95 % from", "to", *others, "epoch")
    over = figures.intervals_in_words([row.to_json() for row in rows])
    stdout_console().print(table(f"trained for itself, validation{over}", columns, cells))
    known = [
        row.to_json() | {"modalities": _modalities(row), "score": row.value}
        for row in best_first
        if row.value is not None
    ]
    plot = folder / "retrained.png"
    is_drawn = not known or draw(plot, lambda: figures.ablation_plot(known, plot))
    tell_ending(rows, folder)
    return is_drawn


def _modalities(row: TrialRow) -> list[str]:
    return row.settings["modalities"].split(",")
