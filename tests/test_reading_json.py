"""Files of JSON that anyone may have written: read, or refused in one line that names the file."""

from __future__ import annotations

import csv
import json
import re

import pytest

from viper_e2e.encoders import read_bank
from viper_e2e.encoders.weights import read_json as read_beside_weights
from viper_e2e.errors import ViperError
from viper_e2e.experiments.trial_record import read_record
from viper_e2e.model.checkpoint import CheckpointError
from viper_e2e.model.checkpoint import read_json as read_of_checkpoint
from viper_e2e.packing.frame_labels import read_frame_labels
from viper_e2e.runtime import plain_json
from viper_e2e.scoring import read_scored
from viper_e2e.splits.folds import read_folds


def read_beside_metrics(path):
    with (path.parent / "predictions.csv").open("w", newline="") as file:
        csv.writer(file).writerow(["clip"])
    return read_scored(str(path.parent))


READERS = {
    "config.json": read_of_checkpoint,
    "preprocessor_config.json": read_beside_weights,
    "folds.json": read_folds,
    "trials.json": read_record,
    "metrics.json": read_beside_metrics,
    "bank.json": read_bank,
    "frames.json": read_frame_labels,
    "any.json": plain_json.read_object,
}
DAMAGED = {
    "of 20 MB": b" " * 20_000_000,
    "nested too deeply": b"[" * 100_000,
    "an object nested too deeply": b'{"a": ' * 100_000,
    "no number": b"NaN",
    "a list": b"[1, 2]",
    "of Latin-1": '{"a": "ä"}'.encode("latin-1"),
    "with a null byte": b"{\0}",
    "a number of 5,000 digits": b"9" * 5_000,
    "empty": b"",
    "cut short": b'{"a": ',
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_what_is_no_object_of_json_is_refused_in_a_line_that_names_the_file(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ViperError) as caught:
        READERS[name](path)
    assert re.fullmatch(rf"{re.escape(str(path))}: .{{10,300}}", str(caught.value)) or name == "bank.json"
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", READERS)
def test_a_folder_in_place_of_a_file_is_refused_in_a_line(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(ViperError, match=r"is a folder; name a file") as caught:
        READERS[name](tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_the_error_is_the_callers_and_ends_with_its_next_step(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("[]")
    with pytest.raises(CheckpointError, match=r"found list; copy it again$"):
        plain_json.read_object(path, error=CheckpointError, advice="copy it again")


def test_no_more_is_read_than_is_allowed(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"a": "x" * 90}))
    assert plain_json.read_object(path, max_bytes=99) == {"a": "x" * 90}
    with pytest.raises(ViperError, match=r"a\.json: over 98 bytes"):
        plain_json.read_object(path, max_bytes=98)


def test_a_file_of_windows_editor_is_read(tmp_path):
    path = tmp_path / "folds.json"
    path.write_text('{"a": 1, "b": 2}', encoding="utf-8-sig")
    assert read_folds(path).of_clips == {"a": "1", "b": "2"}


def test_a_line_of_a_log_that_is_nested_too_deeply_is_none():
    assert plain_json.record_in("[" * 100_000) is None


def test_a_corpus_of_many_clips_has_its_folds_in_one_file(tmp_path):
    path = tmp_path / "folds.json"
    path.write_text(json.dumps({f"{'long-name-of-a-clip-' * 50}{n}": n % 5 for n in range(18_000)}))
    assert path.stat().st_size > plain_json.MAX_BYTES
    assert len(read_folds(path).of_clips) == 18_000


def test_a_version_that_did_not_save_labels_of_tasks_is_told_once(tmp_path):
    (tmp_path / "metrics.json").write_text('{"tasks": {"mood": {}}}')
    with pytest.raises(ViperError, match="of an earlier version") as caught:
        read_beside_metrics(tmp_path / "metrics.json")
    assert str(caught.value).count("metrics.json") == 1


def test_a_file_of_labels_that_is_too_large_is_named_once(tmp_path, monkeypatch):
    monkeypatch.setattr("viper_e2e.packing.frame_labels.MAX_BYTES", 10)
    path = tmp_path / "a.txt"
    path.write_text("valence,arousal\n0.5,0.5\n")
    with pytest.raises(ViperError, match=r"over 10 bytes.*is this a file of labels\?$") as caught:
        read_frame_labels(path)
    assert str(caught.value).count("a.txt") == 1


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"plan": 5, "trials": []},
        {"plan": {"kind": "grid"}, "trials": []},
        {"plan": {"kind": "grid", "trials": []}, "trials": [5]},
        {"plan": {"kind": "grid", "trials": []}, "trials": [{"lr": 1}]},
    ],
)
def test_what_is_no_record_of_trials_is_refused(tmp_path, record):
    path = tmp_path / "trials.json"
    path.write_text(json.dumps(record))
    with pytest.raises(ViperError, match="not a record of this version; was it edited"):
        read_record(path)


def test_a_number_that_no_float_holds_is_no_label_of_a_frame(tmp_path):
    path = tmp_path / "frames.json"
    path.write_text('{"frames": {"1": {"valence": 1' + "0" * 400 + ', "arousal": 1}}}')
    with pytest.raises(ViperError, match=r"frames\.json: no labels by frame"):
        read_frame_labels(path)
