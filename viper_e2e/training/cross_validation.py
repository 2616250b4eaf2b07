"""cross_validation.py: a run per fold from one pass of encoding; each clip predicted by who never saw it."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from copy import copy, deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.table import Table

from viper_e2e.config import Settings
from viper_e2e.errors import ExitCode, ViperError
from viper_e2e.model import Predictions, checkpoint
from viper_e2e.runtime import AS_IT_IS, console, count_of, plain_json, settle_folder, table, write_text
from viper_e2e.scoring import known_groups
from viper_e2e.shards import ShardSet, parse_corpora
from viper_e2e.training.data import limits_of, open_corpora
from viper_e2e.training.folds import (
    Folds,
    entries_of,
    folds_from,
    is_file_of_folds,
    make_folds,
    notes_on,
    read_folds,
)
from viper_e2e.training.guarding import DivergedError
from viper_e2e.training.joining import check_joinable, join
from viper_e2e.training.one_pass import ManyTrainings, Outcome
from viper_e2e.training.resuming import SavedRun, differences, with_absolute_paths
from viper_e2e.training.run_folder import check_goes_on, write_settings
from viper_e2e.training.seeds import seeded

FOLDS, HELD_OUT = "folds.json", "held_out"


@dataclass(frozen=True)
class CrossValidation:
    """What came of all folds."""

    folds: Folds
    by_fold: Mapping[str, Predictions]
    """Of the clips that each fold held out, by its own model."""
    pooled: Predictions
    """Of all clips, each once, in the order of the shards."""
    checkpoint: str
    """Of each run, the one that has predicted: ``last``, or ``best`` by clips of its own training folds."""


LEARNING = ("lr", "backbone_lr", "weight_decay", "clip_norm")
"""Settings that a single run may change as it goes on."""


class Folding:
    """The folds of a cross-validation, settled before any work, and the settings of their runs."""

    def __init__(self, settings: Settings, *, source: str, by: str, stratify: str):
        """``source``: how many folds to make, or where they are, as in `folds_from`; empty: ``Fold``, or what
        the run in ``run_dir`` has. `ViperError` for all that cannot be folded or is not as the run began."""
        train = settings.train
        if train.resume:
            check_goes_on(Path(train.run_dir), "cv")
        for given, why in (
            (train.fold and f"--fold {train.fold}", "all folds are trained; viper train trains one"),
            (train.val_shards and "--val-shards", "folds are validated on one another"),
            (
                train.patience and not train.inner_val and f"--patience {train.patience}",
                "held-out clips must not decide when training ends; add --inner-val 0.1",
            ),
        ):
            if given:
                raise ViperError(f"{given}: {why}")
        check_joinable(settings)
        self.settings, self.folder = settings, Path(train.run_dir)
        limits = limits_of(settings)
        self.shards = open_corpora(train.train_shards, "--train-shards", limits)
        self.folds = self._settled(source, by, stratify)
        self._refuse_other_learning()
        self.names = tuple(name for name in self.folds.names if name in set(self.folds.of(self.shards)))
        folders = [self.folder_of(name).name for name in self.names]
        if twice := next((name for name in folders if folders.count(name) > 1), None):
            raise ViperError(f"--folds: two folds would be written to {twice}; rename one")
        self.by_seed: dict[int, Folding] = self._by_seed()
        """With ``--seeds`` the same folds for each seed, in a folder of its own, as `viper cv --seed` makes
        them with this one's ``folds.json``; else this one alone."""

    @property
    def path(self) -> Path:
        return self.folder / FOLDS

    @property
    def checkpoint(self) -> str:
        """The checkpoint that predicts held-out clips. The best on those very clips would flatter."""
        return "best" if self.settings.train.inner_val else "last"

    def folder_of(self, fold: str) -> Path:
        return self.folder / f"fold-{re.sub(r'[^0-9A-Za-z._-]+', '_', fold)}"

    def run_of(self, fold: str) -> Settings:
        """Settings with which `viper train` makes the same run."""
        train = replace(
            self.settings.train,
            fold=fold,
            folds=str(self.path),
            run_dir=str(self.folder_of(fold)),
            val_shards=None,
        )
        return replace(self.settings, train=train, model=deepcopy(self.settings.model))

    @property
    def num_trainings(self) -> int:
        train = self.settings.train
        return len(self.names) * max(train.seeds, train.ensemble)

    def overview(self) -> tuple[str, Table]:
        """How the folds came about, and the clips and subjects of each, for the terminal."""
        rows = []
        for fold in self.names:
            entries = entries_of(self.folds.of_fold(self.shards, fold))
            subjects = {entry.subject for entry in entries if entry.subject}
            rows.append((fold, len(entries), len(subjects) or "–"))
        made = self.folds.made
        how = f"from {made['from']}" if "from" in made else f"by {self.folds.by}"
        how += f", stratified by {made['stratified_by']}" if made.get("stratified_by") else ""
        return f"{count_of(len(rows), 'fold')} {how}", table("", ("fold", "clips", "subjects"), rows)

    @property
    def is_begun(self) -> bool:
        """Whether what stands in the folder is more than folds of which nothing could be trained."""
        return (self.folder / "config.yaml").exists() and self.path.exists()

    def write_folds(self) -> None:
        """What the settings of runs refer to."""
        settle_folder(self.folder, "--run-dir")
        if not self.is_begun:
            self.folds.write(self.path)

    def write_settings(self) -> None:
        """What `--resume --run-dir` goes on from, once all that can be checked beforehand is."""
        write_settings(self.folder, with_absolute_paths(self.settings))

    def _refuse_other_learning(self) -> None:
        """Folds that an earlier start has trained stay as they are; the others have to learn alike."""
        saved = SavedRun.of(self.folder) if self.settings.train.resume else None
        changed = differences(saved.settings, self.settings.to_dict()) if saved else ()
        for name, before, now in changed:
            if name in LEARNING:
                raise ViperError(
                    f"{self.folder}: resumes only as it began, so that all folds learn alike: "
                    f"--{name.replace('_', '-')} is {now}, it was {before}; name another --run-dir"
                )

    def _refuse_other_folding(self, found: Folds, by: str, stratify: str) -> None:
        made = found.made.get("stratified_by", "")
        for option, given, before in (("--by", by, found.by), ("--stratify", stratify, made)):
            if given and given.lower() != before.lower():
                raise ViperError(
                    f"{self.folder}: resumes only as it began; {option} {given} makes other folds than "
                    f"{before or 'none'}; name another --run-dir"
                )

    def _folds_without_labels(self, source: str) -> tuple[str, ...]:
        """Folds packed with clips none of which has a label."""
        corpora = parse_corpora(self.settings.train.train_shards, "--train-shards")
        # Of several corpora, some may have no such folds.
        if is_file_of_folds(source) or len(corpora) > 1 or corpora[0].name or not self.shards.problems:
            return ()
        every = ShardSet(corpora[0].patterns, limits=limits_of(self.settings))
        names = known_groups(every, source, "--folds")
        labelled = {name for name, is_so in zip(names, every.is_labelled(), strict=True) if is_so}
        return tuple(sorted({name for name in names if name} - labelled))

    def _by_seed(self) -> dict[int, Folding]:
        train = self.settings.train
        if train.seeds == 1:
            return {train.seed: self}
        found = {}
        for seed in range(train.seed, train.seed + train.seeds):
            own = copy(self)
            own.folder = self.folder / f"seed-{seed}"
            own_train = replace(train, seed=seed, seeds=1, run_dir=str(own.folder))
            own.settings = replace(self.settings, train=own_train, model=deepcopy(self.settings.model))
            own.check_begun()
            found[seed] = own
        return found

    def check_begun(self) -> None:
        """`ViperError` where something stands that is not to go on, or not with these folds."""
        if not self.is_begun:
            return
        if not self.settings.train.resume:
            raise ViperError(
                f"{self.folder}: already holds a run; go on with --resume or name another --run-dir"
            )
        if dict(read_folds(self.path).of_clips) != dict(self.folds.of_clips):
            raise ViperError(f"{self.folder}: resumes only as it began; you asked for other folds")

    def _settled(self, source: str, by: str, stratify: str) -> Folds:
        resumes = self.settings.train.resume and self.is_begun
        if self.is_begun and not resumes:
            raise ViperError(
                f"{self.folder}: already holds a run; go on with --resume or name another --run-dir"
            )
        if stratify and not source.isdecimal() and (source or not resumes):
            of_what = source or "Fold"
            raise ViperError(
                f"--stratify {stratify}: without effect on folds of {of_what}; it goes with --folds K"
            )
        if source.isdecimal():
            seed = self.settings.train.seed
            found = make_folds(self.shards, int(source), by=by or "Subject", stratify=stratify, seed=seed)
        elif resumes and not source:
            found = folds_from(self.shards, str(self.path))
            self._refuse_other_folding(found, by, stratify)
            return found
        else:
            source = source or "Fold"
            lacking = self._folds_without_labels(source)
            found = folds_from(self.shards, source, by, lacking=lacking)
        if resumes and dict(read_folds(self.path).of_clips) != dict(found.of_clips):
            raise ViperError(f"{self.folder}: resumes only as it began; --folds {source} makes other folds")
        return found


