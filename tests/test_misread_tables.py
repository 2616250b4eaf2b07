"""test_misread_tables.py: what could be read in two ways is asked about or told, never taken without a word."""

from __future__ import annotations

import os

import pytest
from support.media import make_clip

from viper_e2e.errors import ViperError
from viper_e2e.packing import PackOptions, pack
from viper_e2e.tables import ColumnChoices, read_labels, read_tasks
from viper_e2e.tables.likely_mistakes import oddities_of

SHARES, ANSWERS = (0.1, 0.5, 0.9, 0.2, 0.3, 0.8), (1, 2, 3, 4, 5, 5)


def table(folder, text: str):
    (folder / "labels.csv").write_text(text, encoding="utf-8")
    return folder / "labels.csv"


def columns(folder, **values) -> object:
    cells = zip("abcdef", ["train"] * 6, *values.values(), strict=True)
    rows = [",".join(map(str, row)) for row in cells]
    return table(folder, "\n".join([",".join(["File_ID", "Split", *values]), *rows]) + "\n")


def test_a_time_that_may_be_a_thousand_is_asked_about(tmp_path):
    head = "File_ID,Path,Split,Start,End,Joy\n"
    path = table(tmp_path, head + 'a,film.mp4,train,"1,250","1,260",.1\nb,film.mp4,train,900,910,.2\n')
    with pytest.raises(ViperError, match="'1,250' may be a thousand or a decimal comma"):
        read_labels(path)
    path = table(tmp_path, head + 'a,film.mp4,train,"12,5",13.5,.1\n')
    with pytest.raises(ViperError, match=r"decimal commas .* and points .* in one table"):
        read_labels(path)


def test_times_with_decimal_commas_and_of_subtitles_are_read(tmp_path):
    head = "File_ID;Path;Split;Start;End;Joy\n"
    path = table(tmp_path, head + "a;film.mp4;train;1,250;1,760;,1\nb;film.mp4;train;00:00:02,500;3;,2\n")
    spans = [row.segment.span for row in read_labels(path).rows]
    assert spans == [(1.25, 1.76), (2.5, 3.0)]


def test_answers_from_1_to_5_beside_shares_are_told_or_asked_about(tmp_path):
    (note,) = read_labels(columns(tmp_path, Joy=ANSWERS, Fear=SHARES)).notes
    assert note.startswith("Fear (0.1 … 0.9) and Joy (1 … 5) are hardly on one scale")
    two_of_each = columns(tmp_path, Joy=ANSWERS, Awe=ANSWERS, Fear=SHARES, Anger=SHARES)
    assert any("hardly on one scale" in note for note in read_labels(two_of_each).notes)
    with pytest.raises(ViperError, match=r"'Joy' \(1 … 5\) is on another scale than the others.*--ignore Joy"):
        read_labels(columns(tmp_path, Joy=ANSWERS, Fear=SHARES, Anger=(0, 0.5, 1, 0.2, 0.1, 0.3)))


def test_percent_beside_shares_is_told(tmp_path):
    percent = tuple(100 * value for value in SHARES)
    assert any(
        "hardly on one scale" in n for n in read_labels(columns(tmp_path, Joy=percent, Fear=SHARES)).notes
    )


@pytest.mark.parametrize("others", [ANSWERS, (-3, -1, 0, 1, 2, 3), (0.01, 0.02, 0, 0.1, 0, 0.05)])
def test_scales_that_may_well_be_one_are_not_spoken_of(tmp_path, others):
    first = ANSWERS if others is ANSWERS else (0, 1, 2, 3, 1, 2) if others[0] == -3 else SHARES
    assert read_labels(columns(tmp_path, Joy=first, Fear=others)).notes == ()


@pytest.mark.parametrize("title", ["Confidence", "rater_agreement", "Video Quality", "num_votes"])
def test_columns_about_the_rating_are_asked_about(tmp_path, title):
    path = columns(tmp_path, Joy=SHARES, **{title: SHARES})
    with pytest.raises(ViperError, match="is it an emotion"):
        read_labels(path)
    assert read_labels(path, ColumnChoices(labels=("Joy", title))).labels.columns == ("Joy", title)


def test_names_written_as_addresses_are_hinted_at(tmp_path):
    (tmp_path / "videos").mkdir()
    for name in ("Clip 1", "Müller", "b", "c"):
        make_clip(tmp_path / f"videos/{name}.mp4", num_frames=4, sound=None)
    rows = ("Clip%201.mp4", "M%C3%BCller.mp4", "https://a.org/v/b.mp4?dl=1", "c.mp4")
    path = table(tmp_path, "Path,Split,Joy\n" + "".join(f"{row},train,0.{n}\n" for n, row in enumerate(rows)))
    report = pack(tmp_path / "videos", path, tmp_path / "out", PackOptions(dry_run=True))
    told = [problem.rpartition("; ")[2] for problem in report.problems]
    assert told == [
        f"there is {name}.mp4: write it so, not as an address" for name in ("Clip 1", "Müller", "b")
    ]


