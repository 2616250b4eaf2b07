"""`viper infer`: what was computed is written before anything else can fail, and no clip is ever left out."""

from __future__ import annotations

import csv
import json
import os
import sys
from pathlib import Path

import pytest
from support.deadly_renderer import DeadlyRenderClip
from support.media import make_clip

from viper_e2e.commands import inference
from viper_e2e.commands.cli import main
from viper_e2e.commands.pictures import picture_names
from viper_e2e.errors import ViperError
from viper_e2e.scoring import passes


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """Two clips of a second."""
    folder = tmp_path_factory.mktemp("clips")
    for name in ("a", "b"):
        make_clip(folder / f"{name}.mp4", num_frames=15)
    return folder


def infer(checkpoint: Path, *words: object) -> int:
    return main(["infer", *map(str, words), "--checkpoint", str(checkpoint), "--num-workers", "0"])


def error_of(capsys) -> str:
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    return lines[-1]


# --- nothing that was computed is lost ------------------------------------------------------------


@pytest.mark.slow
def test_a_reader_who_goes_away_takes_no_scores_along(tmp_path, checkpoint, clips, monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    out = tmp_path / "out.json"
    with os.fdopen(writing, "w") as closed, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", closed)
        (clips / "bad.mp4").write_text("no video")
        assert infer(checkpoint, clips, "--output", out) == 2, "the exit code still tells of the clips"
    (clips / "bad.mp4").unlink()
    assert len(json.loads(out.read_text())) == 3
    assert not Path(f"{out}.parts").exists()


@pytest.mark.slow
def test_records_are_written_before_the_table_is_drawn(tmp_path, checkpoint, clips, monkeypatch):
    out = tmp_path / "out.json"

    def fail(*_, **__):
        assert len(json.loads(out.read_text())) == 2
        raise RuntimeError("no table")

    monkeypatch.setattr(inference, "records_table", fail)
    with pytest.raises(RuntimeError, match="no table"):
        infer(checkpoint, clips, "--output", out)


@pytest.mark.slow
def test_what_could_not_be_written_is_kept_and_not_scored_again(
    tmp_path, checkpoint, clips, monkeypatch, capsys
):
    out = tmp_path / "out.csv"
    with monkeypatch.context() as patch:

        def full(*_, **__):
            raise ViperError(f"{out}: cannot be written (No space left on device)")

        patch.setattr(inference, "write_records", full)
        assert infer(checkpoint, clips, "--output", out) == 1
    assert f"nothing is lost: the same command continues from {out}.parts" in error_of(capsys)
    monkeypatch.setattr("viper_e2e.scoring.passes.in_batches", lambda *_: pytest.fail("again"))
    assert infer(checkpoint, clips, "--output", out) == 0
    assert len(list(csv.DictReader(out.open()))) == 2
    assert not Path(f"{out}.parts").exists()


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda folder: (folder / "o.csv").mkdir(), "o.csv: is a folder; name a file"),
        (lambda folder: (folder / "o.csv.parts").touch(), "o.csv.parts: is in the way"),
    ],
    ids=["a folder", "a file for parts"],
)
def test_an_output_that_cannot_be_is_refused_before_scoring(
    tmp_path, checkpoint, clips, make, told, monkeypatch, capsys
):
    make(tmp_path)
    monkeypatch.setattr(inference, "load_model", lambda _: pytest.fail("loaded"))
    assert infer(checkpoint, clips, "--output", tmp_path / "o.csv") == 1
    assert told in error_of(capsys)


@pytest.mark.skipif(os.geteuid() == 0, reason="the super-user writes everywhere")
def test_a_read_only_folder_is_refused_before_scoring(tmp_path, checkpoint, clips, monkeypatch, capsys):
    (tmp_path / "shut").mkdir(mode=0o500)
    monkeypatch.setattr(inference, "load_model", lambda _: pytest.fail("loaded"))
    assert infer(checkpoint, clips, "--output", tmp_path / "shut" / "o.csv") == 1
    assert "cannot be written into" in error_of(capsys)


@pytest.mark.slow
def test_a_missing_folder_is_made(tmp_path, checkpoint, clips):
    assert infer(checkpoint, clips / "a.mp4", "--output", tmp_path / "new" / "deep" / "o.json") == 0
    assert (tmp_path / "new" / "deep" / "o.json").is_file()


