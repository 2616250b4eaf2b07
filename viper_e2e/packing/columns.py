"""packing/columns.py: what each column of a table is taken for, and what only a person can settle."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from viper_e2e.labels import HUME_REACTION, name_of
from viper_e2e.packing.sheet import Sheet
from viper_e2e.packing.task_columns import TaskColumns, placed
from viper_e2e.packing.titles import (
    FILE_TITLES,
    KEPT,
    METADATA,
    PARTS,
    RESERVED,
    SPLIT_TITLES,
    SUBJECT_TITLES,
    plain,
)
from viper_e2e.packing.values import is_missing_word, number, same_class, suspected_codes

SCALE_FACTOR = 5.0
"""A column this many times as large as the others is on no scale of theirs."""


@dataclass(frozen=True)
class ColumnChoices:
    """What a person says of a table where its titles and values leave it open."""

    labels: tuple[str, ...] = ()
    """The columns of emotions; no others are taken as such."""
    ignore: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    """Cells that stand for an empty one, e.g. ``-99``; ``none`` says that there are none."""
    id_column: str = ""
    split_column: str = ""
    subject_column: str = ""
    split: str = ""
    """Of all rows, where the table has no such column."""
    encoding: str = ""
    sheet: str = ""
    meta: tuple[str, ...] = ()
    """Columns that are kept with each clip (age, language), to score groups by; never labels."""
    tasks: tuple[TaskColumns, ...] = ()
    """What the columns mean where they are not all intensities."""


@dataclass
class Columns:
    """Places in the header by what they are, and what is still to be settled."""

    file: int | None = None
    path: int | None = None
    split: int | None = None
    subject: int | None = None
    text: int | None = None
    parts: dict[str, int] = field(default_factory=dict)
    """``Start``, ``End``, ``Side``, as far as they are there."""
    meta: dict[str, int] = field(default_factory=dict)
    """By the name that it has beside each clip."""
    labels: list[int] = field(default_factory=list)
    tasks: tuple[TaskColumns, ...] = ()
    unused: dict[int, str] = field(default_factory=dict)
    """Place → why it is not used."""
    complaints: list[tuple[int, str]] = field(default_factory=list)
    """(line, what is wrong)."""
    settle: dict[str, list[str]] = field(default_factory=dict)
    """Option → what to give it."""
    notes: list[str] = field(default_factory=list)

    def ask(self, line: int, text: str, option: str, value: str) -> None:
        self.complaints.append((line, text))
        if value not in self.settle.setdefault(option, []):
            self.settle[option].append(value)


def looks_like_files(title: str) -> bool:
    return plain(title) in FILE_TITLES


def take_columns(sheet: Sheet, choices: ColumnChoices) -> Columns:
    """What each column is taken for. Nothing that could be otherwise is taken without being told or asked."""
    columns = Columns()
    _check_titles(sheet, columns)
    _take_named(sheet, choices, columns)
    _take_labels(sheet, choices, columns)
    if not columns.labels and not columns.complaints:
        titles = ", ".join(title for title in sheet.header if title)
        columns.complaints.append(
            (
                sheet.header_line,
                f"no emotion columns beside {titles}; add one per emotion, "
                "or say what is predicted, e.g. --tasks Emotion=class",
            )
        )
    return columns


def _check_titles(sheet: Sheet, columns: Columns) -> None:
    at, header = sheet.header_line, sheet.header
    for place, title in enumerate(header):
        if not title:
            cells = [cells[place].strip() for _, cells in sheet.lines if len(cells) > place]
            if not any(cells):
                columns.unused[place] = "empty"
            elif _counts_up(cells):
                columns.unused[place] = "row numbers"
            else:
                columns.complaints.append((at, f"column {place + 1} has no title; name it or remove it"))
        elif re.search(r"[\x00-\x1f\x7f]", title):
            columns.complaints.append((at, f"column {place + 1}: control characters in its title {title!r}"))
        elif header.count(title) > 1 and header.index(title) == place:
            columns.complaints.append((at, f"column {title!r} comes {header.count(title)} times; keep one"))


def _find(sheet: Sheet, wanted: str, option: str, columns: Columns) -> int | None:
    """The column a person named, whatever its case; a complaint with the nearest where there is none."""
    exact = [place for place, title in enumerate(sheet.header) if title == wanted]
    alike = [place for place, title in enumerate(sheet.header) if title and plain(title) == plain(wanted)]
    if exact or len(alike) == 1:
        return (exact or alike)[0]
    near = difflib.get_close_matches(wanted, [title for title in sheet.header if title], n=1, cutoff=0.6)
    there = f"is {near[0]!r} meant?" if near else f"there are {_and_others(sheet.header)}"
    columns.complaints.append((sheet.header_line, f"{option}: no column {wanted!r}; {there}"))
    return None


def _take_named(sheet: Sheet, choices: ColumnChoices, columns: Columns) -> None:
    """Columns that have a name of their own, or were given it on the command line."""
    by_name: dict[str, int] = {}
    for place, title in enumerate(sheet.header):
        by_name.setdefault(plain(title), place)
    for title in choices.ignore:
        if (ignored := _find(sheet, title, "--ignore", columns)) is not None:
            columns.unused[ignored] = "not used (--ignore)"

    for title in choices.meta:
        if (kept := _find(sheet, title, "--meta", columns)) is not None:
            columns.meta[_kept_name(sheet.header[kept])] = kept
    meant = {plain(title) for title in (*choices.labels, *(t for task in choices.tasks for t in task.titles))}

    def take(option: str, wanted: str, name: str) -> int | None:
        if wanted:
            return _find(sheet, wanted, option, columns)
        place = by_name.get(name)
        return None if place in columns.unused else place

    columns.file = take("--id-column", choices.id_column, "fileid")
    columns.path = None if choices.id_column else by_name.get("path")
    columns.split = None if choices.split else take("--split-column", choices.split_column, "split")
    columns.subject = take("--subject-column", choices.subject_column, "subject")
    named = {columns.file, columns.path, columns.split, columns.subject, *columns.unused}
    for name in ("Text", *PARTS, *KEPT):
        known = by_name.get(plain(name))
        if known is None or known in (*named, *columns.meta.values()) or plain(name) in meant:
            continue
        if name == "Text":
            columns.text = known
        elif name in PARTS:
            columns.parts[name] = known
        else:
            columns.meta[name] = known
    if columns.subject is None and "Speaker" in columns.meta:
        columns.notes.append(
            "no column Subject: if who speaks is who is seen, add --subject-column Speaker, so that splits, "
            "folds and intervals keep people apart"
        )
    if columns.file is None and columns.path is None and not choices.id_column:
        columns.file = _ask_for(sheet, columns, "File_ID", "--id-column", FILE_TITLES, "names the clips")
    if columns.split is None and not choices.split and not choices.split_column:
        hint = "names the splits, or --split train for all rows"
        columns.split = _ask_for(sheet, columns, "Split", "--split-column", SPLIT_TITLES, hint)
    if columns.split is None and choices.split and "split" in by_name:
        columns.unused[by_name["split"]] = f"not used (--split {choices.split})"


def _kept_name(title: str) -> str:
    """What a column is called beside each clip: the known ones always alike, whatever their case."""
    return next((name for name in KEPT if plain(name) == plain(title)), title)


def _ask_for(
    sheet: Sheet, columns: Columns, name: str, option: str, titles: Sequence[str], what: str
) -> int | None:
    """A column that must be there is not: name the one that may be it, and go on as if it were."""
    taken = {*columns.unused, *columns.meta.values(), *columns.parts.values(), columns.text}
    free = [title for place, title in enumerate(sheet.header) if title and place not in taken]
    alike = [title for title in free if plain(title) in titles]
    alike.sort(key=lambda title: titles.index(plain(title)))
    near = alike or [title for title in free if _near(title, [name])]
    there = f"no column {name!r} among {', '.join(map(repr, sheet.header))}"
    if near:
        text = f"{there}; is {near[0]!r} meant? rename it, or add {option} {_quoted(near[0])}"
        columns.ask(sheet.header_line, text, option, near[0])
        return sheet.header.index(near[0])
    columns.complaints.append((sheet.header_line, f"{there}; add {option} TITLE if another {what}"))
    return None


def _take_labels(sheet: Sheet, choices: ColumnChoices, columns: Columns) -> None:
    named = {columns.file, columns.path, columns.split, columns.subject, columns.text, *columns.unused}
    named |= {*columns.meta.values(), *columns.parts.values()}
    rest = [place for place, title in enumerate(sheet.header) if title and place not in named]
    if choices.tasks:
        columns.tasks = placed(
            choices.tasks,
            sheet,
            lambda title: _find(sheet, title, "--tasks", columns),
            lambda cell: is_missing(cell, choices.missing) or is_missing_word(cell),
        )
        columns.labels = [place for task in columns.tasks for place in task.places]
        _ask_about_none(sheet, choices, columns)
        columns.unused |= {place: "not used (not in --tasks)" for place in rest if place not in columns.labels}
    elif choices.labels:
        found = [_find(sheet, title, "--labels", columns) for title in choices.labels]
        columns.labels = [place for place in dict.fromkeys(found) if place is not None]
        columns.unused |= {place: "not used (not in --labels)" for place in rest if place not in columns.labels}
        for place in set(columns.labels) & named:
            columns.complaints.append(
                (sheet.header_line, f"--labels: {sheet.header[place]!r} is no emotion here")
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
            times = f"{len(found)} time{'s' * (len(found) > 1)}"
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
        columns.complaints.append((at, f"unknown column {title!r}; is {meant!r} meant?"))
        return
    filled = _filled(sheet, place, choices)
    numeric = [cell for _, cell in filled if number(cell, "either") is not None]
    words = [
        (line, cell)
        for line, cell in filled
        if number(cell, "either") is None and not is_missing_word(cell) and not _like_number(cell)
    ]
    if plain(title) in SUBJECT_TITLES and columns.subject is None:
        text = f"column {title!r} seems to tell who is seen: --subject-column, or --ignore it"
        columns.ask(at, text, "--subject-column", title)
        columns.subject = place
    elif words and not numeric:
        columns.unused[place] = f"text, not used (line {words[0][0]}: {_short(words[0][1])})"
    elif words and len(words) > len(numeric):
        line, word = words[0]
        text = f"column {title!r} holds text (line {line}: {_short(word)}) and numbers: is it an emotion?"
        columns.ask(at, text, "--ignore", title)
    elif why := _no_emotion(title, numeric):
        columns.ask(at, f"column {title!r} holds numbers but {why}: is it an emotion?", "--ignore", title)
    else:
        columns.labels.append(place)


def _filled(sheet: Sheet, place: int, choices: ColumnChoices) -> list[tuple[int, str]]:
    cells = [(line, cells[place].strip()) for line, cells in sheet.lines if len(cells) > place]
    return [(line, cell) for line, cell in cells if cell and not is_missing(cell, choices.missing)]


def is_missing(cell: str, codes: Sequence[str]) -> bool:
    """Whether a cell is one of the codes, as text or as a number."""
    if not codes:
        return False
    if cell.casefold() in {code.casefold() for code in codes}:
        return True
    value = number(cell, "either")
    return value is not None and any(number(code, "either") == value for code in codes)


def _like_number(cell: str) -> bool:
    """Written as a number is, though not as we read one: `1_0`, `1.234,5`, `50 %`, `0x1f`."""
    return bool(re.match(r"[^\w\s]*\d", cell)) and len(re.findall(r"[^\W\d_]", cell)) <= 2


def _no_emotion(title: str, cells: Sequence[str]) -> str | None:
    """Why a column of numbers is hardly one of emotions."""
    spaced = re.sub(r"(?<=[a-zß-ÿ])(?=[A-ZÀ-Þ])", " ", title)
    words = [word.casefold() for word in re.split(r"[\W\d_]+", spaced) if word]
    if found := [word for word in words if word in METADATA]:
        return f"its title says {found[0]!r}"
    if plain(title) in (*FILE_TITLES, *SPLIT_TITLES):
        return f"its title says {title!r}"
    values = _numbers(cells)
    if len(values) >= 5 and _counts_up(cells):
        return "they count up row by row"
    if len(values) >= 3 and all(value.is_integer() and 1900 <= value <= 2100 for value in values):
        return "they look like years"
    return None


def _numbers(cells: Sequence[str]) -> list[float]:
    """Of those that are some."""
    return [value for cell in cells if (value := number(cell, "either")) is not None]


def _counts_up(cells: Sequence[str]) -> bool:
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
        if sizes[-1] <= 2 * sizes[0] and max(map(abs, own)) > SCALE_FACTOR * sizes[-1] > 0:
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


def _meant(sheet: Sheet, titles: Sequence[str]) -> dict[str, str]:
    """Title → the one it is probably a misspelling of.

    A table that is mostly Hume-Reaction's is meant to be all of it: a misspelt title would silently become
    another label set.
    """
    missing = [column for column in HUME_REACTION.columns if column not in titles]
    names = missing if 2 * len(missing) < len(HUME_REACTION) else []
    names = [*names, *(name for name in RESERVED if plain(name) not in map(plain, sheet.header))]
    # A title that is a word of its own (`Subjekt`) is asked about with an option that takes it as it is.
    asked = (*FILE_TITLES, *SPLIT_TITLES, *SUBJECT_TITLES)
    found = {title: _near(title, names) for title in titles if plain(title) not in asked}
    return {title: name for title, name in found.items() if name and name not in ("File_ID", "Split")}


def _near(title: str, names: Sequence[str]) -> str | None:
    """The name that a title probably stands for, ignoring case and punctuation."""
    by_name = {plain(name): name for name in names}
    match = difflib.get_close_matches(plain(title), by_name, n=1, cutoff=0.8)
    return by_name[match[0]] if match else None


def _and_others(header: Sequence[str]) -> str:
    return ", ".join(repr(title) for title in header if title)


def _quoted(title: str) -> str:
    return shlex.quote(title)


def settling(columns: Columns) -> str:
    """The options that settle what was asked, as they are typed."""
    words = []
    for option, titles in columns.settle.items():
        titles = titles[:1] if option in ("--id-column", "--split-column", "--subject-column") else titles
        # A value that begins with - would be taken for an option of its own.
        between = "=" if titles[0].startswith("-") else " "
        words.append(f"{option}{between}{_quoted(','.join(titles))}")
    return " ".join(words)


def _short(cell: str) -> str:
    return repr(cell if len(cell) <= 24 else cell[:23] + "…")


def _listed(values: Iterable[float]) -> str:
    return ", ".join(f"{value:g}" for value in sorted(values))
