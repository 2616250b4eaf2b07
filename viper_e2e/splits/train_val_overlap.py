"""train_val_overlap.py: reports clips and subjects of validation that are also in training."""

from __future__ import annotations

from collections.abc import Iterator

from viper_e2e.runtime import first_of, spelt_apart, taken_apart
from viper_e2e.shards import Corpus, ShardSet, shared_clips, shared_subjects, subjects_of, without_subject

MAX_NAMES = 10
"""So many clips are named in a message; more are counted."""


def notes_on_overlap(train: ShardSet, val: ShardSet) -> Iterator[str]:
    """Notes on what makes scores on validation clips better than on new ones."""
    clips = [key for where in shared_clips({"train": train.shards, "val": val.shards}) for key in where["val"]]
    for what, found, whole in (("clips", clips, len(val)), ("subjects", _subjects_of_both(train, val), None)):
        if found:
            count = f"{len(found)} of {whole}" if whole else str(len(found))
            some = first_of(found, MAX_NAMES)
            yield (
                f"--val-shards: {count} {what} are in --train-shards too, which makes their scores better than "
                f"those of new {what}: {some}"
            )
    yield from _spelt_otherwise(train, val)
    if lacking := without_subject({"training": train.shards, "validation": val.shards}):
        yield (
            f"--val-shards: {lacking} have no subject, so nobody can tell whether people are in both; pack "
            "with --subject-column TITLE"
        )


def _subjects_of_both(train: ShardSet, val: ShardSet) -> list[str]:
    found: dict[str, None] = {}
    for own, other in _of_the_same_people(train, val):
        found |= dict.fromkeys(shared_subjects({"train": own.shards, "val": other.shards}))
    return list(found)


def _spelt_otherwise(train: ShardSet, val: ShardSet) -> Iterator[str]:
    """A person may be one of training as ``S1`` and one of validation as ``s1``."""
    found = []
    for own, other in _of_the_same_people(train, val):
        found += spelt_apart(subjects_of(own.shards), subjects_of(other.shards))
    if found:
        yield f"--val-shards: subjects as in --train-shards but for their spelling: {taken_apart(found)}"


def _of_the_same_people(train: ShardSet, val: ShardSet) -> Iterator[tuple[Corpus, Corpus]]:
    """Corpora with the same name, or where one set has no named corpora."""
    for own in train.corpora:
        for other in val.corpora:
            if own.name == other.name or not (own.name and other.name):
                yield own, other
