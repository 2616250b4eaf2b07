"""groups.py: groups of clips scored apart: by subject, split or shard, or by what was packed with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from viper_e2e.clip import ClipSource
from viper_e2e.errors import ViperError
from viper_e2e.model import Predictions
from viper_e2e.scoring.task_scores import TaskScores, main_measure, task_record, task_scores

UNKNOWN = "(unknown)"
"""Group of clips of which it is not known."""


@dataclass(frozen=True)
class GroupScores:
    """Of every group by one name, such as ``Gender``."""

    name: str
    groups: Mapping[str, Mapping[str, TaskScores]]
    """Group → task → scores, in the order of the alphabet."""

    def gap(self, task: str) -> float | None:
        """Largest difference between groups in the task's main measure; None for fewer than two with one."""
        found = [scores[task].values[main_measure(scores[task].task)] for scores in self.groups.values()]
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
    return {name: [g or UNKNOWN for g in known_groups(source, name)] for name in dict.fromkeys(names)}


def known_groups(source: ClipSource, name: str, option: str = "--by") -> list[str | None]:
    """Each clip's group by one name, in the order of the source; None or empty where it has none.

    ``option``: that named it, for the `ViperError` where no clip has it.
    """
    entries = [source.entry(i) for i in range(len(source))]
    kept = dict.fromkeys(key for entry in entries for key in getattr(entry, "meta", None) or {})
    if name.lower() == "subject":
        found = [entry.subject for entry in entries]
    elif name.lower() in ("split", "shard"):
        places = [source.shard_of(i) for i in range(len(source))]
        # Of a foreign shard the split is told by its name alone, and may be unknown.
        attribute = "split" if name.lower() == "split" else "path_or_url"
        found = [getattr(place, attribute, None) for place in places]
    else:
        # `--by gender` means Gender, where there is no other.
        exact = name if name in kept else next((key for key in kept if key.lower() == name.lower()), name)
        found = [(getattr(entry, "meta", None) or {}).get(exact) for entry in entries]
    if not any(found):
        there = ", ".join(["subject", "split", "shard", *kept])
        raise ViperError(f"{option} {name}: no clip has it; there are {there} (pack keeps columns with --meta)")
    return found


def score_groups(predictions: Predictions, groups: Mapping[str, Sequence[str]]) -> list[GroupScores]:
    """``groups``: as of `groups_of`, in the order of the predictions."""
    made = []
    for name, of_clips in groups.items():
        # Clips that could not be found whole stand behind all others, in no group.
        column = np.array([*of_clips, *[""] * (len(predictions) - len(of_clips))], dtype=object)
        found = {
            group: task_scores(predictions.only(column == group)) for group in sorted(set(of_clips), key=str)
        }
        made.append(GroupScores(name, found))
    return made