def cross_validate(folding: Folding, command: Sequence[str]) -> tuple[dict[int, CrossValidation], int, bool]:
    """Train every fold, with every seed, and predict what it held out.

    Returns what came of it by seed, nothing where a signal asked to stop or this is not the first process; the
    exit code; and whether this is the first process. A seed with a fold that diverged is not among them: what
    that fold held out was predicted by nobody. ``command``: the words with which all of it goes on.
    """
    found: dict[int, CrossValidation] = {}
    failed: dict[str, str] = {}
    with ManyTrainings(folding.settings, command=command, count=folding.num_trainings) as many:
        is_main = many.processes.is_main
        if is_main:
            many.told.problems((*folding.shards.problems, *notes_on(folding.shards, folding.folds)))
            console.print(*folding.overview(), sep="\n")
            folding.write_folds()
        for seed, own in folding.by_seed.items():
            num_failed = len(failed)

            def begun(own: Folding = own) -> None:
                if is_main:
                    folding.write_settings()
                    own.write_settings()

            prefix = f"seed {seed}, " if len(folding.by_seed) > 1 else ""
            by_fold = _of_seed(own, many, prefix, failed, begun)
            if by_fold is None:
                return {}, many.code, is_main
            if is_main and len(failed) == num_failed:
                found[seed] = _joined(own, by_fold)
        if failed:
            many.tell(_told(failed, folding))
    return found, ExitCode.SOME_FAILED if failed else ExitCode.OK, is_main


