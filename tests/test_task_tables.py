"""Tasks out of a table of labels: words, numbers, counts of raters, and what is asked about them."""

from __future__ import annotations

import numpy as np
import pytest

from viper_e2e.errors import ViperError
from viper_e2e.tables.column_choices import ColumnChoices
from viper_e2e.tables.table import read_labels
from viper_e2e.tables.task_columns import read_tasks
from viper_e2e.tasks import Task

nan = float("nan")
TABLE = """File_ID,Split,Emotion,Valence,AU1,AU2,Amusement,Age
a,train,Joy,0.5,1,0,0.2,31
b,train,anger,-0.5,0,0,0.4,44
c,train,,NA,1,1,,20
d,val,Fear,1,,,0.9,
e,val,,,,,,
"""


def table(tmp_path, tasks: str, text: str = TABLE):
    path = tmp_path / "labels.csv"
    path.write_text(text, encoding="utf-8")
    return read_labels(path, ColumnChoices(tasks=read_tasks(tasks).columns))


def test_a_table_of_words_and_numbers_becomes_tasks(tmp_path):
    (tmp_path / "tasks.yaml").write_text(
        "emotion: {kind: class}\nvalence: {kind: number, range: [-1, 1]}\n"
        "units: {kind: labels, columns: [AU1, AU2]}\nreactions: {kind: intensities, columns: [Amusement]}\n"
    )
    found = table(tmp_path, str(tmp_path / "tasks.yaml"))
    assert found.labels.tasks == (
        Task("emotion", "class", 3),
        Task("valence", "number", 1, -1.0, 1.0),
        Task("units", "labels", 2),
        Task("reactions", "intensities", 1),
    )
    assert found.labels.names[:4] == ("emotion_anger", "emotion_fear", "emotion_joy", "valence")
    values = [row.intensities for row in found.rows]
    np.testing.assert_array_equal(values[0], (0, 0, 1, 0.5, 1, 0, 0.2))
    np.testing.assert_array_equal(values[2], (nan, nan, nan, nan, 1, 1, nan))
    np.testing.assert_array_equal(values[3], (0, 1, 0, 1, nan, nan, 0.9))
    assert values[4] is None
    ages = next(column for column in found.columns if column.title == "Age")
    assert ages.taken_for == "kept with the clip as Age"


def test_a_value_within_a_range_that_was_given_is_no_code_for_missing(tmp_path):
    text = "File_ID,Split,Valence\n" + "".join(f"c{i},train,{v}\n" for i, v in enumerate([-1, 0, 1] * 6))
    with pytest.raises(ViperError, match=r"Valence is -1 \(6 times\).*a code for missing"):
        table(tmp_path, "Valence=number", text)
    (tmp_path / "tasks.yaml").write_text("valence: {kind: number, range: [-1, 1]}\n")
    assert len(table(tmp_path, str(tmp_path / "tasks.yaml"), text).rows) == 18


def test_tasks_can_be_said_in_a_word_each(tmp_path):
    found = table(tmp_path, "Emotion=class,Valence=number")
    valence = Task("valence", "number", 1, -0.5, 1.0)
    assert found.labels.tasks == (Task("emotion", "class", 3), valence)


def test_a_class_keeps_its_words_whatever_the_case_of_its_task(tmp_path):
    (tmp_path / "tasks.yaml").write_text("Emotion: {kind: class}\n")
    labels = table(tmp_path, str(tmp_path / "tasks.yaml")).labels
    said = {"emotion_anger": 0.1, "emotion_fear": 0.2, "emotion_joy": 0.7}
    assert labels.classes_of(said) == {"emotion": "Joy"}


def test_counts_of_raters_become_shares(tmp_path):
    (tmp_path / "tasks.yaml").write_text("emotion: {kind: class, columns: [joy, anger]}\n")
    text = "File_ID,Split,joy,anger\na,train,3,1\nb,train,0,0\n"
    found = table(tmp_path, str(tmp_path / "tasks.yaml"), text)
    assert [row.intensities for row in found.rows] == [(0.75, 0.25)]
    assert "line 3: joy, anger: counts of raters are at least 0, and not all 0" in found.problems[0]


@pytest.mark.parametrize(
    ("tasks", "told"),
    [
        ("Emotion=mood", "no kind 'mood'; there are intensities, class, labels, number"),
        ("Mood=class", "--tasks: no column 'Mood'"),
        ("Emotion=number", "Emotion is 'Joy', not a number"),
        ("{emotion: {kind: class, column: Emotion}}", "no setting column"),
        ("{emotion: {kind: class, classes: [joy, anger]}}", "Emotion is 'Fear', none of joy, anger"),
        ("{valence: {kind: number, range: [0, 1]}}", "Valence is -0.5, outside of 0 to 1"),
        ("{valence: {kind: number, range: [1, 0]}}", "range [1, 0]; write for example [-1, 1]"),
        ("{age: {kind: labels}}", "Age is 31, a label holds (1) or not (0)"),
        ("{both: {kind: number, columns: [Valence, Age]}}", "a number has one column, not 2"),
        ("[1, 2]", "holds no settings"),
        ("{emotion: class}", "each task is a line such as emotion: {kind: class}"),
    ],
)
def test_what_is_not_understood_is_one_line_that_says_what_would_be(tmp_path, tasks, told):
    if not tasks[0].isalpha():
        (tmp_path / "tasks.yaml").write_text(tasks)
        tasks = str(tmp_path / "tasks.yaml")
    try:
        found = table(tmp_path, tasks)
    except ViperError as error:
        assert told in str(error)  # noqa: PT017 (whether refused or left out, it is told)
    else:
        assert any(told in problem for problem in found.problems), found.problems