def test_columns_of_0_and_1_say_how_they_are_learned_as_a_class_or_labels(tmp_path):
    one_of_them = {"Joy": (1, 0, 0, 1, 0, 0), "Fear": (0, 1, 1, 0, 0, 0), "Awe": (0, 0, 0, 0, 1, 1)}
    (note,) = read_labels(columns(tmp_path, **one_of_them)).notes
    assert "`emotion: {kind: class, columns: [Joy, Fear, Awe]}`" in note
    (note,) = read_labels(columns(tmp_path, **one_of_them | {"Awe": (1, 0, 0, 0, 1, 1)})).notes
    assert "`emotion: {kind: labels, columns: [Joy, Fear, Awe]}`" in note
    assert read_labels(columns(tmp_path, **one_of_them | {"Awe": SHARES})).notes == ()


def test_times_under_other_titles_are_not_passed_over(tmp_path):
    rows = "a,film.mp4,train,0:00:01,0:00:02,.1\nb,film.mp4,train,0:00:02,0:00:03,.2\n"
    path = table(tmp_path, "File_ID,Path,Split,StartTime,EndTime,Joy\n" + rows)
    with pytest.raises(ViperError, match=r"'StartTime' .*rename it Start if clips start there"):
        read_labels(path)
    of_tasks = ColumnChoices(tasks=read_tasks("Joy=number").columns)
    notes = read_labels(path, of_tasks).notes
    assert "column 'StartTime' is not used; rename it Start if clips start there in their files" in notes
    assert "column 'EndTime' is not used; rename it End if clips end there in their files" in notes
    assert read_labels(path, ColumnChoices(ignore=("StartTime", "EndTime"))).notes == ()


def test_a_start_without_an_end_is_told(tmp_path):
    path = table(tmp_path, "File_ID,Path,Split,Start,Duration,Joy\na,film.mp4,train,1,2,.1\n")
    (note,) = read_labels(path, ColumnChoices(ignore=("Duration",))).notes
    assert note.startswith("Start without End: clips last to the end of their files")


MANY = 24


def of_rows(folder, title: str, cells) -> object:
    lines = [f"c{n},{'train' if n % 4 else 'val'},{cells[n % len(cells)]}" for n in range(MANY)]
    return table(folder, "\n".join([f"File_ID,Split,{title}", *lines]) + "\n")


def odd(path, **choices) -> tuple[str, ...]:
    return oddities_of(read_labels(path, ColumnChoices(**choices)))


@pytest.mark.parametrize(
    ("title", "cells", "is_told"),
    [
        ("Emotion", (1, 2, 3, 4, 5), True),
        ("class_label", (0, 1), True),
        ("Joy", (1, 2, 3), True),  # the only column
        ("Joy", (1, 2, 3.5), False),
        ("Joy,Emotion", ("0.5,1", "0.2,2", "0.1,7"), True),
        ("Joy,Fear", ("1,1", "2,0", "4,7"), False),
    ],
)
def test_whole_numbers_that_may_be_codes_of_classes_say_how_they_are_learned_as_such(
    tmp_path, title, cells, is_told
):
    told = [line for line in odd(of_rows(tmp_path, title, cells)) if "is learned as an intensity" in line]
    assert bool(told) == is_told
    assert all(f"--tasks {title.split(',')[-1]}=class" in line for line in told)


def test_a_class_that_is_hardly_one_is_told(tmp_path):
    path = of_rows(tmp_path, "Emotion", [*["surprise"] * 12, "suprise", *["happy", "unhappy"] * 5, "joy"])
    told = odd(path, tasks=read_tasks("Emotion=class").columns)
    (slip,) = [line for line in told if "write them alike if it is a slip" in line]
    assert slip.startswith("emotion: 'suprise' (1 clip) is a class of its own beside 'surprise' (12)")
    path = of_rows(tmp_path, "Emotion", ("joy", "fear;joy", "fear", "calm"))
    (joined,) = [
        line for line in odd(path, tasks=read_tasks("Emotion=class").columns) if "kind: labels" in line
    ]
    assert joined.startswith("emotion: 'fear;joy' is a class of its own")


def test_words_for_labels_say_that_each_label_has_a_column(tmp_path):
    path = of_rows(tmp_path, "Emotion", ("joy;fear", "joy"))
    (problem, *_) = read_labels(path, ColumnChoices(tasks=read_tasks("Emotion=labels").columns)).problems
    assert "Emotion is 'joy;fear', no label: give each label a column with 1 where it holds" in problem


def test_codes_for_missing_hold_for_what_is_said_too(tmp_path):
    path = of_rows(tmp_path, "Text,Joy", ("nan,0.5", "oh no,0.25"))
    assert [line for line in odd(path) if "Text is 'nan' in 12 rows" in line and "--missing nan" in line]
    assert {row.text for row in read_labels(path, ColumnChoices(missing=("nan",))).rows} == {None, "oh no"}
    assert not [line for line in odd(path, missing=("nan",)) if "Text is" in line]


