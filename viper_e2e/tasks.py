"""tasks.py: kinds of labels of a clip: intensities, one class of several, labels that hold or not, a number."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeGuard

KINDS = ("intensities", "class", "labels", "number")
"""`intensities`: of each emotion, as Hume-Reaction has them. `class`: one of several, or the shares of raters
who chose each. `labels`: several, each of which holds or not. `number`: one, such as valence."""

UNNAMED = "intensities"
"""Name and kind of the one task of a corpus that names none."""

HOLDS_FROM = 0.5
"""A label holds from this probability on."""
LEAST_PROBABILITY = 1e-30
"""Below it a probability counts as this: its logarithm stays finite."""

MEASURES = {
    "intensities": ("pearson", "ccc", "icc", "mse", "rmse", "mae"),
    "class": ("uar", "war", "weighted_f1", "macro_f1"),
    "labels": ("macro_f1", "micro_f1", "uar", "accuracy"),
    "number": ("pearson", "ccc", "icc", "mse", "rmse", "mae"),
    "combined": (),
}
"""Measures that every task of a kind has."""
BLENDS = ("presence", "salience")
FURTHER_MEASURES = {
    "intensities": BLENDS,
    "number": (
        "acc2_has0",
        "f1_has0",
        "acc2_non0",
        "f1_non0",
        "acc5",
        "acc7",
        "acc2_steps",
        "f1_steps",
        "acc3_steps",
        "acc5_steps",
    ),
    "labels": ("weighted_f1",),
}
"""Further measures that a corpus may ask for; `scoring/corpus_measures.py` defines them, with sources."""

MEASURE_TITLES = {
    "pearson": "Pearson",
    "ccc": "CCC",
    "icc": "ICC",
    "mse": "MSE",
    "rmse": "RMSE",
    "mae": "MAE",
    "uar": "UAR",
    "war": "WAR",
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "weighted_f1": "weighted F1",
    "accuracy": "accuracy",
    "f1": "F1",
    "ece": "ECE",
    "brier": "Brier",
    "presence": "ACC presence",
    "salience": "ACC salience",
    "acc2_has0": "Acc-2 (< 0, ≥ 0)",
    "f1_has0": "F1 (< 0, ≥ 0)",
    "acc2_non0": "Acc-2 (< 0, > 0)",
    "f1_non0": "F1 (< 0, > 0)",
    "acc5": "Acc-5",
    "acc7": "Acc-7",
    "acc2_steps": "Acc-2 (≤ 0, > 0)",
    "f1_steps": "F1 (≤ 0, > 0)",
    "acc3_steps": "Acc-3 (±.1)",
    "acc5_steps": "Acc-5 (±.1, ±.7)",
}
"""Names of measures, as papers write them."""

COMBINED = "combined"
"""Kind of what is measured of several tasks together; nothing is learned by it."""
OVERALL = "overall"
"""The name under which tables and records list combined measures."""


@dataclass(frozen=True)
class Task:
    """Neighbouring columns of a label set that are learned and measured as one."""

    name: str
    kind: str
    """One of `KINDS`."""
    size: int
    """How many columns: of a class and of labels one each, of a number one."""
    minimum: float = 0.0
    maximum: float = 1.0
    """Range of the values; of classes and labels always 0 to 1."""
    measures: tuple[str, ...] = ()
    """Its corpus's own, beside those of its kind: some of `FURTHER_MEASURES`."""
    alone: int | None = None
    """Column of the emotion that is never part of a blend (neutral)."""
    thresholds: tuple[float, float] | None = None
    """Thresholds of blends, fitted on validation clips: above which value an emotion is present, up to which
    difference two are equally salient."""

    def __post_init__(self) -> None:
        if self.kind == COMBINED:
            return
        if self.kind not in KINDS:
            raise ValueError(f"task {self.name!r}: no kind {self.kind!r}; there are {', '.join(KINDS)}")
        there = FURTHER_MEASURES.get(self.kind, ())
        if unknown := [name for name in self.measures if name not in there]:
            known = f"there are {', '.join(there)}" if there else "there are none"
            raise ValueError(f"task {self.name!r}: no measure {unknown[0]!r} of {self.kind}; {known}")
        if self.size < 2 and set(self.measures).intersection(BLENDS):
            raise ValueError(f"task {self.name!r}: a blend needs two emotions, but there is one column")
        if self.alone is not None and not 0 <= self.alone < self.size:
            raise ValueError(f"task {self.name!r}: no column {self.alone} of {self.size} to stand alone")
        if self.thresholds is not None and not all(map(math.isfinite, self.thresholds)):
            raise ValueError(f"task {self.name!r}: thresholds {self.thresholds} are not finite numbers")
        least = {"class": 2, "number": 1}.get(self.kind, 1)
        if self.size < least or (self.kind == "number" and self.size != 1):
            raise ValueError(f"task {self.name!r}: a {self.kind} cannot have {self.size} columns")
        if self.kind in ("class", "labels") and (self.minimum, self.maximum) != (0.0, 1.0):
            raise ValueError(f"task {self.name!r}: classes and labels have values from 0 to 1")

    @property
    def in_unit_interval(self) -> bool:
        return self.minimum >= 0.0 and self.maximum <= 1.0


