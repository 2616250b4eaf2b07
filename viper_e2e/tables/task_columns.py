"""task_columns.py: columns of each task of a table, and a row's cells -> that task's numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import nan
from pathlib import Path
from typing import Any, NamedTuple

from viper_e2e.config import read_settings_file
from viper_e2e.errors import ViperError
from viper_e2e.labels import LabelSet, alone_of, name_of
from viper_e2e.runtime import class_word, same_class
from viper_e2e.shards import range_of
from viper_e2e.tables.bad_cells import no_number, why_no_name
from viper_e2e.tables.sheet import Sheet
from viper_e2e.tables.values import number
from viper_e2e.tasks import BLENDS, FURTHER_MEASURES, KINDS, OVERALL, CombinedMeasure, Task, combined_from_json

MAX_CLASSES = 100
"""More different words in a column are text rather than classes."""
MANY_CLASSES = 20
"""More than these, most of them seen once, are names or remarks."""

HOLDS = {"true": 1.0, "yes": 1.0, "false": 0.0, "no": 0.0}
"""How programs and people write that a label holds, or does not."""

Find = Callable[[str], "int | None"]
"""Finds the column of a title, or notes a complaint."""


@dataclass(frozen=True)
class TaskColumns:
    """One task as a person describes it, then as it is in a table."""

    name: str
    kind: str
    titles: tuple[str, ...]
    """Titles of its columns: one with the words of a class, or several with numbers."""
    classes: tuple[str, ...] = ()
    """Classes of a column of words; empty: those that occur."""
    span: tuple[float, float] | None = None
    """Range of the values; None: that of the table's."""
    places: tuple[int, ...] = ()
    measures: tuple[str, ...] = ()
    """Measures from `FURTHER_MEASURES` that its corpus reports beside those of its kind."""

    @property
    def is_words(self) -> bool:
        return self.kind == "class" and len(self.titles) == 1

    @property
    def size(self) -> int:
        return len(self.classes) if self.is_words else len(self.titles)

    @property
    def column_names(self) -> tuple[str, ...]:
        """Names of its columns in the label set; those of classes and labels begin with the task's name."""
        if self.kind in ("class", "labels"):
            own = self.classes if self.is_words else self.titles
            return tuple(f"{name_of(self.name)} {one}" for one in own)
        return (self.name,) if self.kind == "number" else self.titles

    def read(self, cells: Sequence[str], is_empty: Callable[[str], bool], decimal: str) -> tuple[float, ...]:
        """A row's numbers, all NaN where one is missing. `ValueError` for what cannot be read as such."""
        own = [cells[place] for place in self.places]
        known = [same_class(one) for one in self.classes] if self.is_words else []
        # A class may be called "none" where a person lists it.
        if any(map(is_empty, own)) and same_class(own[0]) not in known:
            return (nan,) * self.size
        if self.is_words:
            word = same_class(own[0])
            if word not in known:
                why = why_no_name(own[0]) or f"none of {', '.join(self.classes)}"
                raise ValueError(f"{self.titles[0]} is {own[0]!r}, {why}")
            return tuple(float(one == word) for one in known)
        values = [self._value(title, cell, decimal) for title, cell in zip(self.titles, own, strict=True)]
        if self.kind != "class":
            return tuple(values)
        if min(values) < 0 or sum(values) <= 0:
            raise ValueError(f"{', '.join(self.titles)}: counts of raters are at least 0, and not all 0")
        return tuple(value / sum(values) for value in values)

    def _value(self, title: str, cell: str, decimal: str) -> float:
        value = number(cell, decimal)
        if value is None and self.kind == "labels":
            value = HOLDS.get(cell.casefold())
        if value is None and self.kind == "labels" and re.match(r"[^\W\d_]{2}", cell):
            raise ValueError(
                f"{title} is {cell!r}, no label: give each label a column with 1 where it holds, else 0"
            )
        if value is None:
            raise ValueError(f"{title} is {cell!r}, {no_number(cell, decimal)}")
        if self.kind == "labels" and not 0 <= value <= 1:
            raise ValueError(f"{title} is {cell}, a label holds (1) or not (0)")
        if self.span is not None and not self.span[0] <= value <= self.span[1]:
            raise ValueError(f"{title} is {cell}, outside of {self.span[0]:g} to {self.span[1]:g}")
        return value


