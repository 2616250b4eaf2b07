"""Cells that are no longer a number or a name are refused with what to write, in every format."""

from __future__ import annotations

import csv
from datetime import datetime

import pyarrow
import pytest
from pyarrow import parquet
from support.optional import package

from viper_e2e.tables import ColumnChoices, read_labels, read_tasks
from viper_e2e.tables.likely_mistakes import oddities_of

FORMATS = ("csv", "tsv", "xlsx", "parquet")
DAY = datetime(2026, 1, 2)


def table(folder, form: str, titles: str, *rows: tuple[object, ...], shown_as: str = "d-mmm"):
    """A file of this format; ``shown_as``: the format of dates in the workbook."""
    path, head = folder / f"labels.{form}", titles.split()
    if form == "parquet":
        columns = {title: [str(cell) for cell in cells] for title, *cells in zip(head, *rows, strict=True)}
        parquet.write_table(pyarrow.table(columns), path)
    elif form == "xlsx":
        book = package("openpyxl").Workbook()
        for row in (head, *rows):
            book.active.append(row)
        for row in book.active:
            for cell in row:
                cell.number_format = shown_as if cell.is_date else cell.number_format
        book.save(path)
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, delimiter="\t" if form == "tsv" else ",").writerows([head, *rows])
    return path


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("cell", "write"),
    [
        ("50%", "write 0.5 (or 50 in every row)"),
        ("12,5 %", "write 0.125 (or 12.5 in every row)"),
        ("0.5 s", "write 0.5"),
        ("- 0.5", "write -0.5"),
        ("1\u00a0000", "write 1000"),
        ("1\u202f234,5", "write 1234.5"),
        ("1'234.5", "write 1234.5"),
        ("1.234.567", "write 1234567"),
        ("\uff11", "write 1"),
        ("½", "write one such as 0.5"),
        ("5²", "write one such as 0.5"),
        ("05. Mrz", "but a date, as spreadsheets make of 3.5"),
        ("3-May", "but a date, as spreadsheets make of 3.5"),
        (DAY, "but a date, as spreadsheets make of 3.5"),
        ("—", "--missing — if it stands for an empty cell"),
    ],
)
def test_a_label_that_is_no_number_says_what_to_write(tmp_path, form, cell, write):
    rows = ("a", "train", 0.25), ("b", "train", cell), ("c", "train", 0.5), ("d", "val", 0.75)
    path = table(tmp_path, form, "File_ID Split Joy", *rows)
    found = read_labels(path)
    assert [row.key for row in found.rows] == ["a", "c", "d"]
    (problem,) = found.problems
    assert problem.startswith(f"{path}: line 3: Joy is {str(cell)!r}, not a number")
    assert write in problem


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("cell", ["\u22120.5", "\u20130.5", "\u00a0-0.5\u202f", "\u200e-0.5\ufeff", "-,5"])
def test_signs_and_spaces_that_mean_one_thing_are_understood(tmp_path, form, cell):
    is_comma = "," in cell
    path = table(
        tmp_path, form, "File_ID Split Joy", ("a", "train", cell), ("b", "val", ["0.5", "0,5"][is_comma])
    )
    assert [row.intensities for row in read_labels(path).rows] == [(-0.5,), (0.5,)]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("cell", "write"),
    [("0.5 s", "write 0.5"), ("500 ms", "write 0.5"), ("2 min", "write 120"), ("1 200", "write 1200")],
)
def test_a_time_with_its_unit_says_what_to_write(tmp_path, form, cell, write):
    path = table(tmp_path, form, "File_ID Split Start Joy", ("a", "train", cell, 0.5), ("b", "train", 1, 0.5))
    (problem,) = read_labels(path).problems
    assert problem == f"{path}: line 2: Start is {cell!r}, neither seconds nor hh:mm:ss.mmm: {write}"


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("title", ["File_ID", "Subject", "Fold", "Speaker", "Age"])
def test_a_name_that_a_spreadsheet_made_a_date_is_refused(tmp_path, form, title):
    rows = [["a", "train", "1-1", 0.5], ["b", "train", DAY, 0.5]]
    if title == "File_ID":
        rows = [[row[2], row[1], row[0], row[3]] for row in rows]
    path = table(
        tmp_path,
        form,
        "File_ID Split Subject Joy".replace("Subject", title if title != "File_ID" else "Text"),
        *rows,
    )
    found = read_labels(path)
    assert len(found.rows) == 1
    (problem,) = found.problems
    assert problem.startswith(
        f"{path}: line 3: {title} is '2026-01-02 00:00:00', a date, as spreadsheets make of 1-2"
    )
    assert "format the column as text" in problem


def test_a_class_that_a_spreadsheet_made_a_date_is_none_of_the_classes(tmp_path):
    rows = ("a", "train", "1-1"), ("b", "train", DAY), ("c", "val", "other")
    found = read_labels(
        table(tmp_path, "xlsx", "File_ID Split Pair", *rows),
        ColumnChoices(tasks=read_tasks("Pair=class").columns),
    )
    assert found.labels.columns == ("pair 1-1", "pair other")
    assert "Pair is '2026-01-02 00:00:00', a date" in found.problems[0]


def test_a_day_that_a_sheet_shows_whole_is_the_name_it_shows(tmp_path):
    path = table(tmp_path, "xlsx", "File_ID Split Joy", (DAY, "train", 0.5), shown_as="yyyy-mm-dd")
    assert [row.key for row in read_labels(path).rows] == ["2026-01-02"]


@pytest.mark.parametrize("form", FORMATS)
def test_a_long_number_that_a_spreadsheet_rounded_is_no_subject(tmp_path, form):
    path = table(
        tmp_path, form, "File_ID Split Subject Joy", ("a", "train", "1.23457E+11", 0.5), ("b", "val", "P2", 1)
    )
    (problem,) = read_labels(path).problems
    assert "Subject is '1.23457E+11', a long number that a spreadsheet has rounded" in problem


def test_names_that_look_like_dates_are_told(tmp_path):
    rows = ("a", "train", "2-Jan", "Mar-21", 0.5), ("b", "val", "P2", "s1", 1), ("c", "val", "P-2", "s-1", 1)
    table_read = read_labels(table(tmp_path, "csv", "File_ID Split Subject Session Joy", *rows))
    told = [line for line in oddities_of(table_read) if "a spreadsheet made" in line]
    assert [line.partition(": dates")[0] for line in told] == ["Subject: '2-Jan'", "Session: 'Mar-21'"]


def test_columns_of_dates_are_no_labels(tmp_path):
    rows = ("a", "train", 0.1, DAY), ("b", "train", 0.2, DAY), ("c", "val", 0.3, DAY)
    found = read_labels(table(tmp_path, "xlsx", "File_ID Split Joy Rated", *rows))
    assert (found.labels.columns, len(found.rows)) == (("Joy",), 3)


def test_a_table_of_nothing_but_percent_says_what_to_write(tmp_path):
    path = table(tmp_path, "csv", "File_ID Split Joy", ("a", "train", "50%"), ("b", "val", "20%"))
    assert all("write 0." in problem for problem in read_labels(path).problems)
