"""tasks.py: what is asked of a clip: intensities, one class of several, labels that hold or not, a number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

KINDS = ("intensities", "class", "labels", "number")
"""`intensities`: of each emotion, as Hume-Reaction has them. `class`: one of several, or the shares of raters
who chose each. `labels`: several, each of which holds or not. `number`: one, such as valence."""


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

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"task {self.name!r}: no kind {self.kind!r}; there are {', '.join(KINDS)}")
        least = {"class": 2, "number": 1}.get(self.kind, 1)
        if self.size < least or (self.kind == "number" and self.size != 1):
            raise ValueError(f"task {self.name!r}: {self.size} columns are not those of a task of {self.kind}")
        if self.kind in ("class", "labels") and (self.minimum, self.maximum) != (0.0, 1.0):
            raise ValueError(f"task {self.name!r}: classes and labels have values from 0 to 1")

    @property
    def in_unit_interval(self) -> bool:
        return self.minimum >= 0.0 and self.maximum <= 1.0


def parts(tasks: Sequence[Task]) -> Iterator[tuple[Task, slice]]:
    """Each task with its columns."""
    start = 0
    for task in tasks:
        yield task, slice(start, start + task.size)
        start += task.size


def tasks_to_json(tasks: Sequence[Task]) -> list[dict[str, Any]]:
    return [asdict(task) for task in tasks]


def tasks_from_json(found: object, num_columns: int) -> tuple[Task, ...]:
    """The inverse; `ValueError` for anything that `tasks_to_json` would not write."""
    if not isinstance(found, list):
        raise ValueError("tasks are a list")
    tasks = tuple(_task(one) for one in found)
    if len({task.name for task in tasks}) != len(tasks):
        raise ValueError("two tasks have the same name")
    if tasks and sum(task.size for task in tasks) != num_columns:
        raise ValueError(f"tasks of {sum(task.size for task in tasks)} columns, the labels have {num_columns}")
    return tasks


def _task(found: object) -> Task:
    if not isinstance(found, dict) or not all(isinstance(found.get(key), str) for key in ("name", "kind")):
        raise ValueError(f"{found!r} is no task")
    size = found.get("size")
    if isinstance(size, bool) or not isinstance(size, int):
        raise ValueError(f"task {found['name']!r}: its size is no whole number")
    return Task(found["name"], found["kind"], size, float(found["minimum"]), float(found["maximum"]))
