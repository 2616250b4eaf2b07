"""tables.py: records and scores as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any

from rich.table import Table
from rich.text import Text

from viper_e2e.report.drawing import words
from viper_e2e.report.record_rows import without_controls
from viper_e2e.runtime import count_of, first_of
from viper_e2e.scoring import (
    GroupScores,
    Interval,
    Intervals,
    Scores,
    TaskReport,
    TaskScores,
    main_measure,
)
from viper_e2e.tasks import MEASURE_TITLES, Task, measure_title

MAX_NAMES = 5


def metrics_table(scores: Scores, intervals: Intervals | None = None, *, title: str = "") -> Table:
    """Pearson, CCC and MSE per emotion and as means, each with its 95 % interval where there is one."""
    made = plain_table(title, ("emotion", "Pearson", "CCC", "MSE"))
    for row in metrics_rows(scores, intervals):
        made.add_row(*(Text(cell, "bold" if row[0] == "mean" else "") for cell in row))
    note = count_of(scores.num_clips, "clip")
    note += f"; in brackets {intervals_over(intervals.over)}" if intervals else ""
    made.caption = Text(f"{note}; {scores.note}" if scores.note else note)
    made.caption_justify = "left"
    return made


def intervals_over(what: str) -> str:
    """Caption of the intervals in brackets."""
    return f"95 % bootstrap intervals over {what}"


def task_tables(scores: TaskScores) -> list[Table]:
    """A task's measures, each with its 95 % interval, and of its classes or labels recall, precision and F1."""
    kind = f"{task_title(scores.task)}, {count_of(scores.num_clips, 'clip')}"
    whole = plain_table(kind, ("measure", "value"))
    for name, value in scores.values.items():
        whole.add_row(measure_title(name), with_interval(value, scores.intervals.get(name)))
    notes = [scores.notes, intervals_over(scores.over) if scores.intervals else ""]
    whole.caption, whole.caption_justify = Text("; ".join(filter(None, notes))), "left"
    if not scores.by_column:
        return [whole]
    measures = columns_measured(scores)
    titles = ("label" if scores.task.kind == "labels" else "class", *map(measure_title, measures), "clips")
    each = plain_table("", titles)
    for column, row in scores.by_column.items():
        shares = (with_interval(row[measure], None) for measure in measures)
        each.add_row(words(column), *shares, f"{row['num_clips']:,.0f}")
    return [whole, each]


def columns_measured(scores: TaskScores) -> list[str]:
    """Measures of each class or label: recall, precision, F1, and what its corpus reports besides."""
    return [measure for measure in next(iter(scores.by_column.values()), {}) if measure != "num_clips"]


def calibration_table(report: TaskReport) -> Table:
    """A task before and after calibrating, on the clips that it was not fitted on."""
    made = plain_table(f"{report.task.name} ({report.task.kind})", ("measure", "before", "after"))
    for name, before in report.before.items():
        made.add_row(MEASURE_TITLES[name], with_interval(*before), with_interval(*report.after[name]))
    fitted = report.fitted
    told = f"fitted on {count_of(fitted.num_fitted, 'clip')}, measured on {fitted.num_held_out:,} others; "
    told += f"{intervals_over(report.over)}; {_fitted_in_words(report)}"
    made.caption, made.caption_justify = Text(told), "left"
    return made


def _fitted_in_words(report: TaskReport) -> str:
    fitted = report.fitted
    if report.task.kind == "class":
        temperature, least = 1 / fitted.inverse_temperature, 1 - fitted.reach[0]
        return f"temperature {temperature:.3f}; in a set from a probability of {least:.3f} on"
    if report.task.kind == "labels":
        return f"temperature {1 / fitted.inverse_temperature:.3f}"
    return f"intervals: what is predicted ± {', '.join(f'{reach:.3f}' for reach in fitted.reach)}"


def measure_cell(scores: TaskScores, name: str) -> str:
    """One measure of a task, with its interval where there is one."""
    return with_interval(scores.values[name], scores.intervals.get(name))