@dataclass(frozen=True)
class CombinedMeasure:
    """A weighted sum of measures of several tasks, as some challenges rank by."""

    name: str
    terms: tuple[tuple[str, float], ...]
    """``TASK.MEASURE`` → its weight."""

    def __post_init__(self) -> None:
        if not self.terms or not all("." in term and math.isfinite(weight) for term, weight in self.terms):
            raise ValueError(f"combined measure {self.name!r}: give a weight for each TASK.MEASURE")

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(term.rpartition(".")[0] for term, _ in self.terms))

    @property
    def formula(self) -> str:
        """``emotion.weighted_f1 − 0.25 · valence.mse``."""
        signed = [
            f"{'−' if weight < 0 else '+'} {'' if abs(weight) == 1 else f'{abs(weight):g} · '}{term}"
            for term, weight in self.terms
        ]
        return " ".join(signed).removeprefix("+ ")

    def lacks(self, tasks: Sequence[Task]) -> str:
        """The first term that is no measure of these tasks, in words; empty where all are."""
        by_name = {task.name: task for task in tasks}
        for term, _ in self.terms:
            name, _, measure = term.rpartition(".")
            there = measures_of(by_name[name]) if name in by_name else ()
            if measure not in there:
                told = f"{name} has {', '.join(there)}" if there else f"there is no task {name!r}"
                return f"combined measure {self.name!r}: no {term}; {told}"
        return ""


def measures_of(task: Task) -> tuple[str, ...]:
    """Names of a task's measures, the main one among them; those of its corpus come last."""
    return (*MEASURES[task.kind], *task.measures)


def names_none(kinds: Mapping[str, str]) -> bool:
    """Whether these are the tasks of a corpus that names none. ``kinds``: of each, by name."""
    return dict(kinds) == {UNNAMED: UNNAMED}


def measure_title(name: str) -> str:
    """A measure's title; a combined one is called as its corpus calls it."""
    return MEASURE_TITLES.get(name, name)


def parts(tasks: Sequence[Task]) -> Iterator[tuple[Task, slice]]:
    """Each task with its columns."""
    start = 0
    for task in tasks:
        yield task, slice(start, start + task.size)
        start += task.size


def tasks_to_json(tasks: Sequence[Task]) -> list[dict[str, Any]]:
    """Lists and plain values; absent parts of a task are left out, so that earlier versions can read it."""
    unset = {"measures": (), "alone": None, "thresholds": None}
    return [
        {key: value for key, value in asdict(task).items() if key not in unset or value != unset[key]}
        for task in tasks
    ]


def tasks_from_json(found: object, num_columns: int) -> tuple[Task, ...]:
    """The inverse; `ValueError` for anything that `tasks_to_json` would not write."""
    if not isinstance(found, list):
        raise ValueError("tasks must be a list")
    tasks = tuple(_task(one) for one in found)
    if len({task.name for task in tasks}) != len(tasks):
        raise ValueError("two tasks have the same name")
    if tasks and sum(task.size for task in tasks) != num_columns:
        raise ValueError(f"tasks of {sum(task.size for task in tasks)} columns, the labels have {num_columns}")
    return tasks


def combined_to_json(combined: Sequence[CombinedMeasure]) -> dict[str, dict[str, float]]:
    return {one.name: dict(one.terms) for one in combined}


def combined_from_json(found: object) -> tuple[CombinedMeasure, ...]:
    """The inverse; `ValueError` for anything else."""
    if not isinstance(found, Mapping):
        raise ValueError("combined measures must be an object")
    made = []
    for name, terms in found.items():
        if not isinstance(terms, Mapping) or not all(_is_finite(weight) for weight in terms.values()):
            raise ValueError(f"combined measure {name!r}: give a weight for each TASK.MEASURE")
        weights = tuple((str(term), float(weight)) for term, weight in terms.items())
        made.append(CombinedMeasure(str(name), weights))
    return tuple(made)


def _task(found: object) -> Task:
    if not isinstance(found, dict) or not all(isinstance(found.get(key), str) for key in ("name", "kind")):
        raise ValueError(f"{found!r} is not a task")
    name, size = found["name"], found.get("size")
    if found["kind"] == COMBINED:
        raise ValueError(f"task {name!r}: no kind {COMBINED!r}; there are {', '.join(KINDS)}")
    if isinstance(size, bool) or not isinstance(size, int):
        raise ValueError(f"task {name!r}: its size is not a whole number")
    low, high = (finite(found.get(end), f"task {name!r}: its {end}") for end in ("minimum", "maximum"))
    task = Task(name, found["kind"], size, low, high)
    measures, alone, thresholds = (found.get(key) for key in ("measures", "alone", "thresholds"))
    if not isinstance(measures or [], list | tuple) or not all(isinstance(one, str) for one in measures or []):
        raise ValueError(f"task {name!r}: measures {measures!r} are not a list of names")
    if alone is not None and (isinstance(alone, bool) or not isinstance(alone, int)):
        raise ValueError(f"task {name!r}: {alone!r} is no column to stand alone")
    pair = None
    if thresholds is not None:
        if not isinstance(thresholds, list | tuple) or len(thresholds) != 2:
            raise ValueError(f"task {name!r}: thresholds {thresholds!r} are not two numbers")
        present, apart = (finite(one, f"task {name!r}: a threshold") for one in thresholds)
        pair = present, apart
    return replace(task, measures=tuple(dict.fromkeys(measures or [])), alone=alone, thresholds=pair)


def finite(value: object, whose: str) -> float:
    """A number of a file; `ValueError` for anything that is no finite number."""
    if not _is_finite(value):
        raise ValueError(f"{whose} is {value!r}, not a finite number")
    return float(value)


def _is_finite(value: object) -> TypeGuard[int | float]:
    # JSON has whole numbers of any length, of which no float is made.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
