"""tables.py: records and scores as tables for the terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from math import isnan
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from viper_e2e.model import Record, is_faceless
from viper_e2e.report.figures import span_of, words
from viper_e2e.runtime import SteadyConsole
from viper_e2e.scoring import MAIN_MEASURE, GroupScores, Interval, Intervals, Scores, TaskReport, TaskScores
from viper_e2e.tasks import Task

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_LEVELS = "▁▂▃▄▅▆▇█"
_MIN_CLIP_WIDTH = 16
_GAP = 1


def stdout_console() -> Console:
    """Where results go. Piped into a file or a pager, tables are 120 characters wide."""
    fixed = sys.stdout.isatty() or "COLUMNS" in os.environ
    return SteadyConsole(highlight=False, width=None if fixed else 120)


def bar(value: float, width: int) -> str:
    """A value in [0, 1] (clamped) as a horizontal bar of ``width`` cells, in steps of an eighth."""
    eighths = round(min(max(value, 0.0), 1.0) * width * 8)
    full, part = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[part] if part else "")).ljust(width)


def signed_bar(value: float, limits: tuple[float, float], width: int) -> str:
    """A value as a horizontal bar from where zero is in ``limits``: to the left of it what is negative."""
    start, end = span_of(value, limits)
    zero = round(span_of(0.0, limits)[0] * width)
    if value >= 0:
        return " " * zero + bar((end - start) * width / max(width - zero, 1), width - zero)
    # There are no blocks that grow from the right, but for the half one.
    full, half = divmod(min(round((end - start) * width * 2), zero * 2), 2)
    return " " * (zero - full - half) + "▐" * half + "█" * full + " " * (width - zero)


def records_table(
    records: Sequence[Record],
    emotions: Sequence[str],
    *,
    width: int | None = None,
    limits: tuple[float, float] = (0.0, 1.0),
) -> Table:
    """One row per clip: its intensities with bars, which modalities were there, how often a face was.

    A clip that could not be read has the reason in its row. ``width`` is the terminal's, in characters
    (None: as it is now); in a narrow one the bars shrink, then every emotion gets a line of its own.
    ``limits`` are the smallest and the largest value; bars begin where zero is. A clip in which no face was
    found is marked; what has no number has a dash.
    """
    width = width or stdout_console().width
    modalities = list(records[0]["present"]) if records else []
    initials = _initials(modalities)
    clips = [_clip_name(record) for record in records]
    seen_width = max(4, sum(len(initials[m]) + 1 for m in modalities) - 1)
    room = width - seen_width - len("faces") - 3 * _GAP
    longest = max([_MIN_CLIP_WIDTH, *map(len, clips)])
    clip_width = min(longest, max(_MIN_CLIP_WIDTH, width // 4))
    layout = _Layout.fitting(emotions, room, clip_width, limits, few=len(records) <= 4)

    padding = (0, _GAP, 0, 0)
    made = Table(box=None, pad_edge=False, padding=padding, header_style="bold", caption_justify="left")
    made.add_column("clip", width=max(8, min(longest, room - layout.width)), overflow="fold")
    made.add_column(layout.header(), width=layout.width)
    made.add_column("seen", width=seen_width, no_wrap=True)
    made.add_column("faces", justify="right", no_wrap=True)
    for name, record in zip(clips, records, strict=True):
        if not record["valid"]:
            made.add_row(Text(name, "red"), Text(f"not read: {_printable(record['error'])}", "red"), "", "")
            continue
        seen = Text(" ").join(
            Text(initials[m], "bold") if there else Text("·", "dim") for m, there in record["present"].items()
        )
        values = [record["intensities"][emotion] for emotion in emotions]
        share = record["face_found"]
        faces = Text("–" if share is None else f"{share:.0%}")
        if is_faceless(record):
            faces = Text("none", "bold yellow")
        made.add_row(Text(name), layout.cell(values), seen, faces)
    if modalities:
        legend = ", ".join(f"{initials[m]} {words(m)}" for m in modalities)
        legend = f"seen: {legend}, · absent; faces: share of frames with a face"
        if any(map(is_faceless, records)):
            legend += "; none: no face was found (--no-face nan gives no numbers then)"
        made.caption = Text(legend)
    return made


def metrics_table(
    scores: Scores, intervals: Intervals | None = None, *, title: str = "", over: str = "clips"
) -> Table:
    """Pearson, CCC and MSE per emotion and as means, each with its 95 % interval where there is one.

    ``over``: what the intervals are over.
    """
    made = plain_table(title, ("emotion", "Pearson", "CCC", "MSE"))
    for row in metrics_rows(scores, intervals):
        made.add_row(*(Text(cell, "bold" if row[0] == "mean" else "") for cell in row))
    note = f"{scores.num_clips:,} clips"
    note += f"; in brackets 95 % bootstrap intervals over {over}" if intervals else ""
    made.caption = Text(f"{note}; {scores.note}" if scores.note else note)
    made.caption_justify = "left"
    return made


MEASURES = {
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
    "ece": "ECE",
    "brier": "Brier",
}
"""As papers write them."""


def task_tables(scores: TaskScores) -> list[Table]:
    """A task's measures, each with its 95 % interval, and of its classes or labels recall, precision and F1."""
    kind = f"{scores.task.name} ({scores.task.kind}), {scores.num_clips:,} clips"
    whole = plain_table(kind, ("measure", "value"))
    for name, value in scores.values.items():
        whole.add_row(MEASURES[name], with_interval(value, scores.intervals.get(name)))
    if not scores.by_column:
        return [whole]
    each = plain_table(
        "", ("label" if scores.task.kind == "labels" else "class", "recall", "precision", "F1", "clips")
    )
    for column, row in scores.by_column.items():
        shares = (with_interval(row[measure], None) for measure in ("recall", "precision", "f1"))
        each.add_row(words(column), *shares, f"{row['num_clips']:,.0f}")
    return [whole, each]


