"""mapping.py: labels of a corpus -> those of a model trained on another, by name; nothing is guessed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from viper_e2e.errors import ViperError
from viper_e2e.labels import LabelSet, name_of
from viper_e2e.model import Predictions
from viper_e2e.runtime import count_of
from viper_e2e.shards import ShardSet
from viper_e2e.tasks import Task

MANY = 8
"""Names in a message."""


@dataclass(frozen=True)
class TaskMap:
    """A task of the model whose labels the corpus has."""

    task: Task
    """The model's."""
    start: int
    """Its first column among the model's."""
    columns: Mapping[int, int]
    """Column of the corpus → column of this task; of a class several may be one."""
    unmapped: tuple[int, ...] = ()
    """Columns of the corpus's task that the model has no counterpart of."""

    @property
    def kept(self) -> list[int]:
        """The model's columns that can be measured: of a class all, for any of them may be said."""
        own = range(self.task.size) if self.task.kind == "class" else sorted(set(self.columns.values()))
        return [self.start + i for i in own]


def _of_kept(one: TaskMap, task: Task) -> Task:
    """The model's task as it is measured, of the columns that can be."""
    # Who is blended cannot be known where some emotions are not there.
    is_whole = len(one.kept) == task.size
    return task if is_whole else replace(task, size=len(one.kept), alone=None, measures=())


@dataclass(frozen=True)
class LabelMap:
    """Map from the labels of a corpus to those of a model."""

    labels: LabelSet
    """The model's."""
    tasks: tuple[TaskMap, ...]
    notes: tuple[str, ...]
    """Lines on what is left out; the number of clips lost is known once the map is applied."""

    @classmethod
    def of(cls, corpus: LabelSet, model: LabelSet, words: Sequence[str]) -> LabelMap:
        """``words``: ``["happy=joy,mood=emotion"]``, the corpus's name first; what has the same name in both is
        mapped as it is. Raises `ViperError` for names that are not there, or could mean several things."""
        pairs = _pairs(words, corpus)
        notes: list[str] = []
        made: list[TaskMap] = []
        ours = {name_of(task.name): (task, columns) for task, columns in model.parts}
        for task, columns in corpus.parts:
            name = pairs.get((name_of(task.name), None), name_of(task.name))
            if name not in ours and (name_of(task.name), None) in pairs:
                raise ViperError(
                    f"--map {task.name}={name}: the model has no task {name}; it has {_listed(ours)}"
                )
            if any(one.task.name == ours[name][0].name for one in made if name in ours):
                raise ViperError(f"--map: two tasks of the shards map to {name} of the model; map only one")
            found = _task_map(corpus, task, columns, model, ours.get(name), pairs, notes)
            made += [] if found is None else [found]
        measured = {one.task.name for one in made}
        lacking = [task.name for task, _ in model.parts if task.name not in measured]
        notes += [f"not measured, as the shards have no label for it: {_listed(lacking)}"] if lacking else []
        if not made:
            raise ViperError(f"--map: the shards have no label that the model learned: {'; '.join(notes)}")
        return cls(model, tuple(made), tuple(notes))

    def row(self, labels: Sequence[float]) -> tuple[float, ...]:
        """A clip's labels in the corpus → in the model, NaN where there is none."""
        made = np.full(len(self.labels), np.nan)
        for one in self.tasks:
            own = made[one.start : one.start + one.task.size]
            if one.task.kind == "class":
                shares = np.zeros(one.task.size)
                for theirs, place in one.columns.items():
                    shares[place] += labels[theirs]
                has_others = any(labels[i] > 0 for i in one.unmapped)
                own[:] = shares if shares.sum() > 0 and not has_others else np.nan
            else:
                for theirs, place in one.columns.items():
                    own[place] = labels[theirs]
        return tuple(made.tolist())

    def applied(self, shards: ShardSet) -> ShardSet:
        """The same clips with the model's labels."""
        return shards.mapped(self.labels, self.row)

    def lost(self, shards: ShardSet) -> list[str]:
        """Lines on the clips that lose a label, and by which words. ``shards``: as the corpus has them."""
        lines = []
        entries = [shards.entry(i).intensities for i in range(len(shards))]
        names = shards.known_labels.columns
        for one in self.tasks:
            columns = one.unmapped if one.task.kind == "class" else ()
            counts = {names[i]: sum(row is not None and row[i] > 0 for row in entries) for i in columns}
            lines += [
                f"{name}: {count_of(count, 'clip')} without a label of {one.task.name}"
                for name, count in counts.items()
                if count
            ]
        return lines

    def measured(self, predictions: Predictions) -> Predictions:
        """Predictions that can be measured: of labels and intensities the mapped columns alone."""
        kept = [i for one in self.tasks for i in one.kept]
        columns = tuple(self.labels.columns[i] for i in kept)
        measured = {task.name: task for task in predictions.labels.tasks}
        tasks = tuple(_of_kept(one, measured[one.task.name]) for one in self.tasks) if measured else ()
        labels = LabelSet(columns, self.labels.minimum, self.labels.maximum, tasks=tasks)
        labels = replace(
            labels, combined=tuple(one for one in predictions.labels.combined if not one.lacks(labels.tasks))
        )
        predicted, true = predictions.predicted[:, kept], predictions.true[:, kept]
        return replace(predictions, labels=labels, predicted=predicted, true=true)


