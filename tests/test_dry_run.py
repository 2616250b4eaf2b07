"""test_dry_run.py: `viper pack --dry-run` says what pack would do, and leaves nothing behind."""

from __future__ import annotations

import json

import pytest
from support.media import make_clip

from viper_e2e.commands.cli import main

TABLE = "File_ID,Split,Subject,Fold,Emotion,Valence\n" + "".join(
    f"c{n},{'train' if n < 6 else 'val'},P{n % 4},{n % 2},{('joy', 'Joy', 'fear')[n % 3]},{v}\n"
    for n, v in enumerate([0.1, -0.5, "-99", 0.7, 0.2, 1, -1, 0])
)
TASKS = ["--tasks", "Emotion=class,Valence=number", "--missing=-99"]


@pytest.fixture
def words(tmp_path):
    (tmp_path / "videos").mkdir()
    clip = make_clip(tmp_path / "clip.mp4", num_frames=5).read_bytes()
    for n in range(7):
        (tmp_path / f"videos/c{n}.mp4").write_bytes(clip + bytes(n))
    (tmp_path / "labels.csv").write_text(TABLE)
    folder = str(tmp_path)
    return [
        "pack",
        "--videos",
        f"{folder}/videos",
        "--labels",
        f"{folder}/labels.csv",
        "--out",
        f"{folder}/out",
    ]


def report_of(words, tmp_path, *more) -> tuple[int, dict]:
    code = main([*words, *TASKS, "--output", str(tmp_path / "report.json"), *more])
    return code, json.loads((tmp_path / "report.json").read_text())


def test_a_dry_run_says_what_pack_would_do_and_writes_nothing(words, tmp_path, capsys):
    code, dry = report_of(words, tmp_path, "--dry-run")
    assert not (tmp_path / "out").exists()
    assert "nothing is written (--dry-run)" in " ".join(capsys.readouterr().out.split())
    packed_code, packed = report_of(words, tmp_path)
    assert code == packed_code == 2  # c7 has no file
    assert dry["problems"] == packed["problems"]
    assert dry["notes"] == packed["notes"]
    assert dry["columns"] == packed["columns"]
    kept = ("split", "clips", "unlabelled", "subjects")
    assert [[one[k] for k in kept] for one in dry["splits"]] == [
        [one[k] for k in kept] for one in packed["splits"]
    ]
    assert dry["is_dry"]


def test_columns_are_shown_with_their_values_ranges_and_codes(words, tmp_path, capsys):
    _, report = report_of(words, tmp_path, "--dry-run")
    columns = {column["title"]: column for column in report["columns"]}
    assert columns["Emotion"]["counts"] == {"fear": 2, "joy": 6}
    assert columns["Fold"]["counts"] == {"0": 4, "1": 4}
    assert columns["Split"]["counts"] == {"train": 6, "val": 2}
    assert columns["Subject"]["counts"] == {f"P{n}": 2 for n in range(4)}
    assert (columns["Valence"]["minimum"], columns["Valence"]["maximum"]) == (-1.0, 1.0)
    assert columns["Valence"]["empty"] == 1
    assert "codes for missing: -99 (in 1 cell of labels)" in report["notes"]
    shown = " ".join(capsys.readouterr().out.split())
    assert "joy 6" in shown


def test_a_dry_run_fails_where_pack_would(words, tmp_path, capsys):
    (tmp_path / "videos/c1.mp4").write_bytes(b"no clip at all")
    code, dry = report_of(words, tmp_path, "--dry-run")
    assert code == 2
    assert any("c1" in problem for problem in dry["problems"])
    assert main([*words, "--dry-run", "--tasks", "Nothing=class"]) == 1
    assert report_of(words, tmp_path)[1]["problems"] == dry["problems"]
    assert main([*words, *TASKS, "--dry-run"]) == 1  # shards are in the way
    assert "holds" in capsys.readouterr().err


def test_check_shows_what_is_kept_with_clips_and_the_classes(words, tmp_path):
    assert main([*words, *TASKS]) == 2
    shards = f"{tmp_path}/out/*.tar"
    main(["check", "--shards", shards, "--num-workers", "0", "--output", f"{tmp_path}/check.json"])
    found = json.loads((tmp_path / "check.json").read_text())
    assert found["metadata"]["Fold"] == {"0": 4, "1": 3}
    assert found["classes"]["emotion"] == {"fear": 2, "joy": 5}
    assert found["summary"]["subjects"] == 4
