"""closing_lines.py: lines printed at the end of a training: its model, its score, the next command."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from viper_e2e.report import Judgement, ScoreRecord
from viper_e2e.shards import parse_corpora
from viper_e2e.training import Trainer


def stopped_line(trainer: Trainer, command: Sequence[str]) -> str:
    """Line on the progress of a run that was asked to stop, and the command that continues it."""
    run, state = trainer.run, trainer.state
    goes_on = _continued(command, run.processes.count)
    told = f"stopped after step {state.step:,} of {trainer.total_steps:,}"
    if run.saver.has_last(state):
        return f"{told}; saved in {run.folder.last}; {goes_on}"
    return f"{told}; not saved ({run.saver.refusal}), {_kept(trainer)}; make room, then {goes_on}"


def unsaved_line(trainer: Trainer, command: Sequence[str]) -> str:
    """Line on what is kept of a run that could not write its end, and what to do."""
    run, state, folder = trainer.run, trainer.state, trainer.run.folder
    checkpoints = folder.last.parent
    if not run.saver.has_last(state):
        told = f"{checkpoints}: the end of the training could not be saved ({run.saver.refusal})"
        return f"{told}, {_kept(trainer)}; make room, then {_continued(command, run.processes.count)}"
    if not state.unsaved:
        told, holds = "; ".join(folder.refusals()), f"{folder.last} holds what they lack"
        again = _continued(command, run.processes.count)
        return f"{folder.path}: {told}; {holds}: make room or give permission, then {again}"
    lost = ", ".join(f"{name} (of step {step:,})" for name, step in state.unsaved.items())
    kept = f"{folder.last} holds the end of the training, step {state.step:,}"
    return (
        f"{checkpoints}: {lost} could not be written, and no later epoch was better; {kept}; use it, or train "
        "again"
    )


def _kept(trainer: Trainer) -> str:
    """The last that was saved."""
    if trainer.run.saver.kept is None:
        return "nothing is saved"
    step, validated_step = trainer.run.saver.kept
    before = ", before its validation" if step == trainer.state.validated_step != validated_step else ""
    return f"what is saved ends at step {step:,} of {trainer.total_steps:,}{before}"


def _continued(command: Sequence[str], num_processes: int) -> str:
    again = shlex.join([*command, *([] if "--resume" in command else ["--resume"])])
    launched = " (started by torchrun as before)" if num_processes > 1 else ""
    return f"continue{launched} with:\n{again}"


def finished_lines(trainer: Trainer, *, is_alone: bool) -> str:
    """Where the model of a finished run is, how good it was, and of one that ``is_alone`` what to do with it:
    a command of many trainings says so once, at its end."""
    run, folder, best = trainer.run, trainer.run.folder, trainer.state.best
    if not best or not (run.config.val_shards or run.config.inner_val):
        model, val_shards = folder.last, None
        lines = [f"trained model: {model}"]
    else:
        model, val_shards = folder.best, run.config.val_shards
        lines = [f"best model: {model} (validation, {_chosen_by(best, run.validation.judged_by)})"]
    if is_alone:
        lines += [f"next: {shlex.join(words)}" for words in _next_commands(model, val_shards, folder.path)]
    return "\n".join(lines)


def _chosen_by(best: Mapping[str, float], measure: str) -> str:
    """The measure that chose ``checkpoints/best``, with its value: the MSE if ``measure`` was never defined."""
    if "best" in best:
        return Judgement(measure, best["best"]).in_words
    return f"MSE {-best['best_mse']:.4f}; {measure} is undefined"


def _next_commands(model: Path, val_shards: str | None, run: Path) -> Iterator[list[str]]:
    if not val_shards:
        yield ["viper", "infer", "CLIP", "--checkpoint", str(model)]
        return
    corpora = parse_corpora(val_shards, "--val-shards")
    patterns = [(corpus.name, pattern) for corpus in corpora for pattern in corpus.patterns]
    for number, (name, pattern) in enumerate(patterns, start=1):
        out = run / "eval" / (name or (str(number) if len(patterns) > 1 else ""))
        yield ["viper", "eval", "--checkpoint", str(model), "--shards", pattern, "--out", str(out)]


def seeds_lines(folder: Path, summary: Mapping[str, Any], first: int, val_shards: str | None) -> str:
    """Lines on the best model of several seeds, and the next command. ``summary``: as `summarised` has made
    it; without validation none is the best, and the ``first`` stands for all."""
    best = summary.get("best")
    run = folder / f"seed-{first if best is None else best}"
    model = run / "checkpoints" / ("last" if best is None else "best")
    lines = [] if best is None else [f"best in validation: seed {best}, {model}"]
    following = _next_commands(model, None if best is None else val_shards, run)
    return "\n".join([*lines, *(f"next: {shlex.join(words)}" for words in following)])


def failed_seeds_line(folder: Path, failed: Mapping[int, str], count: int, *, is_joined: bool) -> str:
    """Line on the seeds, of ``count``, that failed, and how to resume. ``is_joined``: they make one model."""
    which = "; ".join(f"seed {seed}: {why}" for seed, why in failed.items())
    without = f", so that no model was made of all {count}" if is_joined else ", and the mean is of the others"
    again = f"viper train --resume --run-dir {shlex.quote(str(folder))}"
    told = f"{len(failed)} of {count} seeds failed ({which}){without}"
    return f"{told}; the others are kept: {again} trains only these"


def ensemble_lines(model: Path, scores: ScoreRecord | None) -> str:
    """Where the model of all seeds is, and how good; ``scores`` are None without validation."""
    told = "" if scores is None else f" (validation, {scores.judgement.in_words})"
    following = ["viper", "infer", "CLIP", "--checkpoint", str(model.parent.parent)]
    return f"model of all seeds: {model}{told}\nnext: {shlex.join(following)}"
