"""Tables have one kind of row and the same columns whatever failed; every format holds the same."""

from __future__ import annotations

import csv
import json
import os
import sys

import pytest
from pyarrow import parquet
from support.optional import package

from viper_e2e.errors import ViperError
from viper_e2e.model.prediction import failed
from viper_e2e.model.records import record_of
from viper_e2e.scoring.tabular import columns_of, summary_path, write_records

MODALITIES = ("visual", "audio")
COLUMNS = [
    *("clip", "person", "start_seconds", "end_seconds", "duration_seconds", "face_found"),
    "unheard_seconds",
    *("present_visual", "present_audio", "joy", "fear", "valid", "error", "warning"),
]
NUMBERS = COLUMNS[1:-2]


def scored(**changes) -> dict:
    values = {
        "clip": "=a.mp4",
        "person": 1,
        "valid": True,
        "error": None,
        "warning": "a second sound track was left out",
        "start_seconds": 0.0,
        "end_seconds": 3725.125,
        "duration_seconds": 3725.125,
        "intensities": {"joy": 0.12345678901234567, "fear": 1.0},
        "present": {"visual": True, "audio": False},
        "face_found": 2 / 3,
        "unheard_seconds": 57.25,
        "frame_seconds": [0.0, 3600.1234],
        "boxes": [[0.0, 1.0, 2.0, 3.0, "detected"], None],
    }
    return values | changes


def broken() -> dict:
    return record_of(failed("b.mp4", "not a video", MODALITIES))


def windows() -> list[dict]:
    rest = record_of(failed("=a.mp4", "is damaged", MODALITIES, start_seconds=4.0))
    spans = ([0.0, 2.0], [2.0, 4.0])
    return [*(scored(start_seconds=a, end_seconds=b, window_seconds=[a, b]) for a, b in spans), rest]


def rows(path) -> tuple[list[str], list[dict]]:
    """Columns, and rows with what stands in each cell."""
    if path.suffix == ".csv":
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            return list(reader.fieldnames or ()), list(reader)
    if path.suffix == ".parquet":
        table = parquet.read_table(path)
        return table.column_names, table.to_pylist()
    openpyxl = package("openpyxl")
    header, *lines = openpyxl.load_workbook(path).active.iter_rows(values_only=True)
    return list(header), [dict(zip(header, line, strict=True)) for line in lines]


@pytest.mark.parametrize("suffix", [".csv", ".xlsx", ".parquet"])
@pytest.mark.parametrize(
    "records",
    [[scored()], [scored(), broken()], [broken(), scored()], [broken()], windows(), []],
    ids=["scored", "failed last", "failed first", "all failed", "windows", "nothing"],
)
def test_every_table_has_the_same_columns(tmp_path, suffix, records):
    path = tmp_path / f"out{suffix}"
    write_records(records, path, emotions=("joy", "fear"))
    columns, found = rows(path)
    if records:
        assert columns == COLUMNS
    else:
        assert [c for c in columns if not c.startswith("present")] == [c for c in COLUMNS if "present" not in c]
    assert len(found) == len(records)


