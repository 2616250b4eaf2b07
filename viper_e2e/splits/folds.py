"""folds.py: assignment of clips to folds, so that no group (subject, speaker, session) is in two."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from viper_e2e.errors import ViperError
from viper_e2e.runtime import count_of, plain_json, spelt_apart, taken_apart, write_text
from viper_e2e.scoring import known_groups
from viper_e2e.shards import ShardSet
from viper_e2e.splits.stratifying import dealt_groups, strata_of

SCHEMA = "viper_e2e.folds/1"
MAX_NAMES = 10
"""So many clips or groups are named in a message; more are counted."""
BY_CLIP = "clip"
"""Each clip is a group of its own."""


@dataclass(frozen=True)
class Folds:
    """The fold of each clip, by the clip's key."""

    of_clips: Mapping[str, str]
    by: str = "Subject"
    """The column of groups: clips of one group are in one fold."""
    made: Mapping[str, Any] = field(default_factory=dict)
    """How they came about."""
    notes: tuple[str, ...] = ()
    """Notes for people."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the folds: numbers in their order, then other words in theirs."""
        return tuple(sorted(set(self.of_clips.values()), key=_as_people_count))

    def write(self, path: Path) -> None:
        """``folds.json``, deterministic to the byte."""
        data = {"schema": SCHEMA, "by": self.by, "made": dict(self.made), "folds": dict(self.of_clips)}
        write_text(path, plain_json.dumps(data, indent=1) + "\n")

    def held_out(self, shards: ShardSet, fold: str) -> tuple[ShardSet, ShardSet]:
        """Clips of all other folds, and those of this one; clips of no fold are in neither.

        `ViperError` where either would be empty.
        """
        held_out = self.of_fold(shards, fold)
        train = shards.only([name not in (None, fold) for name in self.of(shards)])
        if not len(train):
            raise ViperError(f"--fold {fold}: all clips are in this fold, none is left to train on")
        return train, held_out

    def of_fold(self, shards: ShardSet, fold: str) -> ShardSet:
        """Clips of one fold; `ViperError` where there is none."""
        folds = self.of(shards)
        if fold not in folds:
            there = ", ".join(name for name in self.names if name in folds) or "none"
            raise ViperError(f"--fold {fold}: no clip is in this fold; there are {there}")
        return shards.only([name == fold for name in folds])

    def of(self, shards: ShardSet) -> list[str | None]:
        """The fold of each clip of shards, in their order."""
        return [self.of_clips.get(entry.key) for entry in shards.entries()]

    def dropping(self, shards: ShardSet) -> tuple[str, ...]:
        """A line about the clips that are in no fold, if there are any."""
        without = [e.key for e in shards.entries() if e.key not in self.of_clips]
        if not without:
            return ()
        return (f"{len(without)} of {len(shards)} clips are in no fold and are left out: {_some(without)}",)


def read_folds(path: Path) -> Folds:
    """Read a file of `Folds.write`, or a plain object, clip → fold, that a person made."""
    advice = "write an object, clip → fold"
    data = plain_json.read_object(path, max_bytes=plain_json.MAX_BYTES_BY_CLIP, advice=advice)
    if "schema" not in data:
        data = {"schema": SCHEMA, "folds": data}
    if data["schema"] != SCHEMA:
        raise ViperError(f"{path}: schema {data['schema']!r}, this version reads {SCHEMA!r}")
    folds = data.get("folds")
    if not isinstance(folds, dict) or not folds or not all(isinstance(f, str | int) for f in folds.values()):
        raise ViperError(f"{path}: holds no folds; each clip's is a word or a number")
    made = data.get("made", {})
    by = data.get("by", "Subject")
    if not isinstance(made, dict) or not isinstance(by, str):
        raise ViperError(f"{path}: damaged; make it again with `viper cv`")
    return Folds({key: str(fold) for key, fold in folds.items()}, by, made)


def is_file_of_folds(source: str) -> bool:
    """Whether folds are read from a file, and not from what was packed with each clip."""
    return source.endswith(".json")


