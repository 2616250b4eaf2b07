"""cross_validation.py: `viper cv`: a training per fold, pooled predictions, scores with their spread."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from viper_e2e.commands.common import tell_failed
from viper_e2e.commands.pictures import draw
from viper_e2e.config import CrossValConfig, Settings
from viper_e2e.errors import ExitCode
from viper_e2e.experiments import CrossValidation, Folding, cross_validate
from viper_e2e.model import checkpoint
from viper_e2e.report import fold_plot, fold_seed_tables, fold_tables, over_in_words, stdout_console, tables
from viper_e2e.runtime import AS_IT_IS, console, versions, written_whole
from viper_e2e.scoring import (
    FoldScores,
    Scores,
    fold_scores,
    over_seeds,
    readable,
    scores_of,
    scores_record,
    with_thresholds,
)
from viper_e2e.tasks import UNNAMED


def run_cv(options: CrossValConfig, settings: Settings, words: Sequence[str]) -> int:
    """Cross-validate, and write what came of it beside the folds' runs. ``words``: of the command line."""
    folding = Folding(settings, source=options.folds, by=options.by, stratify=options.stratify)
    found, code, is_main = cross_validate(folding, ["viper", "cv", *words])
    if not found:
        return code if code or not is_main else ExitCode.NOTHING_DONE
    found = {seed: _with_thresholds(one) for seed, one in found.items()}
    settled = {seed: _settle(folding.by_seed[seed], one) for seed, one in found.items()}
    by_seed = {seed: one.scores for seed, one in settled.items() if one.scores is not None}
    for seed, scores in by_seed.items() if len(found) == 1 else ():
        _show(found[seed], scores)
    # A mean over the seeds that did well would flatter.
    if len(by_seed) == len(folding.by_seed) > 1:
        first = next(iter(by_seed))
        _settle_seeds(folding, by_seed, note_on(found[first], by_seed[first]))
    if by_seed:
        run = folding.by_seed[next(iter(by_seed))].folder
        console.print(f"next: viper compare {shlex.quote(str(run))} ANOTHER_RUN", **AS_IT_IS)
    codes = [code, *(one.code for one in settled.values())]
    return max(codes, key=lambda code: (code == ExitCode.NOTHING_DONE, code))


def _with_thresholds(found: CrossValidation) -> CrossValidation:
    """The result with thresholds of blends fitted on all clips, as `note_on` tells."""
    return replace(found, pooled=replace(found.pooled, labels=with_thresholds(found.pooled)))


class _Settled(NamedTuple):
    """Result of one seed."""

    code: int
    scores: Mapping[str, FoldScores] | None
    """None where too few clips could be read."""


def _settle(folding: Folding, found: CrossValidation) -> _Settled:
    """Measure and write one seed's cross-validation."""
    predictions = found.pooled
    tell_failed(predictions)
    predictions.write_csv(folding.folder / "predictions.csv")
    console.print(f"wrote {folding.folder / 'predictions.csv'}", **AS_IT_IS)
    if predictions.scored.sum() < 2:
        console.print("fewer than two labelled clips could be read: predictions only, no metrics")
        return _Settled(ExitCode.NOTHING_DONE, None)
    whole = scores_of(predictions)
    scores = fold_scores(whole, predictions.labels, found.by_fold)
    _write(folding, found, whole, scores)
    plot = folding.folder / "folds.png"
    is_drawn = draw(plot, lambda: fold_plot(scores, plot))
    fine = bool(predictions.valid.all()) and not predictions.keys_without_number and is_drawn
    return _Settled(ExitCode.OK if fine else ExitCode.SOME_FAILED, scores)


def _show(found: CrossValidation, scores: Mapping[str, FoldScores]) -> None:
    predictions, shown = found.pooled, stdout_console()
    if not predictions.labels.names_tasks:
        shown.print(tables.metrics_table(scores[UNNAMED].pooled))
        shown.print()
    for made in fold_tables(scores):
        shown.print(made)
        shown.print()
    shown.print(note_on(found, scores))


def _settle_seeds(folding: Folding, by_seed: Mapping[int, Mapping[str, FoldScores]], note: str) -> None:
    """The spread over seeds, beside their folders."""
    names = next(iter(by_seed.values()))
    spreads = {name: over_seeds([scores[name] for scores in by_seed.values()]) for name in names}
    tasks = {name: {one: over.to_json() for one, over in own.items()} for name, own in spreads.items()}
    path = folding.folder / "seeds.json"
    with written_whole(path) as partial:
        checkpoint.write_json(partial, readable({"seeds": list(by_seed), "tasks": tasks}))
    console.print(f"wrote {path}", **AS_IT_IS)
    shown = stdout_console()
    for made in fold_seed_tables(by_seed):
        shown.print(made)
        shown.print()
    shown.print(note)


def note_on(found: CrossValidation, scores: Mapping[str, FoldScores]) -> str:
    """Note on the models that predicted each clip, and on the units of intervals."""
    whom = (
        "a model that was not trained on it"
        if found.folds.by == "clip"
        else f"a model that never saw its {found.folds.by.lower()}"
    )
    which = {
        "last": "after its last epoch; no epoch was chosen",
        "best": "at its best epoch on clips of its own training folds (--inner-val)",
    }[found.checkpoint]
    is_fitted = bool(found.pooled.labels.thresholds)
    thresholds = "; thresholds of blends fitted on these very clips" if is_fitted else ""
    over = {
        over_in_words(one.pooled.over, one.pooled.caution) for one in scores.values() if one.pooled.intervals
    }
    told = " and ".join(sorted(over, reverse=True))
    return f"each clip by {whom}, {which}; 95 % intervals over {told}{thresholds}"


def _write(folding: Folding, found: CrossValidation, whole: Scores, scores: Mapping[str, FoldScores]) -> None:
    predictions, record = found.pooled, scores_record(whole)
    record["tasks"] = {name: one.to_json() for name, one in scores.items()}
    record["labels"] = predictions.labels.to_json()
    record["folds"] = {"names": list(folding.names), "by": found.folds.by, **found.folds.made}
    record |= {
        "predicted_by": note_on(found, scores),
        "checkpoint": found.checkpoint,
        "num_failed": int((~predictions.valid).sum()),
    }
    record["versions"] = versions()
    path = Path(folding.folder) / "metrics.json"
    with written_whole(path) as partial:
        checkpoint.write_json(partial, readable(record))
    console.print(f"wrote {path}", **AS_IT_IS)