class AskedTasks(NamedTuple):
    """Tasks that ``--tasks`` asks for."""

    columns: tuple[TaskColumns, ...] = ()
    combined: tuple[CombinedMeasure, ...] = ()
    """Measures of several tasks together."""


def read_tasks(given: str) -> AskedTasks:
    """``--tasks``: a YAML file, or ``Emotion=class,Valence=number`` with titles of columns.

    In the file each task is ``name: {kind: class, columns: [...], classes: [...], range: [-1, 1], measures:
    [...]}``; only ``kind`` is needed, and ``columns`` where the column is called otherwise than the task. Under
    ``overall`` stands what several tasks are measured by, ``NAME: {TASK.MEASURE: weight, ...}``.
    `ViperError` for what is not understood, and for a measure that no task has.
    """
    if "=" in given and not Path(given).exists():
        words = [part.rpartition("=")[::2] for part in given.split(",") if part.strip()]
        titled = (
            _of_settings(name_of(title), {"kind": kind.strip(), "columns": [title.strip()]})
            for title, kind in words
        )
        return AskedTasks(_of_different_names(titled))
    found = read_settings_file(Path(given), "--tasks")
    if not all(isinstance(one, dict) for one in found.values()):
        raise ViperError(f"--tasks {given}: each task is a line such as emotion: {{kind: class}}")
    columns = _of_different_names(
        _of_settings(_texts("--tasks", "a name", name)[0], settings)
        for name, settings in found.items()
        if not _is_of_several(name, settings)
    )
    overall = found.get(OVERALL, {})
    return AskedTasks(columns, _combined(overall, columns) if _is_of_several(OVERALL, overall) else ())


def _combined(overall: Mapping[str, object], columns: Sequence[TaskColumns]) -> tuple[CombinedMeasure, ...]:
    # How many columns a class has is not known before its table is read, and no matter here.
    sizes = {"number": 1}
    tasks = [
        Task(name_of(one.name), one.kind, sizes.get(one.kind, 2), measures=one.measures) for one in columns
    ]
    try:
        asked = combined_from_json(
            {name: _by_name(terms) if isinstance(terms, dict) else terms for name, terms in overall.items()}
        )
    except ValueError as error:
        example = "f1_mse: {emotion.weighted_f1: 1, valence.mse: -0.25}"
        raise ViperError(f"--tasks: {OVERALL}: {error}, such as {example}") from error
    if lack := next((lack for one in asked if (lack := one.lacks(tasks))), ""):
        raise ViperError(f"--tasks: {OVERALL}: {lack}")
    return asked


def _is_of_several(name: object, settings: object) -> bool:
    """Whether an entry of the file is no task but asks for measures of several."""
    return name == OVERALL and isinstance(settings, dict) and "kind" not in settings


def _by_name(terms: dict[object, object]) -> dict[str, object]:
    """Weights by the names that tasks have in shards."""
    named = {}
    for term, weight in terms.items():
        task, dot, measure = str(term).rpartition(".")
        named[f"{name_of(task)}.{measure}" if dot else measure] = weight
    return named


