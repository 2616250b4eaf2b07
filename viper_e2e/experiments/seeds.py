"""seeds.py: a training per seed (`--seeds`), and one model of them all (`--ensemble`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from viper_e2e.config import Settings
from viper_e2e.errors import ViperError
from viper_e2e.experiments.closing_lines import ensemble_lines, failed_seeds_line, seeds_lines
from viper_e2e.experiments.ensembling import check_joinable, join
from viper_e2e.experiments.many_trainings import ManyTrainings
from viper_e2e.experiments.outcome import Failed, Outcome, Run
from viper_e2e.experiments.seeds_summary import seeds_table, summarised
from viper_e2e.report import ScoreRecord
from viper_e2e.runtime import console, plain_json, write_text
from viper_e2e.training import (
    check_to_resume,
    keep_data,
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
