"""What `viper pack` tells of a table that is packed as it is, but may not be meant so."""

from __future__ import annotations

import pytest

from viper_e2e.tables.likely_mistakes import oddities_of
from viper_e2e.tables.table import ColumnChoices, read_labels
from viper_e2e.tables.task_columns import read_tasks


def told(tmp_path, head: str, *rows: str, tasks: str = "") -> tuple[str, ...]:
    path = tmp_path / "labels.csv"
    path.write_text("\n".join([f"File_ID,{head}", *(f"c{n},{row}" for n, row in enumerate(rows))]) + "\n")
    return oddities_of(read_labels(path, ColumnChoices(tasks=read_tasks(tasks).columns if tasks else ())))


def test_nothing_is_told_of_a_table_that_is_right(tmp_path):
    rows = ("train,S1,1,f,0.1", "train,S2,1.5,m,0.2", "val,S10,15,f,0.3", "test,S11,-1,m,0.4")
    assert told(tmp_path, "Split,Subject,Age,Gender,Joy", *rows) == ()


@pytest.mark.parametrize(
    ("one", "other"),
    [("01", "1"), ("s1", "S1"), ("VP_01", "vp1"), ("1.0", "1"), ("P 3", "P3"), ("é", "e\u0301")],
)
@pytest.mark.parametrize("title", ["Subject", "Fold", "Gender"])
def test_one_name_written_two_ways_is_told(tmp_path, title, one, other):
    (line,) = told(tmp_path, f"Split,{title},Joy", f"train,{one},0.1", f"train,{other},0.2", "train,x,.3")
    assert line.startswith(f"{title}: ")
    assert repr(one) in line
    assert repr(other) in line


def test_no_subject_is_nobody_not_a_person_called_na(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("File_ID,Split,Subject,Joy\na,train,NA,0.1\nb,train,n/a,.2\nc,val,P1,.3\nd,val,,.4\n")
    table = read_labels(path)
    assert [row.subject for row in table.rows] == [None, None, "P1", None]
    assert next(column for column in table.columns if column.title == "Subject").empty == 3


def test_two_words_for_one_split_are_told(tmp_path):
    rows = ("train,0.1", "Validation,0.2", "dev,0.3", "test,0.4")
    (line,) = told(tmp_path, "Split,Joy", *rows)
    assert line.startswith("Split has 'dev' and 'validation'")


def test_people_in_several_splits_are_told(tmp_path):
    rows = ("train,A,0.1", "val,A,0.2", "train,B,0.3", "test,C,0.4")
    (line,) = told(tmp_path, "Split,Subject,Joy", *rows)
    assert line.startswith("Subject: 1 of 3 subjects are in several of the splits 'train' and 'val' ('A')")


def test_a_column_that_never_changes_is_told(tmp_path):
    lines = told(tmp_path, "Split,Joy,Fear", *(f"train,0.5,{n / 9}" for n in range(4)))
    assert lines == ("Joy is 0.5 in all 4 rows: nothing can be learned of it",)


def test_classes_that_training_never_sees_are_told(tmp_path):
    rows = ("train,joy", "train,fear", "val,joy", "val,anger", "test,anger")
    assert told(tmp_path, "Split,E", *rows, tasks="E=class") == (
        "e: no clip of train is of a class that other splits have: anger (2 clips)",
    )
    assert told(tmp_path, "Split,E", "test,joy", "test,anger", tasks="E=class") == ()