@pytest.mark.slow
def test_what_others_keep_beside_the_output_stays(tmp_path, checkpoint, clips):
    out = tmp_path / "x.csv"
    theirs = tmp_path / "x.csv.parts" / "notes.txt"
    theirs.parent.mkdir()
    theirs.write_text("precious")
    assert infer(checkpoint, clips, "--output", out) == 0
    assert theirs.read_text() == "precious"
    assert [path.name for path in theirs.parent.iterdir()] == ["notes.txt"]


# --- every clip has its record --------------------------------------------------------------------


@pytest.mark.slow
def test_a_clip_that_changes_while_others_are_read_keeps_its_record(tmp_path, checkpoint, monkeypatch):
    paths = [make_clip(tmp_path / f"{name}.mp4", num_frames=15) for name in "abc"]
    in_batches = passes.in_batches

    def touched(*given):
        for item in in_batches(*given):
            os.utime(paths[1], (1, 1))
            paths[2].unlink(missing_ok=True)
            yield item

    monkeypatch.setattr(passes, "in_batches", touched)
    out = tmp_path / "o.json"
    assert infer(checkpoint, tmp_path, "--output", out, "--batch-size", 1) in (0, 2)
    records = json.loads(out.read_text())
    assert [Path(record["clip"]).name for record in records] == ["a.mp4", "b.mp4", "c.mp4"]
    assert "the file was changed while it was scored" in records[1]["warning"]


@pytest.mark.slow
def test_a_clip_named_twice_has_two_records(tmp_path, checkpoint, clips):
    out = tmp_path / "o.json"
    assert infer(checkpoint, clips / "a.mp4", clips / "a.mp4", "--output", out) == 0
    assert len(json.loads(out.read_text())) == 2