def folds_from(shards: ShardSet, source: str, by: str = "", *, lacking: Sequence[str] = ()) -> Folds:
    """The folds that a file has, or what was packed with each clip, such as ``Fold`` or ``Session``.

    ``by``: what may not be in two folds; empty: ``Subject``, or what the file was made by. Clips without a fold
    are left out, which `Folds.notes` tell. ``lacking``: folds of clips that are not among these, for want of a
    label. `ViperError` where a group is in two folds, or fewer than two have clips.
    """
    if is_file_of_folds(source):
        folds = read_folds(Path(source))
        found = Folds(folds.of_clips, by or folds.by, folds.made, folds.dropping(shards))
    else:
        given = known_groups(shards, source, "--folds")
        entries = shards.entries()
        of_clips = {e.key: fold for e, fold in zip(entries, given, strict=True) if fold}
        found = Folds(of_clips, by or "Subject", {"from": source})
        found = replace(found, notes=found.dropping(shards))
    here = {found.of_clips[e.key] for e in shards.entries() if e.key in found.of_clips}
    if is_file_of_folds(source):
        lacking = sorted(set(found.of_clips.values()) - here, key=_as_people_count)
    without = f"no clip with a label is in fold {_some(lacking)}" if lacking else ""
    if len(here) < 2:
        there = ", ".join(here) or "none"
        told = f"; {without}" if without else ""
        raise ViperError(
            f"--folds {source}: at least two folds with labelled clips are needed, there are: {there}{told}"
        )
    if without:
        found = replace(found, notes=(*found.notes, f"{without}: nothing is held out there"))
    check_apart(shards, found)
    return found


def make_folds(shards: ShardSet, num_folds: int, *, by: str, stratify: str = "", seed: int = 0) -> Folds:
    """``num_folds`` folds, named 1, 2, …: groups stay whole, and all folds are alike in size and labels.

    ``by``: what tells the groups, such as ``Subject`` or ``Session``; ``clip``: each clip on its own.
    ``stratify``: a task, or ``none``; empty: the first class, else what there is. The same clips, in whatever
    order, and the same seed give the same folds. Clips without a group are left out, as `Folds.notes` tell.
    """
    if num_folds < 2:
        raise ViperError(f"--folds {num_folds}: at least 2 are needed")
    entries = shards.entries()
    keys = [entry.key for entry in entries]
    if by.lower() == "subject" and not any(entry.subject for entry in entries):
        raise ViperError(
            f"--folds {num_folds}: no clip has a subject to keep in one fold; pack again with --subject-column "
            f"TITLE, or add --by {BY_CLIP} (people may then be in several folds)"
        )
    groups = keys if by == BY_CLIP else known_groups(shards, by, "--by")
    rows = sorted((row for row, group in enumerate(groups) if group), key=keys.__getitem__)
    named = [str(groups[row]) for row in rows]
    if num_folds > len(set(named)):
        of_what = ("clip", "clips") if by == BY_CLIP else (f"value of {by}", f"different values of {by}")
        count = count_of(len(set(named)), *of_what)
        advice = "" if by == BY_CLIP else f"; --by {BY_CLIP} takes each clip on its own"
        raise ViperError(f"--folds {num_folds}: only {count} to make folds of{advice}")
    strata, how = strata_of(shards, rows, stratify)
    dealt = dealt_groups(named, strata, num_folds, seed)
    of_clips = {keys[row]: str(dealt[group] + 1) for row, group in zip(rows, named, strict=True)}
    made = {"by": by, "stratified_by": how, "num_folds": num_folds, "seed": seed}
    without = [key for key, group in zip(keys, groups, strict=True) if not group]
    notes: tuple[str, ...] = ()
    if without:
        told = f"{len(without)} of {len(keys)} clips have no {by} and are left out of all folds"
        notes = (f"{told}: {_some(without)}; --by {BY_CLIP} takes each clip on its own",)
    return Folds(of_clips, by, made, notes)


def inner_split(shards: ShardSet, share: float, by: str) -> tuple[ShardSet, ShardSet, str]:
    """Clips to train on, about ``share`` of the clips to validate on, groups whole, and a note on both.

    ``by``: what tells the groups; where no clip has it, each clip is on its own. The clips are the same for all
    seeds of a run, so that these are measured alike, and none learns what another is measured by.
    """
    entries = shards.entries()
    num_unnamed = sum(not entry.subject for entry in entries)
    if by.lower() == "subject" and num_unnamed == len(entries):
        by = BY_CLIP
    groups = [e.key for e in entries] if by == BY_CLIP else known_groups(shards, by, "--inner-val")
    num_groups = len({group for group in groups if group})
    num_folds = min(round(1 / share), num_groups)
    if num_folds < 2:
        raise ViperError(f"--inner-val {share:g}: all clips have the same {by}, so none can be held out")
    folds = make_folds(shards, num_folds, by=by)
    of_clips = folds.of(shards)
    nearest = min(folds.names, key=lambda fold: abs(of_clips.count(fold) - share * len(shards)))
    inner = shards.only([fold == nearest for fold in of_clips])
    train = shards.only([fold != nearest for fold in of_clips])
    two = replace(folds, of_clips={key: str(fold == nearest) for key, fold in folds.of_clips.items()})
    of_whom = ", clip by clip" if by == BY_CLIP else f", each {by} in one of the two"
    if num_unnamed:
        of_whom += (
            f"; {num_unnamed} of {len(entries)} clips have no subject, so people may be in both; pack "
            "with --subject-column TITLE"
        )
    spelt = "".join(f"; {line}" for line in _spelt_alike_in_several(shards, two))
    told = f"validated on {len(inner)} of {len(shards)} training clips (--inner-val){of_whom}{spelt}"
    return train, inner, told


