"""test_label_table.py: the columns that a table may have beside its labels, and what is kept of them."""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace

import pytest

from viper_e2e.clip import Segment
from viper_e2e.errors import ViperError
from viper_e2e.packing import pack
from viper_e2e.scoring.groups import groups_of
from viper_e2e.shards import ShardSet
from viper_e2e.tables import ColumnChoices, label_titles, read_labels
from viper_e2e.tables.task_columns import read_tasks
from viper_e2e.tables.times import seconds_of

MP4 = b"\0\0\0\x18ftypisom\0\0\0\0isommp42" + bytes(1000)
KEPT = ("Fold", "Session", "Speaker", "Language", "Gender", "Age")


def write(folder, text: str, *files: str):
    """A table and the files that it names."""
    for number, name in enumerate(files):
        path = folder / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(MP4 + bytes([number]))
    (folder / "labels.csv").write_text(text, encoding="utf-8")
    return folder / "labels.csv"


ALL = "File_ID,Split,Subject,fold,SESSION,speaker,Language,gender,Age,Text,Joy\n" + "".join(
    f'c{n},train,P{n},{n % 3},{n % 2},S{n},de,{"fm"[n % 2]},{23 + n},"Oh, no {n}",0.{n}\n' for n in range(6)
)


def test_known_columns_are_never_taken_for_labels_and_are_kept_with_the_clip(tmp_path):
    table = read_labels(write(tmp_path, ALL, *(f"c{n}.mp4" for n in range(6))))
    assert table.labels.columns == ("Joy",)
    assert table.rows[3].meta == dict(zip(KEPT, ("0", "1", "S3", "de", "m", "26"), strict=True))
    assert table.rows[3].text == "Oh, no 3"
    pack(tmp_path / "videos", tmp_path / "labels.csv", tmp_path / "out")
    shards = ShardSet(str(tmp_path / "out/*.tar"))
    entries = {shards.entry(n).key: shards.entry(n) for n in range(6)}
    assert entries["c3"].meta == dict(table.rows[3].meta)
    assert groups_of(shards, ["gender"])["gender"] == groups_of(shards, ["Gender"])["Gender"]
    with tarfile.open(tmp_path / "out/train-000000.tar") as tar:
        assert json.load(tar.extractfile("c3.json"))["text"] == "Oh, no 3"


def test_what_is_said_may_be_any_word_and_is_kept_as_it_is(tmp_path):
    text = "File_ID,Split,Text,Joy\na,train,None,0.1\nb,train,,0.2\nc,train,NA,0.3\nd,train,12,0.4\n"
    table = read_labels(write(tmp_path, text))
    assert [row.text for row in table.rows] == ["None", None, "NA", "12"]


def test_a_known_column_is_a_label_where_a_person_says_so(tmp_path):
    path = write(tmp_path, ALL)
    table = read_labels(path, ColumnChoices(labels=("Age", "Joy")))
    assert table.labels.columns == ("Age", "Joy")
    assert "Age" not in table.rows[0].meta
    table = read_labels(path, ColumnChoices(ignore=("Speaker", "Text"), subject_column="Session"))
    assert table.rows[1].subject == "1"
    assert not {"Speaker", "Session"} & set(table.rows[0].meta)
    assert table.rows[0].text is None
    assert read_labels(path, ColumnChoices(split_column="Fold")).rows[2].split == "2"


def test_a_speaker_without_a_subject_is_told(tmp_path):
    path = write(tmp_path, ALL.replace("Subject", "Note"))
    assert any("--subject-column Speaker" in note for note in read_labels(path).notes)
    assert not any("--subject-column" in note for note in read_labels(write(tmp_path, ALL)).notes)
    with pytest.raises(ViperError, match="--subject-column Participant"):
        read_labels(write(tmp_path, ALL.replace("Subject", "Participant")))


