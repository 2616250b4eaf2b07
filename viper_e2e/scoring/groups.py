"""groups.py: groups of clips scored separately: by subject, split, shard or a packed column."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from viper_e2e.errors import ViperError
from viper_e2e.loading import ClipSource
from viper_e2e.model import Predictions
from viper_e2e.scoring.score_records import task_record
from viper_e2e.scoring.task_scores import TaskScores, main_measure, task_scores

UNKNOWN = "(unknown)"
"""Group of clips of which it is not known."""
MIN_IN_GAP = 3
"""Clips of a group that counts for the largest gap between groups."""
MAX_NUMBERS, NUM_RANGES = 8, 4
"""A name of more different numbers than these, such as an age, is grouped in so many ranges."""
IDS = frozenset(
    ("subject", "split", "shard", "fold", "session", "speaker", "actor", "participant", "person", "proband")
) | {"dialogue", "episode", "video", "film", "scene", "rater", "annotator", "id", "nr", "no", "code"}
"""Whatever they look like, what is called so is a name."""
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:[.,][0-9]+)?")
"""`01` and `1_2` are names."""


@dataclass(frozen=True)
class GroupScores:
    """Scores of every group by one name, such as ``Gender``."""

    name: str
    groups: Mapping[str, Mapping[str, TaskScores]]
    """Group → task → scores, in the order of the alphabet."""

    def gap(self, task: str) -> float | None:
        """Largest difference between groups in the task's main measure; None for fewer than two with one.

        Of known groups of at least ``MIN_IN_GAP`` clips: of a single clip a measure is anything.
        """
        found = [
            scores[task].values[main_measure(scores[task].task)]
            for group, scores in self.groups.items()
            if group != UNKNOWN and scores[task].num_clips >= MIN_IN_GAP
        ]
        known = [value for value in found if np.isfinite(value)]
        return max(known) - min(known) if len(known) > 1 else None

    def to_json(self) -> dict[str, Any]:
        tasks = next(iter(self.groups.values()), {})
        return {
            "groups": {
                group: {task: task_record(one) for task, one in scores.items()}
                for group, scores in self.groups.items()
            },
            "largest_gap": {task: self.gap(task) for task in tasks},
        }


def groups_of(source: ClipSource, names: Sequence[str]) -> dict[str, list[str]]:
    """Name → each clip's group, in the order of the source.

    `ViperError` for a name that no clip has, before anything is scored.
    """
    return {name: in_ranges(name, known_groups(source, name)) for name in dict.fromkeys(names)}


def in_ranges(name: str, groups: Sequence[str | None]) -> list[str]:
    """Each clip's group; of many different numbers (``Age``) a range that has a fourth of the clips."""
    values = {group: number_of(group) for group in groups if group}
    numbers = [value for value in values.values() if value is not None]
    if _is_id(name) or len(numbers) < len(values) or len(set(numbers)) <= MAX_NUMBERS:
        return [group or UNKNOWN for group in groups]
    of_clips = np.array([values[group] for group in groups if group], dtype=np.float64)
    places = np.searchsorted(np.quantile(of_clips, np.linspace(0, 1, NUM_RANGES + 1)[1:-1]), of_clips)
    spans = {place: of_clips[places == place] for place in set(places)}
    words = {place: f"{found.min():g} to {found.max():g}" for place, found in spans.items()}
    ranges = iter(places)
    return [words[next(ranges)] if group else UNKNOWN for group in groups]


def number_of(group: str) -> float | None:
    return float(group.replace(",", ".")) if _NUMBER.fullmatch(group) else None


def _is_id(name: str) -> bool:
    """``Actor``, ``Dialogue_ID``, ``clipNr``."""
    words = re.split(r"[\W_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
    return not IDS.isdisjoint(words)


def known_groups(source: ClipSource, name: str, option: str = "--by") -> list[str | None]:
    """Each clip's group by one name, in the order of the source; None or empty where it has none.

    ``option``: that named it, for the `ViperError` where no clip has it.
    """
    entries = [source.entry(i) for i in range(len(source))]
    kept = dict.fromkeys(key for entry in entries for key in entry.meta or {})
    if name.lower() == "subject":
        found = [entry.subject for entry in entries]
    elif name.lower() in ("split", "shard"):
        places = [source.shard_of(i) for i in range(len(source))]
        found = [place.split if name.lower() == "split" else place.path_or_url for place in places]
    else:
        # `--by gender` means Gender, where there is no other.
        exact = name if name in kept else next((key for key in kept if key.lower() == name.lower()), name)
        found = [(entry.meta or {}).get(exact) for entry in entries]
    if not any(found):
        known = ["subject"] if any(entry.subject for entry in entries) else []
        there = ", ".join([*known, "split", "shard", *kept])
        how = "--subject-column" if name.lower() == "subject" else "--meta"
        raise ViperError(
            f"{option} {name}: no clip has it; there are {there} (viper pack {how} TITLE keeps it)"
        )
    return found


def score_groups(predictions: Predictions, groups: Mapping[str, Sequence[str]]) -> list[GroupScores]:
    """``groups``: as of `groups_of`, in the order of the predictions."""
    made = []
    for name, of_clips in groups.items():
        # Clips that could not be found whole come after all others, in no group.
        column = np.array([*of_clips, *[""] * (len(predictions) - len(of_clips))], dtype=object)
        found = {
            group: task_scores(predictions.only(column == group))
            for group in sorted(set(of_clips), key=_natural)
        }
        made.append(GroupScores(name, found))
    return made


def _natural(group: str) -> list[tuple[int, int, str]]:
    """``9`` before ``10``, and numbers before words."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.findall(r"\d+|\D+", group)]
