"""Tables of labels from Excel workbooks and Parquet files, as their programs show them."""

from __future__ import annotations

import io
from datetime import time, timedelta

import pyarrow
import pytest
from pyarrow import parquet
from support.optional import package

from viper_e2e.errors import ViperError
from viper_e2e.packing.table import ColumnChoices, read_labels
from viper_e2e.packing.task_columns import read_tasks


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
        tmp_path / "labels.parquet", ColumnChoices(tasks=read_tasks(str(tmp_path / "tasks.yaml")))
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


def test_a_parquet_file_that_is_none_is_one_line(tmp_path):
    path = tmp_path / "labels.parquet"
    path.write_bytes(b"PAR1" + bytes(50))
    with pytest.raises(ViperError, match="no readable Parquet file"):
        read_labels(path)


def test_a_parquet_file_of_endless_equal_cells_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("viper_e2e.packing.workbook.MAX_CELLS", 1000)
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
    table = read_labels(tmp_path / "labels.csv", ColumnChoices(tasks=read_tasks(str(tmp_path / "tasks.yaml"))))
    assert [row.intensities for row in table.rows] == [(1.0, 0.0), (0.0, 1.0)]
    assert table.problems[0].endswith("line 4: AU2 is 'x', not a number")