Place = tuple[str, str | None]
"""A task's name, and a column's own name or None for the task."""


def _pairs(words: Sequence[str], corpus: LabelSet) -> dict[Place, str]:
    """Places of the corpus → their names in the model."""
    found: dict[Place, str] = {}
    for word in (part.strip() for words_ in words for part in words_.split(",") if part.strip()):
        theirs, is_pair, ours = (part.strip() for part in word.partition("="))
        if not (is_pair and theirs and ours):
            raise ViperError(
                f"--map {word}: write THEIRS=OURS, the name in the shards and the one in the model"
            )
        places = _places(corpus, theirs)
        if not places:
            there = [name_of(t.name) for t, _ in corpus.parts] + [p[1] or "" for p in _all_columns(corpus)]
            raise ViperError(
                f"--map {word}: the shards have no {theirs}; they have {_listed(dict.fromkeys(there))}"
            )
        if len(places) > 1:
            shown = " or ".join(task if column is None else f"{task}.{column}" for task, column in places)
            raise ViperError(f"--map {word}: {theirs} could be {shown}; write one of them")
        if found.setdefault(places[0], _dotted(ours)) != _dotted(ours):
            raise ViperError(f"--map {word}: {theirs} is mapped twice")
    return found


def _places(labels: LabelSet, name: str) -> list[Place]:
    wanted = _dotted(name)
    tasks: list[Place] = [(name_of(t.name), None) for t, _ in labels.parts if name_of(t.name) == wanted]
    if tasks and all(t.kind == "number" for t, _ in labels.parts if name_of(t.name) == wanted):
        return tasks  # whose one column is called the same
    columns = [p for p in _all_columns(labels) if wanted in (p[1], f"{p[0]}.{p[1]}", f"{p[0]}_{p[1]}")]
    return [*tasks, *columns]


def _all_columns(labels: LabelSet) -> list[Place]:
    return [
        (name_of(task.name), name_of(title))
        for task, columns in labels.parts
        for title in labels.own_titles(task, columns)
    ]


def _dotted(name: str) -> str:
    return ".".join(name_of(part) for part in name.split("."))


def _task_map(
    corpus: LabelSet,
    task: Task,
    columns: slice,
    model: LabelSet,
    ours: tuple[Task, slice] | None,
    pairs: Mapping[Place, str],
    notes: list[str],
) -> TaskMap | None:
    """None where the model has no such task; ``notes`` gets a line for all that is left out."""
    name = name_of(task.name)
    if ours is None:
        given = [place for place in pairs if place[0] == name and place[1] is not None]
        if given:
            raise ViperError(f"--map {given[0][1]}={pairs[given[0]]}: also say which task {name} is: {name}=…")
        notes.append(f"left out, as the model has no task of this name: {task.name} ({task.kind})")
        return None
    own, place = ours
    if own.kind != task.kind:
        notes.append(
            f"left out: {task.name} is {task.kind} in the shards, {own.name} is {own.kind} in the model"
        )
        return None
    if task.kind == "number":
        if (task.minimum, task.maximum) != (own.minimum, own.maximum):
            spans = (f"{t.minimum:g} to {t.maximum:g}" for t in (task, own))
            notes.append(
                f"{task.name}: {next(spans)} in the shards, {next(spans)} in the model; taken as they are"
            )
        return TaskMap(own, place.start, {columns.start: 0})
    return _column_map(corpus, task, columns, model, own, place, pairs, notes)


def _column_map(
    corpus: LabelSet,
    task: Task,
    columns: slice,
    model: LabelSet,
    own: Task,
    place: slice,
    pairs: Mapping[Place, str],
    notes: list[str],
) -> TaskMap | None:
    wanted = [name_of(title) for title in model.own_titles(own, place)]
    prefix = name_of(own.name)
    mapped: dict[int, int] = {}
    unmapped: list[int] = []
    titles = [name_of(title) for title in corpus.own_titles(task, columns)]
    for i, title in enumerate(titles):
        given = pairs.get((name_of(task.name), title))
        target = title if given is None else given.removeprefix(f"{prefix}.").removeprefix(f"{prefix}_")
        if target in wanted:
            mapped[columns.start + i] = wanted.index(target)
        elif given is not None:
            raise ViperError(f"--map {title}={given}: {own.name} of the model has {_listed(wanted)}")
        else:
            unmapped.append(columns.start + i)
    if task.kind != "class" and len(set(mapped.values())) < len(mapped):
        raise ViperError(f"--map: two columns of {task.name} map to one of the model; only classes can merge")
    what = "classes" if task.kind == "class" else "columns"
    if unmapped:
        names = [titles[i - columns.start] for i in unmapped]
        notes.append(f"left out: {what} of {task.name} that the model does not have: {_listed(names)}")
    if missing := [name for i, name in enumerate(wanted) if i not in mapped.values()]:
        effect = "if predicted, they count as wrong" if task.kind == "class" else "not measured"
        notes.append(f"{what} of {own.name} that the shards do not have ({effect}): {_listed(missing)}")
    return TaskMap(own, place.start, mapped, tuple(unmapped)) if mapped else None


def _listed(names: Mapping[str, object] | Sequence[str]) -> str:
    shown = list(names)
    more = f" and {len(shown) - MANY} more" if len(shown) > MANY else ""
    return ", ".join(shown[:MANY]) + more