def foreign(folder: Path, *samples: tuple[str, bytes | None, str]) -> Path:
    """A tar that `pack` did not write: name, clip or none, json."""
    import io
    import tarfile

    with tarfile.open(folder / "foreign.tar", "w") as tar:
        for name, clip, record in samples:
            for extension, data in (("mp4", clip), ("json", record.encode())):
                if data is not None:
                    info = tarfile.TarInfo(f"{name}.{extension}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return folder / "foreign.tar"


@pytest.mark.slow
def test_samples_of_a_foreign_shard_that_cannot_be_used_are_failed_records(tmp_path, checkpoint, clips):
    good = (clips / "a.mp4").read_bytes()
    shard = foreign(
        tmp_path, ("ok", good, '{"x": 1}'), ("odd", good, '{"intensities": 3}'), ("none", None, "{}")
    )
    out = tmp_path / "o.json"
    assert infer(checkpoint, shard, "--output", out) == 2
    records = {record["clip"]: record for record in json.loads(out.read_text())}
    assert list(records) == ["ok", "odd", "none"]
    assert records["ok"]["valid"]
    assert "is not an object of numbers" in records["odd"]["error"]
    assert "has no videos" in records["none"]["error"]


@pytest.mark.slow
def test_a_shard_without_any_usable_sample_is_told(tmp_path, checkpoint, capsys):
    assert infer(checkpoint, foreign(tmp_path, ("none", None, "{}"))) == 1
    assert "not read" in capsys.readouterr().out
    import tarfile

    tarfile.open(tmp_path / "empty.tar", "w").close()
    assert infer(checkpoint, tmp_path / "empty.tar") == 1
    assert "nothing to score" in error_of(capsys)


# --- windows --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_windows_are_rows_and_their_means_stand_in_a_file_of_their_own(tmp_path, checkpoint, capsys):
    make_clip(tmp_path / "clip.mp4", num_frames=45)
    (tmp_path / "bad.mp4").write_text("no video")
    out = tmp_path / "out.csv"
    assert infer(checkpoint, tmp_path, "--window-seconds", 1, "--hop-seconds", 1, "--output", out) == 2
    rows, whole = (list(csv.DictReader(path.open())) for path in (out, tmp_path / "out.summary.csv"))
    assert [(row["start_seconds"], row["end_seconds"], row["valid"]) for row in rows] == [
        ("", "", "0"),
        ("0", "1", "1"),
        ("1", "2", "1"),
        ("2", "3", "1"),
    ]
    assert [(row["start_seconds"], row["end_seconds"], row["valid"]) for row in whole] == [
        ("", "", "0"),
        ("0", "3", "1"),
    ]
    assert list(rows[0]) == list(whole[0])
    mean = sum(float(row["fear"]) for row in rows[1:]) / 3
    assert float(whole[1]["fear"]) == pytest.approx(mean, abs=1e-6)
    shown = capsys.readouterr().out
    assert "(mean)" in shown


@pytest.mark.slow
def test_a_summary_can_be_named(tmp_path, checkpoint, clips):
    words = ("--window-seconds", 1, "--output", tmp_path / "o.json", "--summary", tmp_path / "s" / "w.csv")
    assert infer(checkpoint, clips, *words) == 0
    assert len(list(csv.DictReader((tmp_path / "s" / "w.csv").open()))) == 2
    assert not (tmp_path / "o.summary.json").exists()
    assert infer(checkpoint, clips, "--summary", tmp_path / "w.csv") == 1


@pytest.mark.slow
def test_a_damaged_end_leaves_the_windows_before_it(tmp_path, checkpoint):
    path = make_clip(tmp_path / "clip.mp4", num_frames=90, sound=None, options={"g": "15", "bf": "0"})
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    middle = start + (len(data) - start) * 2 // 3
    data[middle : middle + 400] = b"\xff" * 400
    path.write_bytes(data)
    out = tmp_path / "o.json"
    code = infer(checkpoint, path, "--window-seconds", 1, "--hop-seconds", 1, "--output", out)
    *windows, rest = json.loads(out.read_text())
    assert code == 2
    assert len(windows) >= 2
    assert all(window["valid"] for window in windows)
    assert not rest["valid"]
    assert rest["start_seconds"] == windows[-1]["end_seconds"]
    (whole,) = json.loads((tmp_path / "o.summary.json").read_text())
    assert whole["valid"]
    assert whole["end_seconds"] == windows[-1]["end_seconds"]
    assert f"not scored from {rest['start_seconds']:g} s on" in whole["warning"]


# --- models ---------------------------------------------------------------------------------------


def test_without_a_checkpoint_it_says_which_models_there_are(tmp_path, capsys):
    assert main(["infer", str(tmp_path)]) == 1
    told = capsys.readouterr().err
    for words in ("VaianiLorenzo/ViPER-VA", "Hume-Reaction", "r .30", "make demo", "viper train"):
        assert words in told
    assert len(told.splitlines()) == 4


# --- check ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_report_that_cannot_be_written_is_refused_before_reading(tmp_path, clips, capsys):
    shard = foreign(tmp_path, ("ok", (clips / "a.mp4").read_bytes(), "{}"))
    words = ["check", "--shards", str(shard), "--num-workers", "1", "--output"]
    (tmp_path / "c.json").mkdir()
    assert main([*words, str(tmp_path / "c.json")]) == 1
    assert "is a folder; name a file" in error_of(capsys)
    assert main([*words, str(tmp_path / "new" / "c.json")]) == 0
    assert json.loads((tmp_path / "new" / "c.json").read_text())["summary"]["clips"] == 1


def test_packing_refuses_a_report_that_cannot_be_written_before_it_packs(tmp_path, clips, capsys):
    (tmp_path / "r.json").mkdir()
    (tmp_path / "labels.csv").write_text("File_ID,Split,Joy\na,train,0.5\n")
    words = ["--videos", clips, "--labels", tmp_path / "labels.csv", "--out", tmp_path / "shards"]
    assert main(["pack", *map(str, words), "--output", str(tmp_path / "r.json")]) == 1
    assert "is a folder; name a file" in error_of(capsys)
    assert not (tmp_path / "shards").exists()


# --- pictures -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clips", "names"),
    [
        (["a.mp4", "b.mp4"], ["a", "b"]),
        (["/x/a.mp4", "/x/a.mov", "/x/A.mkv"], ["a", "a-2", "A-3"]),
        (["/x/VP01/clip.mp4", "/x/VP02/clip.mp4", "/x/clip.mp4"], ["VP01_clip", "VP02_clip", "clip"]),
        (["../-rf.mp4", ".mp4", "we:ird\n?.mp4", "Müller 2.mp4"], ["_-rf", "mp4", "we_ird", "Müller 2"]),
        (["x/" + "long" * 60 + ".mp4"], [("long" * 60)[-60:]]),
        (["a.mp4", "a.mp4", "a-2.mp4"], ["a", "a-2", "a-2-2"]),
        ([], []),
    ],
)
def test_pictures_have_safe_names_and_no_two_the_same(clips, names):
    assert picture_names(clips) == names