def test_whole_numbers_with_a_point_are_the_names_that_they_were(tmp_path):
    people = (1, "2.0", "", "NA", "1.0", "10.0")
    path = columns(tmp_path, Subject=people, Speaker=("3.0",) * 6, Age=("23,0", *"345", "", ""), Joy=SHARES)
    path.write_text(path.read_text().replace("23,0", '"23,0"'))
    table = read_labels(path)
    assert [row.subject for row in table.rows] == ["1", "2", None, None, "1", "10"]
    assert {row.meta["Speaker"] for row in table.rows} == {"3"}
    assert [row.meta.get("Age") for row in table.rows] == ["23", "3", "4", "5", None, None]
    assert "Subject: 2.0 is read as 2, as all are whole numbers" in table.notes


@pytest.mark.parametrize(
    "people", [("1.0", "1.5", "2.0"), ("1.0", "S2", "3"), ("01", "02", "3"), ("1,000", "2", "3")]
)
def test_names_that_are_not_all_whole_numbers_stay_as_they_are(tmp_path, people):
    path = table(tmp_path, "File_ID;Split;Subject;Joy\n" + "".join(f"c{p};train;{p};0.1\n" for p in people))
    assert [row.subject for row in read_labels(path).rows] == [*people]


@pytest.mark.parametrize("names", [("1", "2"), ("1.0", "2.0")])
def test_files_called_by_whole_numbers_are_found_with_a_point_and_without(tmp_path, names):
    (tmp_path / "videos").mkdir()
    for name in names:
        make_clip(tmp_path / f"videos/{name}.mp4", num_frames=4, sound=None)
    path = table(tmp_path, "File_ID,Split,Joy\n1.0,train,0.1\n2.0,train,0.2\n")
    report = pack(tmp_path / "videos", path, tmp_path / "out", PackOptions(dry_run=True))
    assert report.exit_code == 0
    assert [row.key for row in read_labels(path).rows] == ["1", "2"]


@pytest.mark.parametrize("separator", [",", "\t"])
@pytest.mark.parametrize("places", [(0, 1, 2, 3), (0, 3, 1, 2)])
def test_a_quote_that_is_closed_rows_later_swallows_none(tmp_path, separator, places):
    rows = [
        ("File_ID", "Split", "Joy", "Text"),
        ("a", "train", "0.5", '"Oh no'),
        ("b", "train", "0.3", "fine"),
        ("c", "train", "0.25", 'he said so"'),
        ("d", "train", "0.1", "well"),
    ]
    text = "".join(separator.join(row[at] for at in places) + "\n" for row in rows)
    with pytest.raises(ViperError, match=r"line 2: a cell begins with a quote .* swallows the row of 'b'"):
        read_labels(table(tmp_path, text))


def test_a_quote_before_a_name_swallows_none(tmp_path):
    text = 'File_ID,Split,Joy\n"a,train,0.5\nb"",train,0.3\nc",train,0.2\n'
    with pytest.raises(ViperError, match=r"line 2: a cell begins with a quote .* swallows the row of 'a'"):
        read_labels(table(tmp_path, text))


def test_a_name_in_two_lines_costs_its_own_row(tmp_path):
    text = 'File_ID,Split,Joy\n"a\nb",train,0.5\nc,train,0.2\n'
    assert [row.file_id for row in read_labels(table(tmp_path, text)).rows] == ["c"]


def test_what_is_said_in_several_lines_is_one_cell(tmp_path):
    text = 'File_ID,Split,Joy,Text\na,train,0.5,"Oh, no,\nwell, I, er, no"\nb,train,0.5,"1, 2\n3, 4"\n'
    assert [row.text for row in read_labels(table(tmp_path, text)).rows] == [
        "Oh, no,\nwell, I, er, no",
        "1, 2\n3, 4",
    ]


@pytest.mark.parametrize(
    ("titles", "choices", "doubtful"),
    [
        ("Subject,SUBJECT", {}, "SUBJECT"),
        ("Child,Subject", {"subject_column": "Child"}, "Subject"),
        ("Split,Part", {"split_column": "Part"}, "Split"),
        ("Fear,Fear.1", {}, "Fear.1"),
        ("Fear,Joy_sd", {}, "Joy_sd"),
    ],
)
def test_numbers_under_a_title_of_something_else_are_asked_about(tmp_path, titles, choices, doubtful):
    split = "" if "split_column" in choices else "Split,"
    rows = "".join(
        f"{name},{'train,' * bool(split)}{one},{other},{joy}\n"
        for name, one, other, joy in [("a", 1, 3, 0.5), ("b", 2, 1, 0.3), ("c", 2, 2, 0.1)]
    )
    with pytest.raises(ViperError, match=rf"column '{doubtful}' .*is it an emotion\?.* --ignore {doubtful}"):
        read_labels(table(tmp_path, f"File_ID,{split}{titles},Joy\n{rows}"), ColumnChoices(**choices))


def test_a_file_of_tasks_is_read_once_as_it_may_be_a_pipe():
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as pipe:
        pipe.write("emotion: {kind: class}\noverall: {both: {emotion.weighted_f1: 1}}\n")
    asked = read_tasks(f"/dev/fd/{reading}")
    os.close(reading)
    assert [task.name for task in asked.columns] == ["emotion"]
    assert [measure.name for measure in asked.combined] == ["both"]
