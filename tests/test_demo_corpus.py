"""What `benchmarks/demo_corpus.py` counts: nearest neighbours of the same person, faces, people per split."""

from __future__ import annotations

import csv
import subprocess
import sys

import numpy as np
import pytest
from support import ROOT

pytest.importorskip("skimage", reason="the demo corpus needs scikit-image: pip install '.[demo]'")
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "datasets")]  # scripts are run by path, not installed

import demo  # noqa: E402
import demo_corpus  # noqa: E402


def test_the_nearest_clip_is_the_most_alike_and_lone_clips_do_not_count():
    degrees = np.radians([0, 3, 8, 90, -40])
    tokens = np.stack([np.cos(degrees), np.sin(degrees)], 1)
    tokens *= [[1.0], [5.0], [1.0], [1.0], [0.1]]  # how long a token is does not count
    same = demo_corpus.nearest_is_same(tokens, ["a", "a", "b", "b", "c"])
    assert same.tolist() == [
        True,
        True,
        False,
        True,
    ]  # the first b looks like the second a; c has no other clip


def test_people_are_counted_by_split():
    rows = [{"Split": split, "Subject": who} for split, who in (("train", "x"), ("train", "x"), ("test", "y"))]
    assert {split: dict(people) for split, people in demo_corpus.people_by_split(rows).items()} == {
        "train": {"x": 2},
        "test": {"y": 1},
    }


@pytest.mark.campaign
def test_the_script_reads_a_corpus_and_finds_its_faces(tmp_path):
    demo.write_corpus(tmp_path / "corpus", {"train": 2, "val": 0, "test": 1}, seed=0, num_workers=1)
    rows = list(csv.DictReader((tmp_path / "corpus" / "parameters.csv").open()))
    assert any(float(row["present.face"]) for row in rows)
    script = [sys.executable, str(ROOT / "benchmarks/demo_corpus.py"), "--corpus", str(tmp_path / "corpus")]
    said = subprocess.run([*script, "--frames", "2"], capture_output=True, text=True, check=True).stdout
    assert "people in train" in said
    assert "100.0% of" in said
