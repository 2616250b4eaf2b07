"""corpora.py: label sets of several corpora: whether they mean the same, their union, places of columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from viper_e2e.labels.label_set import LabelSet
from viper_e2e.labels.names import name_of
from viper_e2e.tasks import Task


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