def _told(failed: Mapping[str, str], folding: Folding) -> str:
    """What failed and what to do; `ViperError` where all did."""
    which = "; ".join(f"{name}: {why}" for name, why in failed.items())
    anew = "a lower --lr holds for all folds, so it is for another --run-dir"
    if len(failed) == folding.num_trainings:
        raise ViperError(f"{folding.folder}: all {len(failed)} trainings failed ({which}); {anew}")
    again = f"viper cv --resume --run-dir {shlex.quote(str(folding.folder))}"
    return (
        f"{len(failed)} of {folding.num_trainings} trainings failed ({which}), so that clips held out "
        "there have no prediction, and the folds are not scored together; the other folds are kept: "
        f"{again} trains these alone; {anew}"
    )


def _of_seed(
    folding: Folding, many: ManyTrainings, prefix: str, failed: dict[str, str], begun: Callable[[], None]
) -> dict[str, Predictions] | None:
    """By fold, in the first process; None where a signal asked to stop. What diverges goes into ``failed``.

    ``begun``: as of `ManyTrainings.train`.
    """
    if many.processes.is_main:
        folding.write_folds()
    many.processes.wait("the folds to be written")
    found: dict[str, Predictions] = {}
    for number, fold in enumerate(folding.names, 1):
        if many.processes.is_main:
            console.print(f"{prefix}fold {fold} ({number} of {len(folding.names)})", style="bold", **AS_IT_IS)
        outcomes, runs = [], seeded(folding.run_of(fold))
        for run in runs:
            try:
                outcome = many.train(run, begun)
            except DivergedError as error:
                name = f"{prefix}fold {fold}" + (f", member of seed {run.train.seed}" if len(runs) > 1 else "")
                many.tell(f"{name} failed: {error}")
                failed[name] = error.why
                continue
            if outcome is None:
                return None
            outcomes.append(outcome)
        if len(outcomes) < len(runs):
            continue
        held_out = _held_out(folding, fold, outcomes, many)
        if held_out is not None:
            found[fold] = held_out
    return found


def _joined(folding: Folding, by_fold: Mapping[str, Predictions]) -> CrossValidation:
    keys = [folding.shards.entry(i).key for i in range(len(folding.shards))]
    pooled = Predictions.joined([*by_fold.values()], [key for key in keys if key in folding.folds.of_clips])
    return CrossValidation(folding.folds, by_fold, pooled, folding.checkpoint)


def _held_out(
    folding: Folding, fold: str, outcomes: Sequence[Outcome], many: ManyTrainings
) -> Predictions | None:
    """Predictions of a fold's clips by the run that held it out, or the runs that become one model; what an
    earlier start has predicted with the same weights stays.

    In further processes None. Always read from their file, so that a resumed run has the same numbers.
    """
    shards = folding.folds.of_fold(folding.shards, fold)
    rows, record = (folding.folder_of(fold) / f"{HELD_OUT}{ending}" for ending in (".csv", ".json"))
    heads = [checkpoint.content_of(model)["model.safetensors"] for model in _models(folding, outcomes)]
    now = {"checkpoint": folding.checkpoint, "models_sha256": heads, "clips": len(shards)}
    is_known = record.exists() and rows.exists() and _read_json(record) == now
    if not many.processes.table(float(is_known), purpose="looking for predictions")[0, 0]:
        made = _predicted(folding, fold, outcomes, many, shards)
        if many.processes.is_main:
            record.unlink(missing_ok=True)
            made.write_csv(rows, exact=True)
            write_text(record, plain_json.dumps(now) + "\n")
    if not many.processes.is_main:
        return None
    return Predictions.read_csv(rows, shards.known_labels)


def _predicted(
    folding: Folding, fold: str, outcomes: Sequence[Outcome], many: ManyTrainings, shards: ShardSet
) -> Predictions:
    if len(outcomes) == 1:
        return many.predict(outcomes[0], shards, folding.checkpoint)
    said = [many.predict(outcome, shards, folding.checkpoint) for outcome in outcomes]
    target = folding.folder_of(fold) / "checkpoints" / "best"
    join(_models(folding, outcomes), said, target, many.processes)
    return many.predict(outcomes[0], shards, model=target)


def _models(folding: Folding, outcomes: Sequence[Outcome]) -> list[Path]:
    """The checkpoints that predict what their fold held out: one, or the members of one model."""
    return [outcome.best.with_name(folding.checkpoint) for outcome in outcomes]


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