def group_tables(scores: GroupScores) -> list[Table]:
    """A table per task: each group's main measures, what their intervals are over, and the largest gap."""
    made = []
    for task in next(iter(scores.groups.values()), {}):
        measures = list(next(iter(scores.groups.values()))[task].values)[:2]
        of_task = "" if task == "intensities" else f"{task}, "
        table = plain_table(
            f"{of_task}by {scores.name}", (scores.name, *(measure_title(name) for name in measures), "clips")
        )
        for group, by_task in scores.groups.items():
            one = by_task[task]
            values = (with_interval(one.values[name], one.intervals.get(name)) for name in measures)
            table.add_row(without_controls(group), *values, f"{one.num_clips:,}")
        gap = scores.gap(task)
        main = measure_title(main_measure(next(iter(scores.groups.values()))[task].task))
        notes = _over_of_groups({group: by_task[task] for group, by_task in scores.groups.items()})
        notes += [] if gap is None else [f"largest gap in {main}: {gap:.3f}"]
        table.caption, table.caption_justify = Text("; ".join(notes)), "left"
        made.append(table)
    return made


def _over_of_groups(groups: Mapping[str, TaskScores]) -> list[str]:
    """What intervals were drawn over; a group of one subject draws its clips, whatever others draw."""
    over = {group: one.over for group, one in groups.items() if one.intervals}
    if len(set(over.values())) < 2:
        return [intervals_over(what) for what in set(over.values())]
    of_clips = [without_controls(group) for group, what in over.items() if what == "clips"]
    return [f"{intervals_over('subjects')} (of {first_of(of_clips, MAX_NAMES)} over clips)"]


def task_title(task: Task) -> str:
    """``emotion (class)``; of a model without named tasks what they all are."""
    return task.name if task.name == task.kind else f"{task.name} ({task.kind})"


def plain_table(title: str, columns: Sequence[str]) -> Table:
    made = Table(
        title=title or None, title_justify="left", box=None, pad_edge=False, padding=(0, 1), header_style="bold"
    )
    made.add_column(columns[0])
    for name in columns[1:]:
        made.add_column(name, justify="right", no_wrap=True)
    return made


def metrics_rows(scores: Scores, intervals: Intervals | None = None) -> list[tuple[str, ...]]:
    """The cells of :func:`metrics_table`; the last row is the mean."""
    rows = []
    for i, name in enumerate(scores.names):
        spans = [intervals.pearson[i], intervals.ccc[i], intervals.mse[i]] if intervals else [None] * 3
        values = (scores.pearson[i], scores.ccc[i], scores.mse[i])
        rows.append((words(name), *map(with_interval, values, spans)))
    spans = [intervals.mean_pearson, intervals.mean_ccc, intervals.mean_mse] if intervals else [None] * 3
    means = (scores.mean_pearson, scores.mean_ccc, scores.mean_mse)
    rows.append(("mean", *map(with_interval, means, spans)))
    return rows


def intervals_record(intervals: Intervals, names: Sequence[str] | None = None) -> dict[str, Any]:
    """Intervals as JSON: ``[low, high]`` per mean and emotion, ``None`` where undefined.

    Emotions are an object with ``names``, a list in their order without.
    """
    record: dict[str, Any] = {}
    for measure in ("pearson", "ccc", "mse"):
        pairs = [_pair(interval) for interval in getattr(intervals, measure)]
        record[f"mean_{measure}"] = _pair(getattr(intervals, f"mean_{measure}"))
        record[measure] = dict(zip(names, pairs, strict=True)) if names else pairs
    return record


def _pair(interval: Interval) -> list[float] | None:
    return None if isnan(interval.low) else [interval.low, interval.high]


def with_interval(value: float, interval: Interval | None) -> str:
    if isnan(value):
        return "–"
    if interval is None or isnan(interval.low):
        return rounded(value)
    return f"{rounded(value)} [{rounded(interval.low)}, {rounded(interval.high)}]"


def rounded(value: float) -> str:
    return f"{round(value, 3) + 0.0:.3f}"  # + 0.0: nobody wants to read -0.000
