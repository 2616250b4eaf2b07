"""tables.py: records and scores as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan

from rich.table import Table
from rich.text import Text

from viper_e2e.report.drawing import words
from viper_e2e.report.record_rows import without_controls
from viper_e2e.runtime import count_of, first_of
from viper_e2e.scoring import (
    AGREEMENT,
    FEW,
    GroupScores,
    Interval,
    Scores,
    TaskReport,
    TaskScores,
    main_measure,
)
from viper_e2e.tasks import MEASURE_TITLES, Task, measure_title

MAX_NAMES = 5


def scores_tables(scores: Scores) -> list[Table]:
    """Each task in its own measures; intensities of a corpus that names no tasks emotion by emotion."""
    if scores.of_one_task:
        return [metrics_table(scores.whole)]
    return [made for one in scores.tasks.values() for made in task_tables(one)]


def metrics_table(scores: TaskScores) -> Table:
    """Pearson, CCC and MSE per emotion and as means, each with its 95 % interval where there is one."""
    made = plain_table("", ("emotion", *map(measure_title, AGREEMENT)))
    for row in metrics_rows(scores):
        made.add_row(*(Text(cell, "bold" if row[0] == "mean" else "") for cell in row))
    notes = [count_of(scores.num_clips, "clip")]
    notes += [f"in brackets {intervals_over(scores.over, scores.caution)}"] if scores.intervals else []
    made.caption = Text("; ".join([*notes, *notes_on_constants(scores)]))
    made.caption_justify = "left"
    return made


def notes_on_constants(scores: TaskScores) -> list[str]:
    """Columns that the means treat specially, in words."""
    told = {
        "labels do not vary, left out of the means": scores.constant_labels,
        "predictions do not vary, counted as 0": scores.constant_predictions,
    }
    return [f"{what}: {', '.join(names)}" for what, names in told.items() if names]


def intervals_over(what: str, caution: str = "") -> str:
    """Caption of the intervals in brackets."""
    return f"95 % bootstrap intervals over {over_in_words(what, caution)}"


def over_in_words(what: str, caution: str | None) -> str:
    """``subjects (only 2: far too narrow)``."""
    return f"{what} ({caution})" if caution else what


def task_tables(scores: TaskScores) -> list[Table]:
    """A task's measures, each with its 95 % interval, and of its classes or labels recall, precision and F1."""
    kind = f"{task_title(scores.task)}, {count_of(scores.num_clips, 'clip')}"
    whole = plain_table(kind, ("measure", "value"))
    for name, value in scores.values.items():
        whole.add_row(measure_title(name), with_interval(value, scores.intervals.get(name)))
    notes = [scores.notes, intervals_over(scores.over, scores.caution) if scores.intervals else ""]
    whole.caption, whole.caption_justify = Text("; ".join(filter(None, notes))), "left"
    measures = columns_measured(scores)
    if not measures:
        return [whole]
    titles = ("label" if scores.task.kind == "labels" else "class", *map(measure_title, measures), "clips")
    each = plain_table("", titles)
    for column, row in scores.by_column.items():
        shares = (with_interval(row[measure], None) for measure in measures)
        each.add_row(words(column), *shares, f"{row['num_clips']:,.0f}")
    return [whole, each]


def columns_measured(scores: TaskScores) -> list[str]:
    """Measures of each class or label: recall, precision, F1, and what its corpus reports besides. None of
    numbers."""
    if scores.task.kind not in ("class", "labels"):
        return []
    return [measure for measure in next(iter(scores.by_column.values()), {}) if measure != "num_clips"]


def calibration_table(report: TaskReport) -> Table:
    """A task before and after calibrating, on the clips that it was not fitted on."""
    made = plain_table(f"{report.task.name} ({report.task.kind})", ("measure", "before", "after"))
    for name, before in report.before.items():
        made.add_row(MEASURE_TITLES[name], with_interval(*before), with_interval(*report.after[name]))
    fitted = report.fitted
    told = f"fitted on {count_of(fitted.num_fitted, 'clip')}, measured on {fitted.num_held_out:,} others; "
    told += f"{intervals_over(report.over, report.caution)}; {_fitted_in_words(report)}"
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
    """Units of intervals; a group of one subject draws its clips, whatever others draw."""
    with_any = {without_controls(group): one for group, one in groups.items() if one.intervals}
    over = {one.over for one in with_any.values()}
    of_clips = [group for group, one in with_any.items() if one.over == "clips"]
    told = [intervals_over(what) for what in over]
    if len(over) > 1:
        told = [f"{intervals_over('subjects')} (of {first_of(of_clips, MAX_NAMES)} over clips)"]
    few = [group for group, one in with_any.items() if one.num_drawn < FEW]
    return told + ([f"too narrow, over fewer than {FEW}: {first_of(few, MAX_NAMES)}"] if few else [])


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


def metrics_rows(scores: TaskScores) -> list[tuple[str, ...]]:
    """The cells of :func:`metrics_table`; the last row is the mean."""
    made = []
    for name, row in scores.by_column.items():
        spans = scores.column_intervals.get(name, {})
        made.append((words(name), *(with_interval(row[one], spans.get(one)) for one in AGREEMENT)))
    return [*made, ("mean", *(measure_cell(scores, one) for one in AGREEMENT))]


def with_interval(value: float, interval: Interval | None) -> str:
    if isnan(value):
        return "–"
    if interval is None or isnan(interval.low):
        return rounded(value)
    return f"{rounded(value)} [{rounded(interval.low)}, {rounded(interval.high)}]"


def shown_score(value: float | None) -> str:
    """Score in the form of training's tables."""
    return "–" if value is None else f"{value:.4f}"


def rounded(value: float) -> str:
    return f"{round(value, 3) + 0.0:.3f}"  # + 0.0: nobody wants to read -0.000
