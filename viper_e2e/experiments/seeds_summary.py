"""seeds_summary.py: mean and standard deviation of scores over seeds, as a record and as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.table import Table

from viper_e2e.report import RunLog, shown_score
from viper_e2e.runtime import count_of, table
from viper_e2e.scoring import AGREEMENT, Spread
from viper_e2e.tasks import measure_title, names_none
from viper_e2e.training import MEASURES, measures_in


def summarised(logs: Mapping[int, RunLog]) -> dict[str, Any]:
    """Mean and standard deviation over seeds, as the challenge's baseline tells them (Christ et al. 2022).

    ``logs``: by seed. Of each the epoch counts that ``checkpoints/best`` holds; a seed
    that was never validated is left out. ``seeds``, ``best`` of them, ``chosen_by`` (the measure that chose it
    and the epochs), and per measure ``{"values", "mean", "deviation"}``, of which the latter are ``None`` where
    a value is undefined; under ``tasks`` of each task in its own measures.
    """
    best = {seed: found.scores for seed, log in logs.items() if (found := log.best) is not None}
    summary: dict[str, Any] = {"seeds": list(best)}
    if not best:
        return summary
    first = next(iter(best.values()))
    summary["best"] = max(best, key=lambda seed: best[seed].rank)
    summary["chosen_by"] = first.judgement.measure
    for measure in AGREEMENT:
        summary[f"mean_{measure}"] = _spread(scores.mean(measure) for scores in best.values())
    summary["tasks"] = {
        task: {"kind": record["kind"]}
        | {name: _spread(scores.tasks[task][name] for scores in best.values()) for name in measures_in(record)}
        for task, record in first.tasks.items()
    }
    return summary


def _spread(values: Iterable[float | None]) -> dict[str, Any]:
    return Spread(tuple(values)).to_json()


def seeds_table(summary: Mapping[str, Any]) -> Table:
    """Mean ± standard deviation over trainings that differ in their seed alone; as of `summarised`."""
    found = {title: summary[f"mean_{key}"] for title, key in MEASURES}
    if not names_none({name: one["kind"] for name, one in summary["tasks"].items()}):
        each = [(task, *of_measure) for task, one in summary["tasks"].items() for of_measure in one.items()]
        found = {f"{task} {measure_title(name)}": over for task, name, over in each if name != "kind"}
    rows = []
    for title, over in found.items():
        spread = f"{shown_score(over['mean'])} ± {shown_score(over['deviation'])}"
        rows.append((title, spread, " ".join(shown_score(value) for value in over["values"])))
    title = (
        f"{count_of(len(summary['seeds']), 'seed')}, validation, best epoch of each by {summary['chosen_by']}"
    )
    return table(title, ("measure", "mean ± sd", "each"), rows)
