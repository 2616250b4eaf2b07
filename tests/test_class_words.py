"""Words of classes: which are one class, which are two, and which stand for no label."""

from __future__ import annotations

import math

import pytest

from viper_e2e.errors import ViperError
from viper_e2e.labels import name_of
from viper_e2e.tables.column_choices import ColumnChoices
from viper_e2e.tables.table import LabelTable, read_labels
from viper_e2e.tables.task_columns import read_tasks


def table_of(tmp_path, words: list[str], tasks: str = "E=class", missing: tuple[str, ...] = ()) -> LabelTable:
    path, described = tmp_path / "labels.csv", tmp_path / "tasks.yaml"
    path.write_text("File_ID,Split,E\n" + "".join(f'c{n},train,"{word}"\n' for n, word in enumerate(words)))
    if ":" in tasks:
        described.write_text(tasks)
        tasks = str(described)
    return read_labels(path, ColumnChoices(tasks=read_tasks(tasks).columns, missing=missing))


def words_of(table: LabelTable) -> list[str | None]:
    """The class of each row, as the label set has it."""
    found = []
    for row in table.rows:
        values = row.intensities
        empty = values is None or math.isnan(values[0])
        found.append(None if empty else table.labels.columns[values.index(1.0)].partition(" ")[2])
    return found


def test_a_sign_tells_two_classes_apart(tmp_path):
    table = table_of(tmp_path, ["-1", "0", "1", "+1", "−1"])
    assert words_of(table) == ["-1", "0", "1", "1", "-1"]
    assert len(set(table.labels.names)) == 3
    assert name_of("mood -1") != name_of("mood 1")
    assert (
        name_of("Rating (-1…1)") == name_of("Rating (1…1)") == "rating_1_1"
    )  # only what begins a word is a sign


def test_whole_numbers_with_and_without_a_point_are_one_class(tmp_path):
    assert words_of(table_of(tmp_path, ["1.0", "1", "2", "2.00", "1.5"])) == ["1", "1", "2", "2", "1.5"]
    given = "E: {kind: class, classes: [1, 2.0]}"
    assert words_of(table_of(tmp_path, ["1.0", "2"], given)) == ["1", "2"]


def test_case_spaces_and_accents_written_apart_are_one_class(tmp_path):
    assert words_of(table_of(tmp_path, ["Joy", "JOY ", "an  ger", "an_ger", "café", "cafe\u0301"])) == [
        *("Joy", "Joy", "an  ger", "an  ger", "café", "café"),
    ]


@pytest.mark.parametrize("tasks", ["E=class", "E: {kind: class, classes: [C, C+, D]}"])
def test_words_of_one_name_that_are_not_alike_are_refused(tmp_path, tasks):
    with pytest.raises(ViperError, match=r"'C' and 'C\+' become the same name 'c'; rename one"):
        table_of(tmp_path, ["C", "C+", "D"], tasks)


def test_a_class_called_none_is_asked_about(tmp_path):
    words = ["None", "joy", "fear", "None"]
    with pytest.raises(ViperError, match=r"line 2: E is 'None' \(2 times\).* add --missing None"):
        table_of(tmp_path, words)
    missing = table_of(tmp_path, words, missing=("None",))
    assert words_of(missing) == [None, "joy", "fear", None]
    given = table_of(tmp_path, words, "E: {kind: class, classes: [none, joy, fear]}")
    assert words_of(given) == ["none", "joy", "fear", "none"]


def test_what_programs_write_for_nothing_is_counted_as_empty(tmp_path):
    table = table_of(tmp_path, ["n/a", "joy", "fear", "NaN", ""])
    assert words_of(table) == [None, "joy", "fear", None, None]
    assert next(column for column in table.columns if column.title == "E").empty == 3


def test_the_advice_to_take_a_word_for_nothing_works(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("File_ID,Split,Joy\na,train,None\nb,train,0.5\n")
    (problem,) = read_labels(path).problems
    assert "(--missing None if it stands for an empty cell)" in problem
    table = read_labels(path, ColumnChoices(missing=("None",)))
    assert table.problems == ()
    assert [row.intensities for row in table.rows] == [None, (0.5,)]


def test_codes_that_are_values_as_told_are_named(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("File_ID,Split,Joy\n" + "".join(f"c{n},train,{v}\n" for n, v in enumerate([1, 2, 3, -99])))
    table = read_labels(path, ColumnChoices(missing=("none",)))
    assert any("Joy is -99 (1 time)" in note and "--missing none" in note for note in table.notes)


@pytest.mark.parametrize("given", ["classes: [no, yes]", "columns: [off, on]", "classes: [true, x]"])
def test_what_yaml_reads_as_true_or_false_needs_quotes(tmp_path, given):
    with pytest.raises(ViperError, match="put quotes around it"):
        table_of(tmp_path, ["no", "yes"], f"E: {{kind: class, {given}}}")
    quoted = "E: {kind: class, classes: ['no', 'yes']}"
    assert words_of(table_of(tmp_path, ["no", "yes"], quoted)) == ["no", "yes"]


@pytest.mark.parametrize(
    "tasks", ["E=class,e=number", "E=class,E=labels", "E: {kind: class}\ne: {kind: number}"]
)
def test_two_tasks_of_one_name_are_refused(tmp_path, tasks):
    with pytest.raises(ViperError, match="two tasks are called 'e'"):
        table_of(tmp_path, ["a", "b"], tasks)


def test_a_column_of_names_is_no_class(tmp_path):
    with pytest.raises(ViperError, match=r"'E' has 30 different words in 31 rows: .*classes"):
        table_of(tmp_path, [f"id{n}" for n in range(30)] + ["id0"])
    assert len(table_of(tmp_path, [f"id{n % 30}" for n in range(90)]).labels) == 30
    listed = ", ".join(f"id{n}" for n in range(30))
    assert len(table_of(tmp_path, ["id3", "id4"], f"E: {{kind: class, classes: [{listed}]}}").labels) == 30
