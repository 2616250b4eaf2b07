"""label_columns.py: search for the label columns of a table, by their titles and cells."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from viper_e2e.errors import did_you_mean, nearest
from viper_e2e.labels import HUME_REACTION, name_of
from viper_e2e.runtime import count_of, same_class
from viper_e2e.tables.bad_cells import is_date
from viper_e2e.tables.column_choices import ColumnChoices, Columns, find_column, is_missing
from viper_e2e.tables.sheet import Sheet
from viper_e2e.tables.task_columns import placed
from viper_e2e.tables.titles import (
    FILE_TITLES,
    KNOWN,
    METADATA,
    PARTS,
    RESERVED,
    SPLIT_TITLES,
    is_time,
    plain,
    tells_people,
)
from viper_e2e.tables.values import is_missing_word, number, suspected_codes

MIN_ROWS_OF_KIND = 5
"""Among fewer rows 0 and 1 may be chance."""
SCALE_FACTOR = 5.0
"""A column this many times as large as the others is on no scale of theirs."""
STEPS_FACTOR, SHARES_FACTOR = 3.0, 50.0
"""So many times as large as shares are whole numbers that are answers from 1 to 5, and percent."""


def take_labels(sheet: Sheet, choices: ColumnChoices, columns: Columns) -> None:
    """Sort the remaining columns into labels, text, and questions to ask."""
    named = {columns.file, columns.path, columns.split, columns.subject, columns.text, *columns.unused}
    named |= {*columns.meta.values(), *columns.parts.values()}
    rest = [place for place, title in enumerate(sheet.header) if title and place not in named]
    if choices.tasks:
        columns.tasks = placed(
            choices.tasks,
            sheet,
            lambda title: find_column(sheet, title, "--tasks", columns),
            lambda cell: is_missing(cell, choices.missing) or is_missing_word(cell),
        )
        columns.labels = [place for task in columns.tasks for place in task.places]
        _ask_about_none(sheet, choices, columns)
        columns.unused |= {place: "not used (not in --tasks)" for place in rest if place not in columns.labels}
    elif choices.labels:
        found = [find_column(sheet, title, "--labels", columns) for title in choices.labels]
        columns.labels = [place for place in dict.fromkeys(found) if place is not None]
        columns.unused |= {place: "not used (not in --labels)" for place in rest if place not in columns.labels}
        for place in set(columns.labels) & named:
            columns.complaints.append(
                (sheet.header_line, f"--labels: {sheet.header[place]!r} is not an emotion here")
            )
    else:
        meant = _meant(sheet, [sheet.header[place] for place in rest])
        for place in rest:
            _judge(sheet, place, choices, columns, meant.get(sheet.header[place]))
        _compare_scales(sheet, choices, columns)
    names: dict[str, str] = {}
    for title in (sheet.header[place] for place in columns.labels):
        other = names.setdefault(name_of(title) or plain(title), title)
        if other != title:
            text = f"{other!r} and {title!r} have the same name but for case and punctuation: rename one"
            columns.complaints.append((sheet.header_line, f"two emotion columns: {text}"))
        elif not plain(title):
            columns.complaints.append((sheet.header_line, f"column {title!r}: a name needs letters or digits"))


def _ask_about_none(sheet: Sheet, choices: ColumnChoices, columns: Columns) -> None:
    """`None` among the words of a class is what Python writes for nothing, or a class of that name."""
    for task in columns.tasks:
        if not task.is_words or "none" in map(same_class, task.classes) or is_missing("none", choices.missing):
            continue
        (place,) = task.places
        found = [
            (line, cells[place].strip())
            for line, cells in sheet.lines
            if same_class("".join(cells[place:][:1])) == "none"
        ]
        if found:
            line, word = found[0]
            times = count_of(len(found), "time")
            columns.ask(
                line,
                f"{task.titles[0]} is {word!r} ({times}): no label, or a class? (a class if a file of tasks, "
                "--tasks tasks.yaml, lists it under classes)",
                "--missing",
                word,
            )


def _judge(sheet: Sheet, place: int, choices: ColumnChoices, columns: Columns, meant: str | None) -> None:
    """One column without a name of its own: an emotion, text, or something to ask about."""
    title, at = sheet.header[place], sheet.header_line
    if meant:
        columns.complaints.append((at, f"unknown column {title!r}{did_you_mean(meant)}"))
        return
    filled = _filled(sheet, place, choices)
    numeric = [cell for _, cell in filled if number(cell, "either") is not None]
    words = [
        (line, cell)
        for line, cell in filled
        if number(cell, "either") is None
        and not is_missing_word(cell)
        and (is_date(cell) or not _like_number(cell))
    ]
    if words and not numeric:
        first = words[0]
        hint = _uses_of(title, columns) if come_again([same_class(word) for _, word in words]) else ""
        columns.unused[place] = f"text, not used (line {first[0]}: {_short(first[1])}{hint})"
    elif words and len(words) > len(numeric):
        line, word = words[0]
        text = f"column {title!r} holds text (line {line}: {_short(word)}) and numbers: is it an emotion?"
        columns.ask(at, text, "--ignore", title)
    elif why := _no_emotion(title, numeric, sheet.header):
        times = (f" (rename it {name} if clips {name.lower()} there)" for name in PARTS if is_time(title, name))
        text = f"column {title!r} holds numbers but {why}: is it an emotion?{next(times, '')}"
        columns.ask(at, text, "--ignore", title)
    else:
        columns.labels.append(place)


def come_again(cells: Sequence[str]) -> bool:
    """Whether cells are the same again and again, as classes and people are."""
    return 0 < 2 * len(set(cells)) <= len(cells)


def _uses_of(title: str, columns: Columns) -> str:
    """Possible uses of a column of recurring words."""
    learned = f"; learned by --tasks {shlex.quote(f'{title}=class')}"
    return (
        learned
        if columns.subject is not None
        else (f"{learned}; if it names people: --subject-column {shlex.quote(title)}")
    )


def _filled(sheet: Sheet, place: int, choices: ColumnChoices) -> list[tuple[int, str]]:
    cells = [(line, cells[place].strip()) for line, cells in sheet.lines if len(cells) > place]
    return [(line, cell) for line, cell in cells if cell and not is_missing(cell, choices.missing)]


def _like_number(cell: str) -> bool:
    """Written as a number is, though not as we read one: `1_0`, `1.234,5`, `50 %`, `0x1f`."""
    return bool(re.match(r"[^\w\s]*\d", cell)) and len(re.findall(r"[^\W\d_]", cell)) <= 2


def _no_emotion(title: str, cells: Sequence[str], header: Sequence[str]) -> str | None:
    """Why a column of numbers is hardly one of emotions."""
    spaced = re.sub(r"(?<=[a-zß-ÿ])(?=[A-ZÀ-Þ])", " ", title)
    words = [word.casefold() for word in re.split(r"[\W\d_]+", spaced) if word]
    if found := [word for word in words if word in METADATA]:
        return f"its title says {found[0]!r}"
    if plain(title) in (*FILE_TITLES, *SPLIT_TITLES, *map(plain, KNOWN)):
        return f"its title says {title!r}"
    if (numbered := re.fullmatch(r"(.+)\.[0-9]+", title)) and numbered[1] in header:
        return f"is called as pandas calls a second {numbered[1]!r}"
    values = _numbers(cells)
    if len(values) >= 5 and counts_up(cells):
        return "they count up row by row"
    if len(values) >= 3 and all(value.is_integer() and 1900 <= value <= 2100 for value in values):
        return "they look like years"
    return None


def _numbers(cells: Sequence[str]) -> list[float]:
    """The numbers among these cells."""
    return [value for cell in cells if (value := number(cell, "either")) is not None]


def counts_up(cells: Sequence[str]) -> bool:
    if not cells or not all(re.fullmatch(r"\d+", cell) for cell in cells):
        return False
    steps = {int(b) - int(a) for a, b in pairwise(cells)}
    return steps <= {1} and int(cells[0]) in (0, 1)


def _compare_scales(sheet: Sheet, choices: ColumnChoices, columns: Columns) -> None:
    """Ask about a column whose values are on no scale of the others, or are codes among measurements."""
    values = {}
    for place in columns.labels:
        found = _numbers([cell for _, cell in _filled(sheet, place, choices)])
        codes = set(suspected_codes(found))
        values[place] = [value for value in found if value not in codes]
    for place in list(columns.labels):
        others = [found for other, found in values.items() if other != place and found]
        own = values[place]
        if len(others) < 2 or not own:
            continue
        sizes = sorted(max(map(abs, found)) for found in others)
        title, at = sheet.header[place], sheet.header_line
        span = f"{min(own):g} … {max(own):g}"
        if sizes[-1] <= 2 * sizes[0] and max(map(abs, own)) >= SCALE_FACTOR * sizes[-1] > 0:
            text = f"column {title!r} ({span}) is on another scale than the others: is it an emotion?"
        elif (
            len(own) >= 5
            and len(set(own)) <= 3
            and all(value.is_integer() for value in own)
            and min(own) >= 0
            and max(own) > 1
            and all(not all(value.is_integer() for value in found) for found in others)
        ):
            text = f"column {title!r} holds nothing but {_listed(set(own))}, a code rather than a measure"
        else:
            continue
        columns.labels.remove(place)
        columns.ask(at, text, "--ignore", title)
    _tell_scales(sheet, columns, {place: values[place] for place in columns.labels if values[place]})
    _tell_kind(sheet, columns)


def _tell_scales(sheet: Sheet, columns: Columns, values: Mapping[int, Sequence[float]]) -> None:
    """Intensities have one range: say it where two columns are hardly of one."""
    sizes = sorted((max(map(abs, found)), place) for place, found in values.items())
    if len(sizes) < 2 or not sizes[0][0]:
        return
    (low, small), (high, large) = sizes[0], sizes[-1]
    are_steps = all(value.is_integer() for value in values[large])
    is_share = not all(value.is_integer() for value in values[small])
    if high / low >= (STEPS_FACTOR if are_steps and is_share else SHARES_FACTOR):
        spans = " and ".join(
            f"{sheet.header[at]} ({min(values[at]):g} … {max(values[at]):g})" for at in (small, large)
        )
        columns.notes.append(
            f"{spans} are hardly on one scale, but intensities have one range: rescale them, or make "
            "tasks of them (--tasks)"
        )


def _tell_kind(sheet: Sheet, columns: Columns) -> None:
    """Columns of 0 and 1 are taken for intensities: say how they are learned as what they are."""
    rows = [
        [number(cells[at], "either") for at in columns.labels if at < len(cells)] for _, cells in sheet.lines
    ]
    known = [row for row in rows if None not in row]
    if (
        len(columns.labels) < 2
        or len(known) < MIN_ROWS_OF_KIND
        or not {v for row in known for v in row} <= {0, 1}
    ):
        return
    is_class = all(sum(value or 0 for value in row) == 1 for row in known)
    kind, told = (
        ("class", "of which one is 1 in each row") if is_class else ("labels", "of nothing but 0 and 1")
    )
    titles = ", ".join(sheet.header[at] for at in columns.labels)
    columns.notes.append(
        f"{titles}, {told}, are taken for intensities; `emotion: {{kind: {kind}, columns: [{titles}]}}` in a "
        f"file of --tasks learns them as {'one class' if is_class else 'labels'}"
    )


def _meant(sheet: Sheet, titles: Sequence[str]) -> dict[str, str]:
    """Title → the one it is probably a misspelling of.

    A table that is mostly Hume-Reaction's is meant to be all of it: a misspelt title would silently become
    another label set.
    """
    missing = [column for column in HUME_REACTION.columns if column not in titles]
    names = missing if 2 * len(missing) < len(HUME_REACTION) else []
    names = [*names, *(name for name in RESERVED if plain(name) not in map(plain, sheet.header))]
    # A title that is a word of its own (`Subjekt`) is asked about with an option that takes it as it is.
    asked = (*FILE_TITLES, *SPLIT_TITLES)
    unasked = [title for title in titles if plain(title) not in asked and not tells_people(title)]
    found = {title: likely_title(title, names) for title in unasked}
    return {title: name for title, name in found.items() if name and name not in ("File_ID", "Split")}


def likely_title(title: str, names: Sequence[str]) -> str | None:
    """The name that a title probably stands for, ignoring case and punctuation."""
    by_name = {plain(name): name for name in names}
    near = nearest(plain(title), by_name, likeness=0.8)
    return None if near is None else by_name[near]


def _short(cell: str) -> str:
    return repr(cell if len(cell) <= 24 else cell[:23] + "…")


def _listed(values: Iterable[float]) -> str:
    return ", ".join(f"{value:g}" for value in sorted(values))