def _of_different_names(tasks: Iterable[TaskColumns]) -> tuple[TaskColumns, ...]:
    found = tuple(tasks)
    names = [name_of(task.name) for task in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ViperError(f"--tasks: two tasks are called {twice!r}; rename one, or leave it out")
    return found


def _of_settings(name: str, settings: dict[str, Any]) -> TaskColumns:
    what = f"--tasks: {name}"
    if unknown := settings.keys() - {"kind", "columns", "classes", "range", "measures"}:
        named = ", ".join(sorted(map(str, unknown)))
        raise ViperError(f"{what}: no setting {named}; there are kind, columns, classes, range, measures")
    kind = settings.get("kind")
    if kind not in KINDS:
        raise ViperError(f"{what}: no kind {kind!r}; there are {', '.join(KINDS)}")
    titles, classes, measures = (
        _texts(what, key, settings.get(key, [])) for key in ("columns", "classes", "measures")
    )
    further = FURTHER_MEASURES.get(kind, ())
    if odd := [name for name in measures if name not in further]:
        raise ViperError(
            f"{what}: no measure {odd[0]} beside those of {kind}; there are {', '.join(further) or 'none'}"
        )
    titles = titles or (name,)
    if kind == "number" and len(titles) != 1:
        raise ViperError(f"{what}: a number has one column, not {len(titles)}; make a task of each")
    if classes and not (kind == "class" and len(titles) == 1):
        raise ViperError(f"{what}: classes are those of one column of words; leave them out")
    span = settings.get("range")
    if span is not None:
        are_two = (
            isinstance(span, list) and len(span) == 2 and all(isinstance(end, int | float) for end in span)
        )
        if kind in ("class", "labels") or not are_two or span[0] >= span[1]:
            raise ViperError(f"{what}: range {span!r}; write for example [-1, 1], of intensities or a number")
        span = float(span[0]), float(span[1])
    return TaskColumns(name, kind, titles, classes, span, measures=measures)


def _texts(what: str, key: str, found: object) -> tuple[str, ...]:
    listed = found if isinstance(found, list) else [found]
    if wrong := [one for one in listed if isinstance(one, bool)]:
        said = f"no, off, {wrong[0]}".lower() if not wrong[0] else f"yes, on, {wrong[0]}".lower()
        raise ViperError(
            f"{what}: {key} has a word that YAML reads as {wrong[0]} ({said}); put quotes around it"
        )
    if not all(isinstance(one, str | int | float) and str(one).strip() for one in listed):
        raise ViperError(f"{what}: {key} is {found!r}; write a list of titles, such as [joy, fear]")
    return tuple(str(one).strip() for one in listed)


def placed(
    tasks: Sequence[TaskColumns], sheet: Sheet, find: Find, is_empty: Callable[[str], bool]
) -> tuple[TaskColumns, ...]:
    """The tasks with the places of their columns in a table, and with the classes that occur in it.

    A column that is not there is left to ``find`` to complain about. `ViperError` for a column of text.
    """
    made = []
    for task in tasks:
        places = [find(title) for title in task.titles]
        there = tuple(place for place in places if place is not None)
        if len(there) < len(places):
            continue
        task = replace(task, places=there, titles=tuple(sheet.header[place] for place in there))
        made.append(replace(task, classes=_occurring(task, sheet, is_empty)) if task.is_words else task)
    return tuple(made)


def _occurring(task: TaskColumns, sheet: Sheet, is_empty: Callable[[str], bool]) -> tuple[str, ...]:
    """The classes of a column of words: those given, or what occurs, in the order of the alphabet."""
    (place,) = task.places
    cells = [cells[place].strip() for _, cells in sheet.lines if place < len(cells)]
    words = [word for word in cells if word and not is_empty(word) and why_no_name(word) is None]
    what = f"--tasks: {task.name}"
    if len({same_class(one) for one in task.classes}) < len(task.classes):
        raise ViperError(f"{what}: a class is listed twice among {', '.join(task.classes)}")
    found = {same_class(word): class_word(word) for word in reversed(task.classes or words)}
    names: dict[str, str] = {}
    for word in reversed(found.values()):
        if (other := names.setdefault(name_of(word), word)) != word:
            raise ViperError(
                f"{what}: {other!r} and {word!r} become the same name {name_of(word)!r}; rename one"
            )
    if task.classes:
        return tuple(reversed(found.values()))
    title = task.titles[0]
    if not 2 <= len(found) <= MAX_CLASSES:
        raise ViperError(
            f"{what}: column {title!r} has {len(found)} different words; a class has 2 to {MAX_CLASSES}"
        )
    if len(found) > MANY_CLASSES and 2 * len(found) > len(words):
        raise ViperError(
            f"{what}: column {title!r} has {len(found)} different words in {len(words)} rows: is it a class? "
            "If so, list them as classes in a file of tasks (--tasks tasks.yaml)"
        )
    return tuple(found[name] for name in sorted(found))


def label_set(
    tasks: Sequence[TaskColumns],
    rows: Sequence[tuple[float, ...] | None],
    combined: Sequence[CombinedMeasure] = (),
) -> LabelSet:
    """The label set of a table with these tasks; ranges that nobody gave are those of its values."""
    columns: list[str] = []
    made: list[Task] = []
    start = 0
    for task in tasks:
        columns += task.column_names
        own = [value for row in rows if row for value in row[start : start + task.size] if value == value]
        low, high = task.span or (range_of(own) if own else (0.0, 1.0))
        alone = alone_of(task.titles) if set(task.measures).intersection(BLENDS) else None
        made.append(Task(name_of(task.name), task.kind, task.size, low, high, task.measures, alone))
        start += task.size
    low, high = min(one.minimum for one in made), max(one.maximum for one in made)
    return LabelSet(tuple(columns), low, high, tasks=tuple(made), combined=tuple(combined))
