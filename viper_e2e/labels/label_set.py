"""label_set.py: a label set: the corpus's column names, our names, the range of values; as JSON in files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from viper_e2e.labels.names import alone_of, collision, name_of
from viper_e2e.tasks import (
    OVERALL,
    UNNAMED,
    CombinedMeasure,
    Task,
    combined_from_json,
    combined_to_json,
    finite,
    parts,
    tasks_from_json,
    tasks_to_json,
)

STATISTICS = ("means", "centres", "widths")
"""Fields of a label set that are learned from training labels; the corpus states all others."""


@dataclass(frozen=True)
class LabelSet:
    """The targets of a corpus, in a fixed order."""

    columns: tuple[str, ...]
    """Column titles as the corpus writes them, for reading labels and writing submissions."""
    minimum: float = 0.0
    maximum: float = 1.0
    """Range of the values; inside [0, 1] the model ends in a sigmoid, otherwise it is linear."""
    means: tuple[float, ...] | None = None
    """Means of the training labels, once known: a submission has them for clips that cannot be read."""
    centres: tuple[float, ...] | None = None
    """Centres of the training labels, where the model's head begins. None: its numbers are the labels."""
    widths: tuple[float, ...] | None = None
    """How far the training labels reach, the head's and the loss's unit. 0: as without."""
    tasks: tuple[Task, ...] = ()
    """The tasks of the columns, in their order; empty: all columns are intensities."""
    combined: tuple[CombinedMeasure, ...] = ()
    """Measures of the corpus that combine several tasks."""

    def __post_init__(self) -> None:
        if complaint := collision(self.columns):
            raise ValueError(complaint)
        if self.tasks and sum(task.size for task in self.tasks) != len(self.columns):
            raise ValueError("the tasks do not match the columns")
        if len({one.name for one in self.combined}) < len(self.combined):
            raise ValueError("two combined measures have the same name")
        if self.combined and any(task.name == OVERALL for task in self.tasks):
            raise ValueError(f"a task cannot be called {OVERALL!r} beside combined measures; rename it")
        for one in self.combined:
            if lack := one.lacks(self.tasks):
                raise ValueError(lack)

    def to_json(self) -> dict[str, Any]:
        """The corpus's own statements, as plain data; `statistics_to_json` has the rest."""
        return {
            "columns": list(self.columns),
            "minimum": self.minimum,
            "maximum": self.maximum,
            "tasks": tasks_to_json(self.tasks),
            "combined": combined_to_json(self.combined),
        }

    def statistics_to_json(self) -> dict[str, list[float] | None]:
        """Statistics of the training labels, as plain data; None for each that is unknown."""
        rows = {name: getattr(self, name) for name in STATISTICS}
        return {name: row if row is None else list(row) for name, row in rows.items()}

    @classmethod
    def from_json(cls, found: object) -> LabelSet:
        """The inverse of both together, or of the first; `ValueError` for anything that they would not write.

        Files of earlier versions lack what those did not know: statistics, tasks, combined measures.
        """
        if not isinstance(found, Mapping):
            raise ValueError("labels must be an object")
        columns = found.get("columns")
        if not isinstance(columns, list) or not all(isinstance(column, str) for column in columns):
            raise ValueError("columns of labels must be a list of names")
        low, high = (finite(found.get(name), f"the {name} of labels") for name in ("minimum", "maximum"))
        statistics = {name: _row(found.get(name), name, len(columns)) for name in STATISTICS}
        tasks = tasks_from_json(found.get("tasks", []), len(columns))
        combined = combined_from_json(found.get("combined", {}))
        return cls(tuple(columns), low, high, **statistics, tasks=tasks, combined=combined)

    @property
    def parts(self) -> tuple[tuple[Task, slice], ...]:
        """Each task with its columns."""
        whole = Task(UNNAMED, UNNAMED, len(self), self.minimum, self.maximum)
        return tuple(parts(self.tasks or (whole,)))

    @property
    def names_tasks(self) -> bool:
        """Whether the corpus says what its columns belong to."""
        return bool(self.tasks)

    @property
    def thresholds(self) -> dict[str, tuple[float, float]]:
        """Thresholds of blends that were fitted, by task."""
        return {task.name: task.thresholds for task in self.tasks if task.thresholds is not None}

    def with_thresholds(self, fitted: Mapping[str, tuple[float, float]]) -> LabelSet:
        """The same labels with these ``thresholds`` and no others."""
        tasks = (replace(task, thresholds=fitted.get(task.name)) for task in self.tasks)
        return replace(self, tasks=tuple(tasks))

    @property
    def names(self) -> tuple[str, ...]:
        """Our spelling: lower case, words joined by underscores."""
        return tuple(name_of(column) for column in self.columns)

    def measured_as(self, others: LabelSet) -> LabelSet:
        """The same labels with the measures of another set beside their own, as far as its tasks are here."""
        theirs = {task.name: task for task, _ in others.parts}
        made = []
        for task, columns in self.parts:
            other = theirs.get(task.name)
            if other is not None and other.kind == task.kind and other.measures:
                measures = tuple(dict.fromkeys((*task.measures, *other.measures)))
                names = self.own_titles(task, columns)
                task = replace(task, measures=measures, alone=alone_of(names))
            made.append(task)
        tasks = tuple(made) if self.tasks else ()
        known = {one.name for one in self.combined}
        more = tuple(one for one in others.combined if one.name not in known and not one.lacks(tasks))
        return replace(self, tasks=tasks, combined=(*self.combined, *more))

    def own_titles(self, task: Task, columns: slice) -> tuple[str, ...]:
        """Titles of a task's columns without the task's name."""
        prefix = f"{task.name} " if self.names_tasks else ""
        return tuple(column.removeprefix(prefix) for column in self.columns[columns])

    def classes_of(self, values: Mapping[str, float | None]) -> dict[str, str | None]:
        """The most probable class of each task of classes; ``None`` where there are no numbers."""
        found: dict[str, str | None] = {}
        for task, columns in self.parts:
            if task.kind == "class":
                probabilities = [values.get(name) for name in self.names[columns]]
                known = [p for p in probabilities if p is not None and p == p]
                titles = self.own_titles(task, columns)
                whole = len(known) == len(probabilities)
                found[name_of(task.name)] = titles[known.index(max(known))] if whole else None
        return found

    @property
    def in_unit_interval(self) -> bool:
        return self.minimum >= 0.0 and self.maximum <= 1.0

    def __len__(self) -> int:
        return len(self.columns)


def _row(found: object, name: str, num_columns: int) -> tuple[float, ...] | None:
    if found is None:
        return None
    if not isinstance(found, list) or len(found) != num_columns:
        raise ValueError(f"{name} of labels must be one number for each column")
    return tuple(finite(value, f"one of the {name} of labels") for value in found)


HUME_REACTION = LabelSet(("Adoration", "Amusement", "Anxiety", "Disgust", "Empathic-Pain", "Fear", "Surprise"))
"""The seven self-reported reaction intensities of MuSe 2022 (Christ et al. 2022), in the challenge's order."""
