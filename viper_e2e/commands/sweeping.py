"""sweeping.py: `viper sweep`: settings tried on one pass over the clips, compared, and the best model kept."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from viper_e2e.commands.command_line import parse_beside_train
from viper_e2e.config import Settings, SettingsFile, SweepConfig
from viper_e2e.errors import ExitCode, ViperError
from viper_e2e.runtime import without_collecting

if TYPE_CHECKING:
    from viper_e2e.experiments import Plan, Proposals, TrialRow

RECORD = "sweep.json"
MORE = (
    "Every option of viper train works too, and holds for all trials: --train-shards, --val-shards, "
    "--run-dir, --preset, --config FILE, --resume, …"
)


def parse_sweep(argv: Sequence[str]) -> tuple[SweepConfig, list[SettingsFile], list[str]]:
    """Own options, and the files and words of `viper train`."""
    return parse_beside_train(SweepConfig, _single(argv, "--grid", "--range"), "viper sweep", MORE)


def _single(argv: Sequence[str], *options: str) -> list[str]:
    """``--grid a=1 b=2`` → ``--grid=a=1 --grid=b=2``."""
    words: list[str] = []
    current = ""
    for word in argv:
        if word in options:
            current = word
            continue
        if word.startswith("-") or "=" not in word:
            current = ""
        words.append(f"{current}={word}" if current else word)
    return words


def run_sweep(
    options: SweepConfig, files: Sequence[SettingsFile], others: Sequence[str], command: Sequence[str]
) -> int:
    """``files``, ``others``: of `viper train`, as `parse_sweep` gives them."""

    from viper_e2e.commands.parsing import parse_train

    def parsed(differs: Mapping[str, str]) -> Settings:
        return parse_train([*others, *_words(differs)], "viper sweep", options, files)

    base = parsed({})
    with without_collecting():
        from viper_e2e.experiments import Trial, run_trials, settled_plan
        from viper_e2e.training import check_goes_on

    if base.train.resume:
        check_goes_on(Path(base.train.run_dir), "sweep")
    plan, propose = _plan(options, base)
    plan = settled_plan(base, plan, Path(base.train.run_dir) / RECORD)
    # Folders keep their names where more trials follow.
    digits = len(str(plan.began_with or plan.num_trials))

    def make(number: int, differs: Mapping[str, str]) -> Trial:
        return Trial.of(f"trial-{number:0{digits}}", differs, parsed(differs))

    for axis in propose.axes if propose is not None else ():
        # What it may come to is looked at before the first is trained.
        for value in axis.choices or (axis.written(axis.low), axis.written(axis.high)):
            parsed({axis.name: value})
    code, rows = run_trials(base, make, plan, RECORD, command, propose=propose)
    if not rows or code not in (ExitCode.OK, ExitCode.SOME_FAILED):
        return code
    is_drawn = show_trials(rows, Path(base.train.run_dir), "sweep")
    return code if is_drawn else ExitCode.SOME_FAILED


def _plan(options: SweepConfig, base: Settings) -> tuple[Plan, Proposals | None]:
    """The plan of trials, as `sweep.json` keeps it; and who proposes those not known yet."""
    from viper_e2e.experiments import Plan, drawn, grid, read_axes, read_plan

    asked = [bool(options.grid), options.random is not None, options.optuna is not None]
    before = read_plan(Path(base.train.run_dir) / RECORD) if base.train.resume else None
    if before is not None and not any(asked):
        return before, _proposals(before, base)
    if before is not None and not options.grid and not options.range and before.seed is not None:
        # More trials of the same ranges: --random 40 alone says so.
        seed = options.sweep_seed or before.seed
        options = replace(options, range=[*before.over], sweep_seed=seed)
    if asked.count(True) != 1:
        raise ViperError(
            "name what to try: either --grid NAME=V1,V2 …, or --random N or --optuna N with "
            "--range NAME=LOW..HIGH …"
        )
    if options.grid and options.sweep_seed:
        raise ViperError(f"--sweep-seed {options.sweep_seed}: a grid has nothing to draw; leave it out")
    if options.grid and options.range:
        raise ViperError("--range goes with --random N or --optuna N; --grid names each value itself")
    if not options.grid and not options.range:
        raise ViperError(
            "--random N and --optuna N need --range NAME=LOW..HIGH …, which says what to choose from"
        )
    if options.grid:
        axes = read_axes(options.grid, base, "--grid")
        return Plan("grid", tuple(options.grid), trials=tuple(grid(axes))), None
    over, seed = tuple(options.range), options.sweep_seed
    if options.optuna is not None:
        plan = Plan("optuna", over, seed, options.optuna)
        return plan, _proposals(plan, base)
    assert options.random is not None
    axes = read_axes(options.range, base, "--range")
    return Plan("random", over, seed, trials=tuple(drawn(axes, options.random, seed))), None


def _proposals(plan: Plan, base: Settings) -> Proposals | None:
    if plan.count is None:
        return None
    from viper_e2e.experiments import Proposals, read_axes

    assert plan.seed is not None
    return Proposals(read_axes(plan.over, base, "--range"), plan.count, plan.seed)


def _words(differs: Mapping[str, str]) -> list[str]:
    # `--head` would win over the setting that it stands for.
    return [f"--{'head' if name == 'model.fusion.kind' else name}={value}" for name, value in differs.items()]


def show_trials(rows: Sequence[TrialRow], folder: Path, title: str) -> bool:
    """Table, plot and what to do next, in the first process; whether the plot could be drawn. One trial at
    least has not failed."""
    from viper_e2e.commands.pictures import draw
    from viper_e2e.experiments import ranked
    from viper_e2e.report import shown_score, stdout_console, trials_plot
    from viper_e2e.runtime import table

    best_first = ranked(rows)
    measure, names = best_first[0].measure, list(rows[0].settings)
    others = list(best_first[0].other_measures)
    columns = ["trial", *(name.removeprefix("model.") for name in names), measure, *others, "epoch"]
    cells = []
    for row in best_first:
        told = ["failed", *("–" for _ in others)]
        if not row.failed:
            told = [shown_score(value) for value in (row.value, *row.other_measures.values())]
        cells.append((row.trial, *row.settings.values(), *told, row.epoch or "–"))
    stdout_console().print(table(title, columns, cells))
    plot = folder / f"{title}.png"
    is_drawn = draw(plot, lambda: trials_plot([row.to_json() for row in rows], plot, measure))
    tell_ending(rows, folder)
    return is_drawn


def tell_ending(rows: Sequence[TrialRow], folder: Path) -> None:
    """Print the trials that failed or made no difference, the best one, and what to do next."""
    from viper_e2e.experiments import ranked, without_effect
    from viper_e2e.runtime import AS_IT_IS, console

    for row in (row for row in rows if row.failed):
        console.print(
            f"{row.trial} failed: {row.failed}; not tried again, unless its folder is removed",
            **AS_IT_IS,
        )
    for trial, other, settings in without_effect(rows):
        which = " and ".join(name.removeprefix("model.") for name in settings)
        console.print(f"{trial} repeats {other}: {which} had no effect", style="yellow", **AS_IT_IS)
    best = ranked(rows)[0].trial
    console.print(f"best: {best}, kept as {folder / 'checkpoints' / 'best'}", **AS_IT_IS)
    console.print(f"next: viper infer CLIP --checkpoint {shlex.quote(str(folder))}", **AS_IT_IS)
