"""Records hold what was said of each clip, in every format alike."""

from __future__ import annotations

import csv
import json

import pytest
import torch
from pyarrow import parquet

from viper_e2e.errors import ClipError, ViperError
from viper_e2e.model import ViPEROutput
from viper_e2e.records import records_of, write_records

EMOTIONS, MODALITIES = ("joy", "fear"), ("visual", "audio")


def output() -> ViPEROutput:
    """Two clips: one with three distinct frames of four, one that could not be read."""
    return ViPEROutput(
        intensities=torch.tensor([[0.25, 0.75], [0.5, 0.5]]),
        valid=torch.tensor([True, False]),
        present=torch.tensor([[True, False], [False, False]]),
        boxes=torch.arange(32, dtype=torch.float32).view(2, 4, 4),
        box_source=torch.tensor([[1, 2, 0, 1], [0, 0, 0, 0]], dtype=torch.uint8),
        face_found=torch.tensor([[True, True, False, True], [False] * 4]),
        frame_seconds=torch.tensor([[0.0, 0.5, 1.0, 1.0], [0.0] * 4]),
        used=torch.tensor([[True, True, True, False], [True] * 4]),
        duration_seconds=torch.tensor([1.5, 0.0]),
        errors=(None, ClipError("not a video", stage="container")),
        notes=(("a second sound track was left out",), ()),
    )


def records(**options):
    return records_of(output(), ["=a.mp4", "b.mp4"], EMOTIONS, MODALITIES, **options)


def test_a_scored_clip_counts_distinct_frames_only():
    record = records(boxes=True)[0]
    assert record["intensities"] == {"joy": 0.25, "fear": 0.75}
    assert record["present"] == {"visual": True, "audio": False}
    assert record["face_found"] == pytest.approx(2 / 3)
    assert record["frame_seconds"] == [0.0, 0.5, 1.0]
    assert record["boxes"] == [[0, 1, 2, 3, "detected"], [4, 5, 6, 7, "interpolated"], None]


def test_an_unreadable_clip_has_its_reason_and_no_numbers():
    record = records()[1]
    assert (record["valid"], record["error"], record["intensities"]) == (False, "not a video", None)
    assert "boxes" not in record


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv", ".parquet"])
def test_every_format_holds_every_clip(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    write_records(records(), path)
    if suffix == ".json":
        rows = json.loads(path.read_text())
    elif suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    elif suffix == ".csv":
        rows = list(csv.DictReader(path.open()))
        assert rows[0]["clip"] == "'=a.mp4", "a spreadsheet must not take a file name for a formula"
        assert float(rows[0]["fear"]) == 0.75
    else:
        rows = parquet.read_table(path).to_pylist()
        assert rows[0]["fear"] == 0.75
    assert len(rows) == 2
    assert str(rows[1]["valid"]) == "False"
    assert rows[1]["error"] == "not a video"


def test_an_unknown_format_and_a_missing_folder_are_told_before_any_work(tmp_path):
    with pytest.raises(ViperError, match=r"\.parquet"):
        write_records([], tmp_path / "out.txt")
    with pytest.raises(ViperError, match="no folder"):
        write_records([], tmp_path / "none" / "out.json")