@pytest.mark.parametrize("suffix", [".csv", ".xlsx", ".parquet"])
def test_cells_are_numbers_that_can_be_read(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    write_records([scored(), broken()], path)
    _, (row, bad) = rows(path)
    assert {name: float(row[name]) for name in NUMBERS} == {
        "person": 1,
        "start_seconds": 0.0,
        "end_seconds": 3725.125,
        "duration_seconds": 3725.125,
        "face_found": 0.666667,
        "unheard_seconds": 57.25,
        "present_visual": 1,
        "present_audio": 0,
        "joy": 0.123457,
        "fear": 1.0,
        "valid": 1,
    }
    assert row["clip"] == ("'=a.mp4" if suffix == ".csv" else "=a.mp4"), "nothing takes a name for a formula"
    assert row["warning"] == "a second sound track was left out"
    assert (float(bad["valid"]), bad["error"]) == (0, "not a video")
    assert bad["joy"] in ("", None)
    if suffix == ".csv":
        assert row["joy"] == "0.123457"
        assert row["end_seconds"] == "3725.125"


def test_whole_numbers_of_a_csv_have_no_point(tmp_path):
    write_records([scored(start_seconds=0.0, end_seconds=3600.0)], tmp_path / "out.csv")
    _, (row,) = rows(tmp_path / "out.csv")
    assert (row["start_seconds"], row["end_seconds"], row["fear"]) == ("0", "3600", "1")


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_json_holds_lists_and_readable_numbers(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    write_records([scored(), broken()], path)
    text = path.read_text(encoding="utf-8")
    good, bad = json.loads(text) if suffix == ".json" else map(json.loads, text.splitlines())
    assert good["intensities"] == {"joy": 0.123457, "fear": 1.0}
    assert good["frame_seconds"] == [0.0, 3600.1234]
    assert good["boxes"] == [[0.0, 1.0, 2.0, 3.0, "detected"], None]
    assert list(good)[:3] == list(bad)[:3]
    assert (bad["valid"], bad["error"], bad["intensities"]) == (False, "not a video", None)


def test_parquet_has_types_even_where_every_cell_is_empty(tmp_path):
    write_records([broken()], tmp_path / "out.parquet", emotions=("joy", "fear"))
    types = {field.name: str(field.type) for field in parquet.read_schema(tmp_path / "out.parquet")}
    texts = dict.fromkeys(("clip", "error", "warning"), "string")
    flags = dict.fromkeys(("present_visual", "present_audio", "valid"), "bool")
    assert types == dict.fromkeys(COLUMNS, "double") | texts | flags | {"person": "int32"}


def test_a_csv_has_the_mark_of_utf_8_if_asked(tmp_path):
    for bom in (False, True):
        write_records([scored(clip="Müller.mp4")], tmp_path / "out.csv", bom=bom)
        assert (tmp_path / "out.csv").read_bytes().startswith(b"\xef\xbb\xbf") is bom
        assert rows(tmp_path / "out.csv")[1][0]["clip"] == "Müller.mp4"


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv", ".xlsx", ".parquet"])
def test_a_name_that_is_no_text_can_be_written(tmp_path, suffix):
    clip = os.fsdecode(b"caf\xe9.mp4")
    write_records([scored(clip=clip)], tmp_path / f"out{suffix}")
    if suffix == ".json":
        assert json.loads((tmp_path / "out.json").read_text())[0]["clip"] == clip
    elif suffix != ".jsonl":
        assert rows(tmp_path / f"out{suffix}")[1][0]["clip"] == "caf\\udce9.mp4"


def test_a_label_that_is_called_like_a_column_has_a_column_of_its_own():
    columns = columns_of([scored(intensities={"valid": 0.25, "valence": 0.5})], ["valid", "valence"])
    assert [column.title for column in columns][-5:] == ["label_valid", "valence", "valid", "error", "warning"]
    assert [list(column.cells) for column in columns][-5:-2] == [[0.25], [0.5], [True]]


@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_a_label_that_is_called_like_a_time_keeps_its_digits(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    write_records([scored(intensities={"delay_seconds": 0.12345678}, spread={"delay_seconds": 0.00045})], path)
    if suffix == ".json":
        (one,) = json.loads(path.read_text(encoding="utf-8"))
        assert (one["intensities"], one["spread"]) == ({"delay_seconds": 0.123457}, {"delay_seconds": 0.00045})
    else:
        _, (row,) = rows(path)
        assert (row["delay_seconds"], row["delay_seconds_spread"]) == ("0.123457", "0.00045")


def test_names_that_begin_with_a_dash_stay_what_they_are(tmp_path):
    write_records([scored(clip="-3g5yACwYnA"), scored(clip="-1+cmd|' /C calc'!A0")], tmp_path / "out.csv")
    names = [row["clip"] for row in rows(tmp_path / "out.csv")[1]]
    assert names == ["-3g5yACwYnA", "'-1+cmd|' /C calc'!A0"]


def test_an_unknown_format_and_what_cannot_be_a_file_are_told_before_any_work(tmp_path):
    with pytest.raises(ViperError, match=r"\.parquet"):
        write_records([], tmp_path / "out.txt")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(ViperError, match="is a folder; name a file"):
        write_records([], tmp_path / "folder.csv")
    (tmp_path / "file").touch()
    with pytest.raises(ViperError, match="is not a folder and cannot be created"):
        write_records([], tmp_path / "file" / "out.csv")


def test_a_folder_that_is_missing_is_made(tmp_path):
    write_records([scored()], tmp_path / "new" / "deep" / "out.csv")
    assert (tmp_path / "new" / "deep" / "out.csv").is_file()


def test_excel_without_its_library_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(ViperError, match="needs openpyxl"):
        write_records([scored()], tmp_path / "out.xlsx")
    assert not list(tmp_path.iterdir())


def test_what_fails_leaves_the_file_that_was_there(tmp_path):
    path = tmp_path / "out.json"
    path.write_text("before")
    with pytest.raises(TypeError):
        write_records([scored(error=object())], path)
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["out.json"]


def test_a_summary_stands_beside_its_windows(tmp_path):
    assert summary_path(tmp_path / "my.scores.csv") == tmp_path / "my.scores.summary.csv"