@pytest.mark.slow
def test_every_clip_of_a_call_is_plotted_and_rendered_with_its_windows(tmp_path, checkpoint, clips, capsys):
    (tmp_path / "bad.mp4").write_text("no video")
    out = tmp_path / "out"
    words = (clips, tmp_path / "bad.mp4", "--window-seconds", 0.5, "--hop-seconds", 0.5)
    assert infer(checkpoint, "--out", out, "--plot", "--render", *words) == 2
    made = {path.name for path in out.iterdir()}
    stem = clips.name
    assert {f"{stem}_a.png", f"{stem}_b.png", f"{stem}_a.mp4", f"{stem}_b.mp4"} < made
    assert {"scores.csv", "scores.summary.csv"} < made
    assert not [name for name in made if "bad" in name]
    assert infer(checkpoint, "--out", out, "--render", *words) == 2, "earlier renderings may be replaced"


@pytest.mark.slow
def test_what_follows_render_beside_out_is_a_clip(tmp_path, checkpoint, clips):
    before = (clips / "a.mp4").read_bytes()
    assert infer(checkpoint, "--out", tmp_path, "--render", clips / "a.mp4", clips / "b.mp4") == 0
    assert {"a.mp4", "b.mp4", "scores.csv"} == {path.name for path in tmp_path.iterdir()}
    assert (clips / "a.mp4").read_bytes() == before


def test_a_video_that_is_no_rendering_is_never_written_over(tmp_path, checkpoint, clips, capsys, monkeypatch):
    monkeypatch.setattr(inference, "load_model", lambda _: pytest.fail("loaded"))
    before = (clips / "a.mp4").read_bytes()
    assert infer(checkpoint, "--render", clips / "a.mp4", clips / "b.mp4") == 1
    assert "exists and was not rendered by viper" in error_of(capsys)
    assert infer(checkpoint, clips, "--out", clips, "--render") == 1
    assert (clips / "a.mp4").read_bytes() == before
    assert infer(checkpoint, clips, "--render") == 1
    assert "add --out FOLDER" in error_of(capsys)


@pytest.mark.slow
def test_a_clip_of_a_shard_is_rendered_and_a_picture_that_fails_ends_nothing(
    tmp_path, checkpoint, clips, capsys, monkeypatch
):
    good = (clips / "a.mp4").read_bytes()
    shard = foreign(tmp_path, ("bad", None, "{}"), ("one", good, "{}"), ("two", good, "{}"))
    assert infer(checkpoint, shard, "--out", tmp_path / "out", "--render") == 2
    assert {"one.mp4", "two.mp4"} < {path.name for path in (tmp_path / "out").iterdir()}
    capsys.readouterr()

    def fail(*_, **__):
        raise ViperError("no encoder")

    monkeypatch.setattr("viper_e2e.report.render.render", fail)
    assert infer(checkpoint, clips, "--out", tmp_path / "o", "--render") == 2
    captured = capsys.readouterr()
    assert captured.err.count("not drawn: no encoder") == 2
    assert "faces: share of frames" in captured.out, "the table is shown all the same"


@pytest.mark.slow
def test_a_clip_that_crashes_while_it_is_rendered_costs_its_video_alone(
    tmp_path, checkpoint, clips, capsys, monkeypatch
):
    monkeypatch.setattr("viper_e2e.report.RenderClip", DeadlyRenderClip)
    named = [tmp_path / name for name in ("dead.mp4", "b.mp4")]
    for path in named:
        path.write_bytes((clips / "a.mp4").read_bytes())
    words = [*map(str, named), f"--out={tmp_path / 'o'}", "--render", f"--checkpoint={checkpoint}"]
    assert main(["infer", *words, "--num-workers=1"]) == 2
    assert {path.name for path in (tmp_path / "o").iterdir()} == {"b.mp4", "scores.csv"}
    told = " ".join(capsys.readouterr().err.split())
    assert "dead.mp4: not drawn: its process was lost (killed by SIGKILL" in told
