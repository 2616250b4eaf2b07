"""seeds.py: a training per seed (`--seeds`, `--ensemble`); mean and deviation of their scores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from viper_e2e.config import Settings
from viper_e2e.errors import ViperError
from viper_e2e.experiments.closing_lines import ensemble_lines, failed_seeds_line, seeds_lines
from viper_e2e.experiments.ensembling import check_joinable, join
from viper_e2e.experiments.many_trainings import ManyTrainings
from viper_e2e.experiments.outcome import Failed, Outcome, Run
from viper_e2e.report import RunLog, ScoreRecord
from viper_e2e.runtime import console, plain_json, write_text
from viper_e2e.scoring import AGREEMENT, Spread
from viper_e2e.training import (
    check_to_resume,
    keep_data,
    measures_in,
    seeds_table,
    shards_of,
    with_absolute_paths,
    write_settings,
)


def train_seeds(settings: Settings) -> int:
    """Train once per seed, and join the models where that is asked for; returns the exit code: 0, 2 if some
    seeds failed or plots of theirs, or the signal's if one asked to stop.

    Seeds that diverge are reported at the end; the others are trained all the same."""
    check_to_resume(settings)
    check_joinable(settings)
    runs = seeded(settings)
    command = ["viper", "train", *settings.words]
    with ManyTrainings(settings, command=command, count=len(runs)) as many:
        many.check_free(runs)
        return _train_all(settings, runs, many)


def _train_all(settings: Settings, runs: Sequence[Settings], many: ManyTrainings) -> int:
    ended = _each_trained(settings, runs, many)
    if ended is None:
        return many.code
    outcomes, failed = ended
    config = settings.train
    folder, is_joined = Path(config.run_dir), config.ensemble > 1
    if not outcomes:
        raise ViperError(f"{folder}: all {len(runs)} seeds failed (see nonfinite.jsonl in each); lower --lr")
    summary = summarised({seed: outcome.log for seed, outcome in outcomes.items()})
    summary |= {"failed": {str(seed): why for seed, why in failed.items()}} if failed else {}
    joins = is_joined and not failed
    judged = _joined(settings, runs, [*outcomes.values()], many) if joins else None
    if joins:
        summary["ensemble"] = {} if judged is None else judged.to_json()
    if many.processes.is_main and len(summary["seeds"]) > 1:
        console.print(seeds_table(summary))
        write_text(folder / "seeds.json", plain_json.dumps(summary, indent=2) + "\n")
        many.tell(f"wrote {folder / 'seeds.json'}")
    if joins:
        many.tell(ensemble_lines(folder / "checkpoints" / "best", judged))
    else:
        many.tell(seeds_lines(folder, summary, next(iter(outcomes)), config.val_shards))
    if failed:
        many.tell(failed_seeds_line(folder, failed, len(runs), is_joined=is_joined))
    return many.code_of(failed=bool(failed))


def _each_trained(
    settings: Settings, runs: Sequence[Settings], many: ManyTrainings
) -> tuple[dict[int, Outcome], dict[int, str]] | None:
    """By seed, what has ended and why the others failed; None where a signal asked to stop."""

    def begun() -> None:
        if many.processes.is_main:
            # So that `--resume --run-dir` alone continues with all seeds.
            write_settings(Path(settings.train.run_dir), with_absolute_paths(settings))

    def told() -> Iterator[Run]:
        for number, run in enumerate(runs, start=1):
            name = f"seed {run.train.seed}"
            many.tell(f"{name} ({number} of {len(runs)})", style="bold")
            yield Run(name, run)

    outcomes: dict[int, Outcome] = {}
    failed: dict[int, str] = {}
    for run, ended in many.each(told(), begun):
        if isinstance(ended, Failed):
            failed[run.settings.train.seed] = ended.why
        else:
            outcomes[run.settings.train.seed] = ended
    return None if many.code else (outcomes, failed)


def _joined(
    settings: Settings, runs: Sequence[Settings], outcomes: Sequence[Outcome], many: ManyTrainings
) -> ScoreRecord | None:
    """Make one model of all seeds; what it is worth in validation, where there is one."""
    folder = Path(settings.train.run_dir)
    val = shards_of(runs[0])[1]
    said = [many.predict(outcome, val) for outcome in outcomes] if val is not None else []
    members, target = [outcome.best for outcome in outcomes], folder / "checkpoints" / "best"
    judged = join(members, said, target, many.processes, best_by=settings.train.best_by)
    if many.processes.is_main:
        keep_data(Path(runs[0].train.run_dir), folder)
    return judged


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
        runs.append(replace(settings, train=train))
    return runs


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