def check_apart(shards: ShardSet, folds: Folds) -> None:
    """`ViperError` that names the groups that are in more than one fold."""
    shared = list(_groups_in_several(shards, folds))
    if shared:
        raise ViperError(
            f"{folds.by} in more than one fold, so a model would be tested on what it was trained on: "
            f"{_some(shared)}"
        )


def _groups_in_several(shards: ShardSet, folds: Folds) -> Iterator[str]:
    for group, where in sorted(_folds_of_groups(shards, folds).items()):
        if len(where) > 1:
            yield f"{group} ({', '.join(sorted(where, key=_as_people_count))})"


def _folds_of_groups(shards: ShardSet, folds: Folds) -> dict[str, set[str]]:
    """Folds of each group; clips on their own, or without subjects, are in none."""
    entries = shards.entries()
    unknown = folds.by.lower() == "subject" and not any(entry.subject for entry in entries)
    found: dict[str, set[str]] = {}
    if folds.by == BY_CLIP or unknown:  # which `notes_on` tells
        return found
    for entry, group in zip(entries, known_groups(shards, folds.by, "--by"), strict=True):
        if group and entry.key in folds.of_clips:
            found.setdefault(group, set()).add(folds.of_clips[entry.key])
    return found


def notes_on(shards: ShardSet, folds: Folds) -> Iterator[str]:
    """Warnings about folds, a line each."""
    yield from folds.notes
    yield from _alone_in_a_fold(shards, folds)
    yield from _spelt_alike_in_several(shards, folds)
    if not any(entry.subject for entry in shards.entries()):
        yield (
            "no clip has a subject, so it cannot be checked whether people are in several folds; pack with "
            "--subject-column TITLE"
        )
    if folds.by.lower() == "subject":
        return
    by_subject = replace(folds, by="Subject")
    yield from _spelt_alike_in_several(shards, by_subject)
    if shared := list(_groups_in_several(shards, by_subject)):
        yield (
            f"{count_of(len(shared), 'subject is', 'subjects are')} in more than one fold "
            f"(--by {folds.by}), so models are tested on "
            f"people they were trained on: {_some(shared)}"
        )


def _spelt_alike_in_several(shards: ShardSet, folds: Folds) -> Iterator[str]:
    """``S1`` in one fold and ``s1`` in another may be one person, whom a model is trained and tested on."""
    of_groups = _folds_of_groups(shards, folds)
    in_fold = [[group for group, where in of_groups.items() if fold in where] for fold in folds.names]
    if found := spelt_apart(*in_fold):
        yield f"{folds.by} in several folds, but for the spelling: {taken_apart(found)}"


def _alone_in_a_fold(shards: ShardSet, folds: Folds) -> Iterator[str]:
    """A line for each task, class or label that one fold alone has: who is tested on it has not learned it."""
    labels, of_clips = shards.known_labels, np.array(folds.of(shards), dtype=object)
    unknown = (math.nan,) * len(labels)
    table = np.array([entry.intensities or unknown for entry in shards.entries()], dtype=np.float64)
    for task, columns in labels.parts:
        values = table[:, columns]
        named = {task.name: ~np.isnan(values).any(1)}
        if task.kind in ("class", "labels"):
            named |= dict(zip(labels.columns[columns], (values > 0).T, strict=True))
        for name, has in named.items():
            where = set(of_clips[has]) - {None}
            if len(where) == 1:
                yield (
                    f"{name}: all clips that have it are in fold {where.pop()}, so that the model that is "
                    "tested on it has not learned it"
                )


def _as_people_count(name: str) -> tuple[bool, list[Any]]:
    """``fold 2`` before ``fold 10``."""
    parts = re.split(r"(\d+)", name)
    return (not name[:1].isdigit(), [int(part) if part.isdecimal() else part for part in parts])


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:MAX_NAMES]) + (f", … ({len(names)} in all)" if len(names) > MAX_NAMES else "")