@pytest.mark.parametrize("given", ["Mood=class", "labels"])
def test_who_is_seen_is_asked_about_whatever_is_learned(tmp_path, given):
    text = "File_ID,Split,Who,Mood,Joy\na,train,Bernd,calm,0.1\nb,val,Ada,glad,0.2\n"
    choices = (
        ColumnChoices(labels=("Joy",)) if given == "labels" else ColumnChoices(tasks=read_tasks(given).columns)
    )
    with pytest.raises(
        ViperError, match=r"'Who' seems to name the person in the clip.* add --subject-column Who"
    ):
        read_labels(write(tmp_path, text), choices)
    for settled in ({"ignore": ("Who",)}, {"meta": ("Who",)}, {"subject_column": "Who"}):
        rows = read_labels(write(tmp_path, text), replace(choices, **settled)).rows
        assert [row.subject for row in rows] == (
            ["Bernd", "Ada"] if "subject_column" in settled else [None, None]
        )


def test_a_fold_is_no_split(tmp_path):
    with pytest.raises(ViperError, match=r"no column 'Split' .*--split train"):
        read_labels(write(tmp_path, ALL.replace("Split", "Note")))
    table = read_labels(write(tmp_path, ALL.replace("Split", "Note")), ColumnChoices(split="train"))
    assert table.rows[4].meta["Fold"] == "1"


def test_rows_that_share_a_path_have_keys_of_their_own(tmp_path):
    text = "Path,Split,Joy\nd/film.avi,train,0.1\nd/film.avi,train,0.2\ne/film.avi,train,0.3\n"
    table = read_labels(write(tmp_path, text))
    assert [row.key for row in table.rows] == ["d__film__row2", "d__film__row3", "e__film"]
    assert table.problems == ()


def test_recipes_need_not_say_which_columns_are_known():
    row = dict.fromkeys(["Path", "File_ID", "Split", "Subject", *KEPT, "Text", "Joy", "Awe"])
    assert label_titles([row]) == ("Joy", "Awe")


def test_rows_that_share_a_path_are_told_apart_by_their_times_and_sides(tmp_path):
    text = "Path,Split,Start,End,Side,Joy\n" + "".join(
        f"film.avi,train,{start},{end},{side},0.{n}\n"
        for n, (start, end, side) in enumerate(
            [("0", "1.5", ""), ("1.5", "", ""), ("", "", "left"), ("2", "3", "Right"), ("", "", "")]
        )
    )
    table = read_labels(write(tmp_path, text))
    assert [row.key for row in table.rows] == [
        "film__0-1500", "film__1500-end", "film__left", "film__2000-3000__right", "film__row6",
    ]  # fmt: skip
    assert [row.segment for row in table.rows] == [
        Segment(0.0, 1.5), Segment(1.5), Segment(side="left"), Segment(2.0, 3.0, "right"), None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("cell", "seconds"),
    [
        ("12.5", 12.5), ("12,5", 12.5), ("00:16:16,059", 976.059), ("1:02.25", 62.25), ("01:00:00", 3600.0),
        ("0", 0.0), ("-1", -1.0), ("nan", None), ("1:75", None), ("5 s", None), ("inf", None),
    ],
)  # fmt: skip
def test_times_are_seconds_or_what_a_clock_shows(cell, seconds):
    assert seconds_of(cell) == seconds


def test_all_faults_of_times_and_sides_come_in_one_answer(tmp_path):
    rows = [
        ("2", "1", ""),
        ("-1", "1", ""),
        ("nan", "1", ""),
        ("1", "1", "top"),
        ("x", "y", "z"),
        ("3", "4", "left"),
    ]
    text = "File_ID,Path,Split,Start,End,Side,Joy\n" + "".join(
        f"u{n},film.mp4,train,{','.join(row)},0.{n}\n" for n, row in enumerate(rows)
    )
    table = read_labels(write(tmp_path, text))
    assert [row.key for row in table.rows] == ["u5"]
    told = dict(enumerate(table.problems))
    assert "line 2: Start 2 is not before End 1" in told[0]
    assert "line 3: Start is -1, before the file begins" in told[1]
    assert "line 4: Start is 'nan', neither seconds nor hh:mm:ss.mmm (--missing nan" in told[2]
    assert "line 5: Side is 'top', none of left, right, full" in told[3]
    assert all(word in told[4] for word in ("Start is 'x'", "End is 'y'", "Side is 'z'"))
