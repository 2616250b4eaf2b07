"""Tables of labels from Excel workbooks and Parquet files, as their programs show them."""

from __future__ import annotations

import io
from datetime import time, timedelta

import pyarrow
import pytest
from pyarrow import parquet
from support.optional import package

from viper_e2e.errors import ViperError
from viper_e2e.tables.table import ColumnChoices, read_labels
from viper_e2e.tables.task_columns import read_tasks


def test_a_parquet_file_is_a_table(tmp_path):
    words = pyarrow.array(["joy", None, "fear", "joy"]).dictionary_encode()
    columns = {
        "File_ID": ["a", "b", "c", "d"],
        "Split": pyarrow.array(["train"] * 3 + ["val"]).dictionary_encode(),
        "Emotion": words,
        "Valence": pyarrow.array([0.5, float("nan"), None, -1.0], pyarrow.float32()),
        "AU1": [True, False, None, True],
        "Rated": pyarrow.array([1.0, None, 3.0, 2.0]),
        "__index_level_0__": [0, 1, 2, 3],
    }
    parquet.write_table(pyarrow.table(columns), tmp_path / "labels.parquet")
    tasks = (
        "emotion: {kind: class}\nvalence: {kind: number, range: [-1, 1]}\nu: {kind: labels, columns: [AU1]}\n"
    )
    (tmp_path / "tasks.yaml").write_text(tasks + "r: {kind: class, columns: [Rated]}\n")
    table = read_labels(
        tmp_path / "labels.parquet", ColumnChoices(tasks=read_tasks(str(tmp_path / "tasks.yaml")).columns)
    )
    assert table.problems == ()
    assert table.labels.columns == (*("emotion fear", "emotion joy", "valence", "u AU1", "r 1", "r 2", "r 3"),)
    nan = pytest.approx(float("nan"), nan_ok=True)
    assert [row.intensities for row in table.rows] == [
        (0, 1, 0.5, 1, 1, 0, 0),
        (nan, nan, nan, 0, nan, nan, nan),
        (1, 0, nan, nan, 0, 0, 1),
        (0, 1, -1, 1, 0, 1, 0),
    ]
    assert [row.line for row in table.rows] == [2, 3, 4, 5]


def test_text_that_a_parquet_file_holds_as_bytes_is_text(tmp_path):
    columns = {"File_ID": ["ä".encode(), b"b"], "Split": [b"train", b"val"], "Joy": [0.5, 0.1]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "labels.parquet")
    assert [row.file_id for row in read_labels(tmp_path / "labels.parquet").rows] == ["ä", "b"]


def test_a_parquet_file_that_is_none_is_one_line(tmp_path):
    path = tmp_path / "labels.parquet"
    path.write_bytes(b"PAR1" + bytes(50))
    with pytest.raises(ViperError, match="not a readable Parquet file"):
        read_labels(path)


def test_a_parquet_file_of_endless_equal_cells_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("viper_e2e.tables.workbook.MAX_CELLS", 1000)
    table = pyarrow.table({"File_ID": ["a"] * 2000, "Joy": [0.5] * 2000})
    parquet.write_table(table, tmp_path / "labels.parquet")
    with pytest.raises(ViperError, match="4,000 cells"):
        read_labels(tmp_path / "labels.parquet")


def workbook(*rows: tuple[object, ...]) -> bytes:
    book = package("openpyxl").Workbook()
    for row in rows:
        book.active.append(row)
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def test_formulas_that_nobody_calculated_are_no_empty_cells(tmp_path):
    path = tmp_path / "labels.xlsx"
    path.write_bytes(workbook(("File_ID", "Split", "Joy"), ("a", "train", "=0.1+0.2"), ("b", "train", 0.5)))
    with pytest.raises(ViperError, match=r"C2 of sheet 'Sheet' is a formula that was never calculated"):
        read_labels(path)


def test_times_are_those_that_the_sheet_shows(tmp_path):
    book = package("openpyxl").Workbook()
    sheet = book.active
    sheet.append(["File_ID", "Path", "Split", "Start", "End", "Joy"])
    sheet.append(["a", "f.mp4", "train", time(1, 30), time(1, 45), 0.5])
    sheet.append(["b", "f.mp4", "train", time(0, 1, 30), timedelta(seconds=97.25), 0.5])
    for row, shown_as in ((2, "h:mm"), (3, "[h]:mm:ss.00")):
        for column in (4, 5):
            sheet.cell(row, column).number_format = shown_as
    book.save(tmp_path / "labels.xlsx")
    rows = read_labels(tmp_path / "labels.xlsx").rows
    assert [row.segment.span for row in rows if row.segment] == [(90.0, 105.0), (90.0, 97.25)]


