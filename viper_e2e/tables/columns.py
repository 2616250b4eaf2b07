"""columns.py: the meaning of each column of a table, by its title or the user's choice."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from viper_e2e.errors import did_you_mean
from viper_e2e.tables.column_choices import ColumnChoices, Columns, find_column
from viper_e2e.tables.label_columns import come_again, counts_up, likely_title, take_labels
from viper_e2e.tables.sheet import Sheet
from viper_e2e.tables.titles import (
    FILE_TITLES,
    KEPT,
    PARTS,
    SPLIT_TITLES,
    is_time,
    plain,
    tells_names,
    tells_people,
)


def take_columns(sheet: Sheet, choices: ColumnChoices) -> Columns:
    """Find the meaning of each column. Anything ambiguous is reported or asked about."""
    columns = Columns()
    _check_titles(sheet, columns)
    _take_named(sheet, choices, columns)
    take_labels(sheet, choices, columns)
    _tell_times(sheet, choices, columns)
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


def _tell_times(sheet: Sheet, choices: ColumnChoices, columns: Columns) -> None:
    """Report columns that look like times of clips but are not read: clips would be longer than meant."""
    ignored = set(map(plain, choices.ignore))
    for name in ("Start", "End"):
        alike = [
            sheet.header[place]
            for place in columns.unused
            if is_time(sheet.header[place], name) and plain(sheet.header[place]) not in ignored
        ]
        if alike and name not in columns.parts:
            columns.notes.append(
                f"column {alike[0]!r} is not used; rename it {name} if clips {name.lower()} "
                "there in their files"
            )
    if "Start" in columns.parts and "End" not in columns.parts:
        columns.notes.append("Start without End: clips last to the end of their files (End = Start + length)")


def _check_titles(sheet: Sheet, columns: Columns) -> None:
    at, header = sheet.header_line, sheet.header
    for place, title in enumerate(header):
        if not title:
            cells = [cells[place].strip() for _, cells in sheet.lines if len(cells) > place]
            if not any(cells):
                columns.unused[place] = "empty"
            elif counts_up(cells):
                columns.unused[place] = "row numbers"
            else:
                columns.complaints.append((at, f"column {place + 1} has no title; name it or remove it"))
        elif re.search(r"[\x00-\x1f\x7f]", title):
            columns.complaints.append((at, f"column {place + 1}: control characters in its title {title!r}"))
        elif header.count(title) > 1 and header.index(title) == place:
            columns.complaints.append((at, f"column {title!r} comes {header.count(title)} times; keep one"))


def _take_named(sheet: Sheet, choices: ColumnChoices, columns: Columns) -> None:
    """Columns that have a name of their own, or were given it on the command line."""
    by_name: dict[str, int] = {}
    for place, title in enumerate(sheet.header):
        by_name.setdefault(plain(title), place)
    for title in choices.ignore:
        if (ignored := find_column(sheet, title, "--ignore", columns)) is not None:
            columns.unused[ignored] = "not used (--ignore)"

    for title in choices.meta:
        if (kept := find_column(sheet, title, "--meta", columns)) is not None:
            columns.meta[_kept_name(sheet.header[kept])] = kept
    meant = {plain(title) for title in (*choices.labels, *(t for task in choices.tasks for t in task.titles))}

    def take(option: str, wanted: str, name: str) -> int | None:
        if wanted:
            return find_column(sheet, wanted, option, columns)
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
    if columns.file is None and columns.path is None and not choices.id_column:
        columns.file = _ask_for(sheet, columns, "File_ID", "--id-column", FILE_TITLES, "names the clips")
    if columns.split is None and not choices.split and not choices.split_column:
        hint = "names the splits, or --split train for all rows"
        columns.split = _ask_for(sheet, columns, "Split", "--split-column", SPLIT_TITLES, hint)
        if columns.split is None:
            columns.settle["--split"] = ["train"]
    if columns.split is None and choices.split and "split" in by_name:
        columns.unused[by_name["split"]] = f"not used (--split {choices.split})"
    if columns.subject is None and not choices.subject_column:
        _ask_who(sheet, columns, meant)


def _ask_who(sheet: Sheet, columns: Columns, meant: set[str]) -> None:
    """Nobody is named: ask about a column that seems to do so, or tell of one that is kept with the clips."""
    taken = {columns.file, columns.path, columns.split, columns.text, *columns.parts.values()}
    taken |= {*columns.meta.values(), *columns.unused}
    for place, title in enumerate(sheet.header):
        if place in taken or plain(title) in meant:
            continue
        cells = [cells[place].strip() for _, cells in sheet.lines if len(cells) > place]
        if tells_people(title) or (tells_names(title) and come_again([cell for cell in cells if cell])):
            text = (
                f"column {title!r} seems to name the person in the clip: add --subject-column, or --ignore it"
            )
            columns.ask(sheet.header_line, text, "--subject-column", title)
            columns.subject = place
            return
    if kept := next((title for title in columns.meta if tells_people(title)), None):
        columns.notes.append(
            f"no column Subject: if {kept} names the person in the clip, add --subject-column "
            f"{shlex.quote(kept)}, so that splits, folds and intervals keep people apart"
        )


def _kept_name(title: str) -> str:
    """Name of a column kept with each clip: known ones always the same, whatever their case."""
    return next((name for name in KEPT if plain(name) == plain(title)), title)


def _ask_for(
    sheet: Sheet, columns: Columns, name: str, option: str, titles: Sequence[str], what: str
) -> int | None:
    """A column that must be there is not: name the one that may be it, and go on as if it were."""
    taken = {*columns.unused, *columns.meta.values(), *columns.parts.values(), columns.text}
    free = [title for place, title in enumerate(sheet.header) if title and place not in taken]
    alike = [title for title in free if plain(title) in titles]
    alike.sort(key=lambda title: titles.index(plain(title)))
    near = alike or [title for title in free if likely_title(title, [name])]
    there = f"no column {name!r} among {', '.join(map(repr, sheet.header))}"
    if near:
        text = f"{there}{did_you_mean(near[0])} rename it, or add {option} {shlex.quote(near[0])}"
        columns.ask(sheet.header_line, text, option, near[0])
        return sheet.header.index(near[0])
    columns.complaints.append((sheet.header_line, f"{there}; add {option} TITLE if another {what}"))
    return None
