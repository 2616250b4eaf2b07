"""folding.py: the folds of a cross-validation, settled before any work, and the settings of their runs."""

from __future__ import annotations

import re
from copy import copy
from dataclasses import replace
from pathlib import Path

from rich.table import Table

from viper_e2e.config import Settings, option_of
from viper_e2e.errors import ViperError
from viper_e2e.experiments.ensembling import check_joinable
from viper_e2e.fusion import MIN_CLIPS
from viper_e2e.runtime import count_of, settle_folder, table
from viper_e2e.scoring import known_groups
from viper_e2e.shards import ShardSet, parse_corpora
from viper_e2e.splits import Folds, folds_from, inner_split, is_file_of_folds, make_folds, read_folds
from viper_e2e.training import (
    SavedRun,
    check_goes_on,
    check_same_layout,
    differences,
    known_rows,
    limits_of,
    open_corpora,
    with_absolute_paths,
    write_settings,
)

FOLDS = "folds.json"
LEARNING = ("lr", "backbone_lr", "weight_decay", "clip_norm")
"""Settings that a single run may change when it is resumed."""


class Folding:
    """The folds of a cross-validation, settled before any work, and the settings of their runs."""

    def __init__(self, settings: Settings, *, source: str, by: str, stratify: str):
        """``source``: how many folds to make, or where they are, as in `folds_from`; empty: ``Fold``, or what
        the run in ``run_dir`` has. `ViperError` for all that cannot be folded or is not as the run began."""
        train = settings.train
        if train.resume:
            check_goes_on(Path(train.run_dir), "cv")
            check_same_layout(Path(train.run_dir), train, "seeds")
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
        self._refuse_unlearnable()
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
        return replace(self.settings, train=train)

    @property
    def num_trainings(self) -> int:
        train = self.settings.train
        return len(self.names) * max(train.seeds, train.ensemble)

    def overview(self) -> tuple[str, Table]:
        """Origin of the folds, and the clips and subjects of each, for the terminal."""
        rows = []
        for fold in self.names:
            entries = self.folds.of_fold(self.shards, fold).entries()
            subjects = {entry.subject for entry in entries if entry.subject}
            rows.append((fold, len(entries), len(subjects) or "–"))
        made = self.folds.made
        how = f"from {made['from']}" if "from" in made else f"by {self.folds.by}"
        how += f", stratified by {made['stratified_by']}" if made.get("stratified_by") else ""
        return f"{count_of(len(rows), 'fold')} {how}", table("", ("fold", "clips", "subjects"), rows)

    @property
    def is_begun(self) -> bool:
        """Whether the folder has more than folds of which nothing could be trained."""
        return (self.folder / "config.yaml").exists() and self.path.exists()

    def write_folds(self) -> None:
        """Write the file of folds that the settings of runs refer to."""
        settle_folder(self.folder, "--run-dir")
        if not self.is_begun:
            self.folds.write(self.path)

    def write_settings(self) -> None:
        """Write the settings that `--resume --run-dir` continues from, once all else has been checked."""
        write_settings(self.folder, with_absolute_paths(self.settings))

    def _refuse_other_learning(self) -> None:
        """Folds that an earlier start has trained stay as they are; the others have to learn alike."""
        saved = SavedRun.of(self.folder) if self.settings.train.resume else None
        changed = differences(saved.settings, self.settings.to_dict()) if saved else ()
        for name, before, now in changed:
            if name in LEARNING:
                raise ViperError(
                    f"{self.folder}: can only resume with the settings it began with, so that all folds are "
                    f"trained alike: {option_of(name)} is {now}, it was {before}; change it back, or name "
                    "another --run-dir"
                )

    def _refuse_unlearnable(self) -> None:
        """Folds whose model would have too few clips to learn from: before any of them is trained."""
        train, of_ridge = self.settings.train, self.settings.model.fusion.kind == "ridge"
        for fold in self.names:
            own, _ = self.folds.held_out(self.shards, fold)
            if train.inner_val:
                own, *_ = inner_split(own, train.inner_val, self.folds.by)
            if of_ridge and len(own) < MIN_CLIPS:
                raise ViperError(
                    f"--folds: {count_of(len(own), 'clip')} to train on where fold {fold} is held out; "
                    f"--head ridge needs {MIN_CLIPS}"
                )
            rows = own.label_rows()
            for task, columns in own.known_labels.parts:
                if not len(known_rows(rows, columns)):
                    raise ViperError(
                        f"--folds: where fold {fold} is held out, no clip to train on has a label of the task "
                        f"{task.name!r}; make other folds (--by, --stratify), or pack without it"
                    )

    def _refuse_other_folding(self, found: Folds, by: str, stratify: str) -> None:
        made = found.made.get("stratified_by", "")
        for option, given, before in (("--by", by, found.by), ("--stratify", stratify, made)):
            if given and given.lower() != before.lower():
                raise ViperError(
                    f"{self.folder}: can only resume with the folds it began with; {option} {given} makes "
                    f"other folds than {before or 'none'}; name another --run-dir"
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
            own.settings = replace(self.settings, train=own_train)
            own.check_begun()
            found[seed] = own
        return found

    def check_begun(self) -> None:
        """`ViperError` if the folder has something that is not to be continued, or not with these folds."""
        if not self.is_begun:
            return
        if not self.settings.train.resume:
            raise ViperError(
                f"{self.folder}: already holds a run; continue it with --resume or name another --run-dir"
            )
        if dict(read_folds(self.path).of_clips) != dict(self.folds.of_clips):
            raise ViperError(
                f"{self.folder}: can only resume with the folds it began with; you asked for other folds"
            )

    def _settled(self, source: str, by: str, stratify: str) -> Folds:
        resumes = self.settings.train.resume and self.is_begun
        if self.is_begun and not resumes:
            raise ViperError(
                f"{self.folder}: already holds a run; continue it with --resume or name another --run-dir"
            )
        if stratify and not source.isdecimal() and (source or not resumes):
            of_what = source or "Fold"
            raise ViperError(
                f"--stratify {stratify}: has no effect on folds of {of_what}; it goes with --folds K"
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
            raise ViperError(
                f"{self.folder}: can only resume with the folds it began with; --folds {source} makes other "
                "folds"
            )
        return found