def calibration_table(report: TaskReport) -> Table:
    """A task before and after calibrating, on the clips that it was not fitted on."""
    made = plain_table(f"{report.task.name} ({report.task.kind})", ("measure", "before", "after"))
    for name, before in report.before.items():
        made.add_row(MEASURES[name], with_interval(*before), with_interval(*report.after[name]))
    fitted = report.fitted
    told = f"fitted on {fitted.num_fitted:,} clips, measured on {fitted.num_held_out:,} others; "
    made.caption, made.caption_justify = Text(told + _fitted_in_words(report)), "left"
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
    """A table per task: each group's main measures, and the largest gap."""
    made = []
    for task in next(iter(scores.groups.values()), {}):
        measures = list(next(iter(scores.groups.values()))[task].values)[:2]
        of_task = "" if task == "intensities" else f"{task}, "
        table = plain_table(
            f"{of_task}by {scores.name}", (scores.name, *(MEASURES[name] for name in measures), "clips")
        )
        for group, by_task in scores.groups.items():
            one = by_task[task]
            values = (with_interval(one.values[name], one.intervals.get(name)) for name in measures)
            table.add_row(_printable(group), *values, f"{one.num_clips:,}")
        gap = scores.gap(task)
        main = MEASURES[MAIN_MEASURE[next(iter(scores.groups.values()))[task].task.kind]]
        if gap is not None:
            table.caption, table.caption_justify = Text(f"largest gap in {main}: {gap:.3f}"), "left"
        made.append(table)
    return made


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


class _Layout:
    """How the intensities of a clip stand in one cell: side by side, or one to a line.

    They share a cell so that the reason why a clip could not be read has room in the same place.
    """

    def __init__(self, emotions: Sequence[str], each: int, side_by_side: bool, limits: tuple[float, float]):
        self.emotions, self.each, self.side_by_side = emotions, each, side_by_side
        self.low, self.high = limits
        # As wide as the largest number of the range: "0.72", "-0.31", "65.20".
        self.number = max(len(f"{limit:.2f}") for limit in limits)
        self.width = len(emotions) * (each + _GAP) - _GAP if side_by_side else each

    @classmethod
    def fitting(
        cls, emotions: Sequence[str], room: int, clip_width: int, limits: tuple[float, float], *, few: bool
    ) -> _Layout:
        """Side by side with whole names; else, for many clips, with cut names and small bars; else stacked."""
        least = max(len(f"{limit:.2f}") for limit in limits) + 2
        wanted = max([least + 3, *(len(word) for name in emotions for word in words(name).split())])

        def width_of_one(clip_width: int) -> int:
            return (room - clip_width) // max(1, len(emotions)) - _GAP

        if width_of_one(clip_width) >= wanted:
            return cls(emotions, wanted, True, limits)
        if not few and (each := width_of_one(_MIN_CLIP_WIDTH)) >= least:
            return cls(emotions, min(each, wanted), True, limits)
        return cls(emotions, max(room - clip_width, 24), False, limits)

    def header(self) -> Text:
        if not self.side_by_side:
            return Text("intensity")
        lines = [words(name).split() for name in self.emotions]
        height = max((len(parts) for parts in lines), default=1)
        padded = [[*parts, *[""] * (height - len(parts))] for parts in lines]
        rows = [" ".join(_cut(part[i], self.each).ljust(self.each) for part in padded) for i in range(height)]
        return Text("\n".join(rows), no_wrap=True)

    def cell(self, values: Sequence[float | None]) -> Text:
        if self.side_by_side:
            return Text(" ").join(self._one(value, self.each) for value in values)
        name_width = min(max(len(words(name)) for name in self.emotions), self.width // 2)
        rest = self.width - name_width - 1
        lines = [
            Text(_cut(words(name), name_width).ljust(name_width) + " ") + self._one(value, rest)
            for name, value in zip(self.emotions, values, strict=True)
        ]
        return Text("\n").join(lines)

    def _one(self, value: float | None, width: int) -> Text:
        if value is None:
            return Text("–".rjust(self.number).ljust(width), style="dim")
        room, limits = width - self.number - 1, (self.low, self.high)
        share = min(max((value - self.low) / ((self.high - self.low) or 1.0), 0.0), 1.0)
        drawn = signed_bar(value, limits, room) if room > 1 else _LEVELS[min(int(share * 8), 7)]
        text = Text(f"{value:{self.number}.2f} ")
        text.append(drawn, style="cyan")
        return text


def _cut(word: str, width: int) -> str:
    return word if len(word) <= width else word[: width - 1] + "…"


def _initials(modalities: Sequence[str]) -> dict[str, str]:
    """The first letter, or where two modalities (audio, action units) share it, of each word."""
    firsts = [name[0] for name in modalities]
    return {
        name: "".join(word[0] for word in name.split("_")).upper()
        if firsts.count(name[0]) > 1
        else name[0].upper()
        for name in modalities
    }


def _clip_name(record: Record) -> str:
    """The clip, and in a table of windows which of them, or that it is their mean."""
    name = _printable(record["clip"])
    if "window_seconds" not in record:
        return name
    if record["window_seconds"] is None:
        return f"{name} (mean)"
    start, end = record["window_seconds"]
    return f"{name} {start:g}–{end:g} s"


def _printable(text: str) -> str:
    """A file's name may hold escape sequences; they are shown, not obeyed."""
    return "".join(c if c.isprintable() else "�" for c in text)
