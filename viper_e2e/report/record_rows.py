"""record_rows.py: records as a table for the terminal: a row of bars a clip, as wide as there is room."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from viper_e2e.model import Record, is_faceless
from viper_e2e.report.drawing import span_of, words
from viper_e2e.runtime import SteadyConsole

_EIGHTHS = " ▏▎▍▌▋▊▉█"


_LEVELS = "▁▂▃▄▅▆▇█"


_MIN_CLIP_WIDTH = 16


_GAP = 1


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
        made.add_row(*_cells(name, record, emotions, layout, initials))
    if modalities:
        made.caption = Text(_legend(records, initials))
    return made


def _cells(
    name: str, record: Record, emotions: Sequence[str], layout: _Layout, initials: Mapping[str, str]
) -> tuple[Text | str, ...]:
    if not record["valid"]:
        return Text(name, "red"), Text(f"not read: {without_controls(record['error'])}", "red"), "", ""
    seen = Text(" ").join(
        Text(initials[m], "bold") if there else Text("·", "dim") for m, there in record["present"].items()
    )
    values = [record["intensities"][emotion] for emotion in emotions]
    share = record["face_found"]
    faces = Text("–" if share is None else f"{share:.0%}")
    if is_faceless(record):
        faces = Text("none", "bold yellow")
    return Text(name), layout.cell(values), seen, faces


def _legend(records: Sequence[Record], initials: Mapping[str, str]) -> str:
    seen = ", ".join(f"{initial} {words(modality)}" for modality, initial in initials.items())
    legend = f"seen: {seen}, · absent; faces: share of frames with a face"
    if any(map(is_faceless, records)):
        legend += "; none: no face was found (--no-face nan gives no numbers then)"
    return legend


class _Layout:
    """Layout of a clip's intensities in one cell: side by side, or one to a line.

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
    name = without_controls(record["clip"])
    if "window_seconds" not in record:
        return name
    if record["window_seconds"] is None:
        return f"{name} (mean)"
    start, end = record["window_seconds"]
    return f"{name} {start:g}–{end:g} s"


def without_controls(text: str) -> str:
    """A file's name may hold escape sequences; they are shown, not obeyed."""
    return "".join(c if c.isprintable() else "�" for c in text)


def stdout_console() -> Console:
    """Console for results. Piped into a file or a pager, tables are 120 characters wide."""
    fixed = sys.stdout.isatty() or "COLUMNS" in os.environ
    return SteadyConsole(highlight=False, width=None if fixed else 120)