def test_labels_may_be_words_for_yes_and_no(tmp_path):
    (tmp_path / "labels.csv").write_text(
        "File_ID,Split,AU1,AU2\na,train,TRUE,no\nb,train,False,yes\nc,train,1,x\n"
    )
    (tmp_path / "tasks.yaml").write_text("u: {kind: labels, columns: [AU1, AU2]}")
    table = read_labels(
        tmp_path / "labels.csv", ColumnChoices(tasks=read_tasks(str(tmp_path / "tasks.yaml")).columns)
    )
    assert [row.intensities for row in table.rows] == [(1.0, 0.0), (0.0, 1.0)]
    assert "line 4: AU2 is 'x', not a number" in table.problems[0]


def four_clips(path, change) -> None:
    """A sheet of four clips of two people, changed."""
    book = package("openpyxl").Workbook()
    sheet = book.active
    rows = [("File_ID", "Split", "Subject", "Joy", "Fear"), ("a", "train", "P1", 0.1, 0.2)]
    for row in [
        *rows,
        ("b", "train", "P1", 0.3, 0.4),
        ("c", "val", "P2", 0.5, 0.6),
        ("d", "val", "P2", 0.7, 0.8),
    ]:
        sheet.append(row)
    change(book, sheet)
    book.save(path)


def test_hidden_rows_and_columns_are_read_and_said(tmp_path):
    def hide(_, sheet):
        sheet.auto_filter.ref = "A1:E5"
        for row in (3, 5):
            sheet.row_dimensions[row].hidden = True
        for column in "DE":
            sheet.column_dimensions[column].hidden = True

    four_clips(tmp_path / "labels.xlsx", hide)
    table = read_labels(tmp_path / "labels.xlsx")
    assert [row.file_id for row in table.rows] == ["a", "b", "c", "d"]
    (told,) = (note for note in table.notes if "hidden" in note)
    assert (
        "2 hidden rows (line 3, 5; delete those that should not be packed), 2 hidden columns (Joy, Fear)"
        in told
    )


def test_cells_merged_with_those_below_hold_for_all_of_their_rows(tmp_path):
    def merge(_, sheet):
        sheet.merge_cells("C2:C3")
        sheet.merge_cells("C4:C5")
        sheet.merge_cells("D5:E5")

    four_clips(tmp_path / "labels.xlsx", merge)
    table = read_labels(tmp_path / "labels.xlsx")
    assert {row.file_id: row.subject for row in table.rows} == {"a": "P1", "b": "P1", "c": "P2"}
    (told,) = (note for note in table.notes if "merged" in note)
    assert "2 merged cells, whose value is used in each row (line 2, 4)" in told
    assert "1 cell merged over several columns, whose value counts for the first column only (line 5)" in told
    assert "line 5: Fear empty" in table.problems[0]


def test_a_merged_cell_makes_no_rows_below_the_last(tmp_path):
    four_clips(tmp_path / "labels.xlsx", lambda _, sheet: sheet.merge_cells("C4:C900"))
    table = read_labels(tmp_path / "labels.xlsx")
    assert table.problems == ()
    assert [row.subject for row in table.rows] == ["P1", "P1", "P2", "P2"]


def test_a_hidden_sheet_gives_way_to_one_that_is_shown(tmp_path):
    def older(book, sheet):
        other = book.copy_worksheet(sheet)
        other.title, other.sheet_state = "old", "hidden"
        other["A2"] = "z"

    four_clips(tmp_path / "labels.xlsx", older)
    table = read_labels(tmp_path / "labels.xlsx")
    assert table.rows[0].file_id == "a"
    assert "hidden sheet 'old' left out (--sheet takes it)" in table.notes[0]
    assert read_labels(tmp_path / "labels.xlsx", ColumnChoices(sheet="old")).rows[0].file_id == "z"


def test_a_hidden_sheet_that_is_the_only_table_is_read_and_said(tmp_path):
    def put_away(book, sheet):
        sheet.sheet_state = "hidden"
        book.create_sheet("about")["A1"] = "made by hand"

    four_clips(tmp_path / "labels.xlsx", put_away)
    table = read_labels(tmp_path / "labels.xlsx")
    assert len(table.rows) == 4
    assert ", which is hidden" in table.notes[0]
