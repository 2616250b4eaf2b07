"""test_frame_labels.py: labels of every frame become labels of windows, without what the files say is none."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support.media import make_clip

from viper_e2e.commands.cli import main
from viper_e2e.errors import ViperError
from viper_e2e.packing.frame_labels import read_frame_labels, rows_of_windows, tasks_of
from viper_e2e.shards import ShardSet

SECONDS = np.arange(100) / 25


def write(path, header: str, lines) -> object:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *map(str, lines)]) + "\n")
    return path


def test_valence_and_arousal_are_means_of_valid_frames(tmp_path):
    values = [(0.5, -0.25)] * 30 + [(-5, -5)] * 20 + [(-5, 0.1)] * 26 + [(1.0, 1.0)] * 24
    labels = read_frame_labels(write(tmp_path / "a.txt", "valence,arousal", [f"{v},{a}" for v, a in values]))
    rows = rows_of_windows([labels], SECONDS, 2.0)
    # Of the second window 24 of 50 frames have a label.
    assert rows == [{"Start": "0.000000", "End": "2.000000", "valence": 0.5, "arousal": -0.25}]
    assert [task.kind for task in tasks_of([labels])] == ["number", "number"]


def test_an_expression_is_what_most_frames_have_and_units_are_shares(tmp_path):
    faces = write(tmp_path / "e.txt", "Neutral,Anger,Joy", [0] * 20 + [2] * 30 + [-1] * 10 + [1] * 40)
    units = write(tmp_path / "u.txt", "AU1,AU2", ["1,0"] * 25 + ["0,0"] * 25 + ["1,1"] * 40 + ["-1,-1"] * 10)
    labels = [read_frame_labels(faces), read_frame_labels(units)]
    first, second = rows_of_windows(labels, SECONDS, 2.0)
    assert first == {"Start": "0.000000", "End": "2.000000", "expression": "Joy", "AU1": 0.5, "AU2": 0.0}
    assert second == {"Start": "2.000000", "End": None, "expression": "Anger", "AU1": 1.0, "AU2": 1.0}
    assert [(task.name, task.kind) for task in tasks_of(labels)] == [
        ("expression", "class"),
        ("units", "labels"),
    ]


def test_afew_va_is_brought_to_the_range_of_the_others(tmp_path):
    frames = {f"{n:05d}": {"valence": -10 + n, "arousal": 5, "landmarks": []} for n in range(4)}
    (tmp_path / "001.json").write_text(json.dumps({"video_id": "001", "frames": frames}))
    values = read_frame_labels(tmp_path / "001.json").values
    np.testing.assert_allclose(values[:, 0], [-1, -0.9, -0.8, -0.7])
    np.testing.assert_allclose(values[:, 1], 0.5)


@pytest.mark.parametrize("text", ["", "valence,arousal\n0.1\n", "a,b\nx,y\n", "a,b,c\n1,2\n"])
def test_a_file_without_labels_by_frame_is_refused(tmp_path, text):
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(ViperError, match=r"a\.txt: no labels by frame"):
        read_frame_labels(tmp_path / "a.txt")


def test_every_frame_is_in_one_window_whatever_its_times(tmp_path):
    seconds = np.cumsum(np.random.default_rng(0).uniform(0.01, 0.3, 100))
    seconds -= seconds[0]
    labels = read_frame_labels(write(tmp_path / "a.txt", "valence,arousal", ["0.5,0.5"] * 100))
    rows = rows_of_windows([labels], seconds, 1.0)
    edges = [float(row["Start"]) for row in rows]
    assert [row["End"] for row in rows[:-1]] == [row["Start"] for row in rows[1:]]
    counts = np.histogram(seconds + 1e-6, [*edges, np.inf])[0]
    assert counts.sum() == 100
    assert (counts > 0).all()


@pytest.fixture
def corpus(tmp_path):
    """Two videos, one of which is validated, with labels of two tasks."""
    (tmp_path / "videos").mkdir()
    for name in ("1", "2"):
        make_clip(tmp_path / f"videos/{name}.mp4", num_frames=60, fps=15, options={"g": "15"})
    for name, split in (("1", "Train_Set"), ("2", "Validation_Set")):
        lines = [f"{n / 60:.3f},0.5" for n in range(60)]
        write(tmp_path / f"annotations/VA/{split}/{name}.txt", "valence,arousal", lines)
        write(tmp_path / f"annotations/EXPR/{split}/{name}.txt", "Neutral,Joy", [0] * 30 + [1] * 30)
    return tmp_path


def test_pack_makes_windows_of_a_folder_of_labels_by_frame(corpus, capsys):
    words = [
        "pack",
        "--videos",
        f"{corpus}/videos",
        "--labels",
        f"{corpus}/annotations",
        "--out",
        f"{corpus}/out",
    ]
    assert main([*words, "--window-seconds", "2", "--dry-run"]) == 0
    assert not (corpus / "out").exists()
    assert main([*words, "--window-seconds", "2"]) == 0
    shards = ShardSet(f"{corpus}/out/*.tar")
    assert [task.kind for task in shards.labels.tasks] == ["class", "number", "number"]
    entries = sorted((shards.entry(n).key, shards.entry(n).intensities) for n in range(4))
    assert [key for key, _ in entries] == ["1__0-2000", "1__2000-end", "2__0-2000", "2__2000-end"]
    np.testing.assert_allclose(entries[0][1], (1, 0, np.mean(np.arange(30) / 60), 0.5), atol=1e-3)
    assert {shards.shard_of(n).split for n in range(4)} == {"train", "val"}
    assert main([*words, "--overwrite", "--split", "train"]) == 0
    (corpus / "annotations/VA/Train_Set/2.txt").write_text("valence,arousal\n" + "0.1,0.1\n" * 60)
    assert main([*words, "--overwrite"]) == 1
    assert "2 is in several splits" in capsys.readouterr().err
