"""labels.py: label sets: the corpus's column names, our names, the range of values; as JSON in files."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

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
        """What the corpus states, as plain data; `statistics_to_json` has the rest."""
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


def name_of(column: str) -> str:
    """``"Empathic-Pain"`` → ``"empathic_pain"``; letters of any script stay: ``"Überraschung"``, ``"喜び"``."""
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", column).casefold())
    # -1 is another class than 1. A dash between words, or after a bracket, is no sign.
    text = re.sub(r"(?<!\S)[-−–](?=[.,]?\d)", "minus ", text)
    # Marks belong to letters: without them most words of India's languages would fall apart.
    kept = "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in text)
    # A title without a letter (an emoji, a plus) gets its name from the numbers of its characters.
    return "_".join(kept.split()) or "_".join(f"u{ord(c):x}" for c in text.strip())


def alone_of(columns: Sequence[str]) -> int | None:
    """The column of the emotion that is in no blend: the neutral one, if it is there."""
    return next((i for i, column in enumerate(columns) if name_of(column) == "neutral"), None)


def collision(columns: Sequence[str]) -> str | None:
    """Why columns cannot be distinguished: the two whose names are the same, or ``None``."""
    seen: dict[str, str] = {}
    for column in columns:
        name = name_of(column)
        if name in seen:
            return f"the emotions {seen[name]!r} and {column!r} have the same name {name!r}; rename one"
        seen[name] = column
    return None


def order_of(names: Sequence[str], wanted: Sequence[str]) -> tuple[int, ...] | None:
    """The place of each of the ``wanted`` names among ``names``; ``None`` where they are not the same names."""
    if sorted(names) != sorted(wanted):
        return None
    return tuple(names.index(name) for name in wanted)


def places_in(labels: LabelSet, wanted: LabelSet) -> tuple[int, ...] | None:
    """The place of each of the ``wanted`` columns in ``labels``; -1 for those of a task that is not there.

    ``None`` where ``labels`` have something else, or a task of the same name in another way.
    """
    found, asked = _by_task(labels), _by_task(wanted)
    if any(asked.get(name) != own for name, own in found.items()):
        return None
    names = labels.names
    return tuple(names.index(name) if name in names else -1 for name in wanted.names)


def union_of(corpora: Mapping[str, LabelSet]) -> LabelSet:
    """The tasks of several corpora, each once, in the order in which they come.

    `ValueError` where two corpora mean something else by one name, saying what.
    """
    first: dict[str, tuple[str, Task, tuple[str, ...]]] = {}
    has_tasks = any(labels.tasks for labels in corpora.values())
    for corpus, labels in corpora.items():
        for task, columns in labels.parts:
            whose, known, titles = first.setdefault(task.name, (corpus, task, labels.columns[columns]))
            own = labels.columns[columns]
            if told := _difference(known, titles, whose, task, own, corpus, ranges_join=not has_tasks):
                raise ValueError(f"task {task.name!r}: {told}")
    all_titles = tuple(title for _, _, titles in first.values() for title in titles)
    minimum = min(labels.minimum for labels in corpora.values())
    maximum = max(labels.maximum for labels in corpora.values())
    tasks = tuple(task for _, task, _ in first.values()) if has_tasks else ()
    whole = LabelSet(all_titles, minimum, maximum, tasks=tasks)
    for corpus, labels in corpora.items():
        whole = whole.measured_as(labels)
        if odd := [one.name for one in labels.combined if one not in whole.combined]:
            raise ValueError(
                f"the combined measure {odd[0]!r} of {corpus} differs from an earlier one of that name; rename "
                "one"
            )
    return whole


def _difference(
    known: Task,
    titles: Sequence[str],
    whose: str,
    task: Task,
    others: Sequence[str],
    corpus: str,
    *,
    ranges_join: bool,
) -> str | None:
    """The first difference between two corpora in a task of the same name; None if there is none."""
    if known.kind != task.kind:
        return f"{whose} has it as {known.kind}, {corpus} as {task.kind}; rename one"
    names, other_names = [*map(name_of, titles)], [*map(name_of, others)]
    only = [
        f"{name} only {', '.join(some)}"
        for name, mine, theirs in ((whose, names, other_names), (corpus, other_names, names))
        if (some := [one.removeprefix(f"{name_of(task.name)}_") for one in mine if one not in theirs])
    ]
    if only:
        return f"{' and '.join(only)}; pack both with the same --tasks, or rename one"
    # Without tasks a shard knows only its own values, and their range is that of all of them.
    is_same = (known.minimum, known.maximum) == (task.minimum, task.maximum)
    if not (is_same or (ranges_join and known.in_unit_interval == task.in_unit_interval)):
        return (
            f"{known.minimum:g} to {known.maximum:g} in {whose}, {task.minimum:g} to {task.maximum:g} in "
            f"{corpus}; pack both with the same range, or rename one"
        )
    return None


def _by_task(labels: LabelSet) -> dict[str, tuple[str, frozenset[str]]]:
    return {task.name: (task.kind, frozenset(labels.names[columns])) for task, columns in labels.parts}


def are_alike(labels: LabelSet, others: LabelSet) -> bool:
    """Whether they have the same columns, in any order, of tasks of the same names and kinds."""
    return _by_task(labels) == _by_task(others)


def on_another_scale(labels: LabelSet, others: LabelSet) -> list[tuple[Task, Task]]:
    """Tasks of numbers, here and there, whose ranges are hardly of one scale: apart, far beyond, or a 50th."""
    there = {task.name: task for task, _ in others.parts}
    both = [(task, there[task.name]) for task, _ in labels.parts if task.name in there]
    return [
        (own, other)
        for own, other in both
        if own.kind == other.kind and own.kind in ("number", "intensities") and _are_apart(own, other)
    ]


def _are_apart(own: Task, other: Task) -> bool:
    width, span = own.maximum - own.minimum, other.maximum - other.minimum
    common = min(own.maximum, other.maximum) - max(own.minimum, other.minimum)
    beyond = max(other.minimum - own.minimum, own.maximum - other.maximum)
    return common < min(width, span) / 2 or beyond > span / 2 or 0 < 50 * width < span


def differing(whose: str, labels: LabelSet, others: str, wanted_labels: LabelSet) -> str:
    """Two label sets that are not the same, both in full, for a message."""
    names, wanted = labels.names, wanted_labels.names
    if sorted(names) == sorted(wanted):
        told, meant = (
            ", ".join(f"{task.name} ({task.kind})" for task, _ in one.parts) for one in (labels, wanted_labels)
        )
        return f"{whose}: tasks {told}; {others} has {meant}; pack both with the same --tasks"
    lacking = [name for name in wanted if name not in names]
    added = [name for name in names if name not in wanted]
    parts = [f"missing: {', '.join(lacking)}"] if lacking else []
    parts += [f"more: {', '.join(added)}"] if added else []
    return (
        f"{whose}: labels {', '.join(names)}; {others} has {', '.join(wanted)} "
        f"({'; '.join(parts)}); they have to be the same emotions, in any order"
    )


HUME_REACTION = LabelSet(("Adoration", "Amusement", "Anxiety", "Disgust", "Empathic-Pain", "Fear", "Surprise"))
"""The seven self-reported reaction intensities of MuSe 2022 (Christ et al. 2022), in the challenge's order."""
