"""test_packing.py: what can be packed is packed the same every time, and everything else is named."""

from __future__ import annotations

import hashlib
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from viper_e2e.errors import ViperError
from viper_e2e.labels import HUME_REACTION, LabelSet
from viper_e2e.packing import PackOptions, pack
from viper_e2e.packing.action_units import read_action_units
from viper_e2e.packing.report import Findings
from viper_e2e.runtime.progress import counting
from viper_e2e.shards import ACTION_UNITS, FACIAL_EMOTIONS, ShardError, ShardSet
from viper_e2e.tables import read_labels, write_labels

MP4 = b"\0\0\0\x18ftypisom\0\0\0\0isommp42" + bytes(1000)
WAV = b"RIFF\x24\0\0\0WAVEfmt " + bytes(100)
FLAC = b"fLaC\0\0\0\x22" + bytes(100)


def corpus(folder: Path, num_clips: int = 6, **changes: object) -> tuple[Path, Path]:
    """``videos`` and ``labels.csv`` in Hume-Reaction's layout; the clips are headers only."""
    videos = folder / "videos"
    videos.mkdir(parents=True)
    rows = []
    for n in range(num_clips):
        (videos / f"{n:05d}.mp4").write_bytes(MP4 + f"{n}".encode() * 100)
        values = {column: round((n + 1) * (k + 1) / 100, 2) for k, column in enumerate(HUME_REACTION.columns)}
        split = ("Train", "Val", "Test")[n % 3]
        rows.append({"File_ID": f"[{n:05d}]", "Split": split, "Subject": f"s{n}", **values, **changes})
    write_labels(folder / "labels.csv", rows)
    return videos, folder / "labels.csv"


def digest(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


# --- packing ------------------------------------------------------------------------------------


def test_every_split_becomes_shards_that_read_back(tmp_path):
    videos, labels = corpus(tmp_path)
    report = pack(videos, labels, tmp_path / "out")
    assert report.exit_code == 0
    assert [(s.split, s.clips, s.shards) for s in report.splits] == [
        ("test", 2, 1),
        ("train", 2, 1),
        ("val", 2, 1),
    ]
    shards = ShardSet(str(tmp_path / "out" / "*.tar"))
    assert shards.labels == HUME_REACTION
    seen = {}
    for n in range(len(shards)):
        sample = shards.read(n)
        seen[sample.key] = (sample.video, sample.file_id, sample.subject, sample.intensities)
    for n in range(6):
        values = tuple(round((n + 1) * (k + 1) / 100, 2) for k in range(7))
        assert seen[f"{n:05d}"] == (MP4 + f"{n}".encode() * 100, f"[{n:05d}]", f"s{n}", values)


@pytest.mark.slow
def test_same_input_gives_the_same_bytes_and_another_seed_another_order(tmp_path):
    videos, labels = corpus(tmp_path, 30)
    for out, seed in (("a", 0), ("b", 0), ("c", 1)):
        pack(videos, labels, tmp_path / out, PackOptions(seed=seed, shard_size=5_000))
    assert digest(tmp_path / "a") == digest(tmp_path / "b") != digest(tmp_path / "c")

    def keys(out: str) -> list[str]:
        shards = ShardSet(str(tmp_path / out / "train-*.tar"))
        return [shards.entry(n).key for n in range(len(shards))]

    assert sorted(keys("a")) == sorted(keys("c"))
    assert keys("a") != sorted(keys("a"))


def test_shards_stay_under_their_size(tmp_path):
    videos, labels = corpus(tmp_path, 30)
    report = pack(videos, labels, tmp_path / "out", PackOptions(shard_size=12_000))
    assert all(s.shards > 1 for s in report.splits)
    for path in (tmp_path / "out").glob("*.tar"):
        assert path.stat().st_size <= 12_000 + 10_240 + 1024


def test_nested_folders_upper_case_and_all_containers_are_found(tmp_path):
    videos, labels = corpus(tmp_path, 2)
    (videos / "deep").mkdir()
    (videos / "00000.mp4").rename(videos / "deep" / "00000.MP4")
    (videos / "00001.mp4").unlink()
    (videos / "00001.flv").write_bytes(b"FLV\x01\x05\0\0\0\x09" + bytes(100))
    assert pack(videos, labels, tmp_path / "out").exit_code == 0
    shards = ShardSet(str(tmp_path / "out/*.tar"))
    assert {next(iter(set(shards.entry(n).members) - {"json"})) for n in range(2)} == {"mp4", "flv"}


def test_sound_and_action_units_travel_with_their_clip(tmp_path):
    videos, labels = corpus(tmp_path, 3)
    for folder in ("audio", "fau"):
        (tmp_path / folder).mkdir()
    (tmp_path / "audio/00000.wav").write_bytes(WAV)
    (tmp_path / "audio/00001.flac").write_bytes(FLAC)
    np.save(tmp_path / "fau/00000.npy", np.full((5, 27), 0.5))
    header = ",".join(["File_ID", "timestamp", *(f"AU{n[2:]:0>2}" for n in ACTION_UNITS)])
    (tmp_path / "fau/00001.csv").write_text(
        header + "\n" + ",".join(["[1]", "0.0", "", "nan", *["0.25"] * 18]) + "\n"
    )
    report = pack(videos, labels, tmp_path / "out", PackOptions(audio=tmp_path / "audio", fau=tmp_path / "fau"))
    assert report.exit_code == 0
    assert report.notes == (
        "1 clip whose action units come without the seven emotions (stored as 0)",
        f"1 clip without a file of action units in {tmp_path / 'fau'}",
        f"1 clip without a file of sound in {tmp_path / 'audio'}",
    )
    shards = ShardSet(str(tmp_path / "out/*.tar"))
    samples = {shards.read(n).key: shards.read(n) for n in range(3)}
    assert [samples[key].sound for key in sorted(samples)] == [WAV, FLAC, None]
    np.testing.assert_array_equal(samples["00000"].action_units, np.full((5, 27), 0.5, np.float32))
    np.testing.assert_array_equal(samples["00001"].action_units, [[0.0] * 2 + [0.25] * 18 + [0.0] * 7])
    assert samples["00002"].action_units is None


def test_unlabelled_clips_are_packed_without_intensities(tmp_path):
    videos, labels = corpus(tmp_path, 3, **dict.fromkeys(HUME_REACTION.columns, ""))
    report = pack(videos, labels, tmp_path / "out")
    assert (report.exit_code, [s.unlabelled for s in report.splits]) == (0, [1, 1, 1])
    shards = ShardSet(str(tmp_path / "out/*.tar"))
    assert shards.labels == HUME_REACTION
    assert shards.read(0).intensities is None


def test_what_cannot_be_packed_is_listed_and_the_rest_is_packed(tmp_path):
    videos, labels = corpus(tmp_path, 9)
    (videos / "00000.mp4").unlink()
    (videos / "00001.mp4").write_bytes(b"")
    (videos / "00002.mp4").write_bytes(b"#EXTM3U\nhttp://127.0.0.1/x.ts\n")
    (videos / "00003.mkv").write_bytes(MP4)
    (videos / "00004.mp4").chmod(0)
    (videos / "stranger.mp4").write_bytes(MP4)
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio/00005.wav").write_bytes(b"not sound")
    (tmp_path / "fau").mkdir()
    np.save(tmp_path / "fau/00006.npy", np.zeros((5, 3)))
    report = pack(videos, labels, tmp_path / "out", PackOptions(audio=tmp_path / "audio", fau=tmp_path / "fau"))
    assert report.exit_code == 2
    wanted = ["[00000]: no video 00000.*", "00001.mp4: is empty", "00002.mp4: is an HLS playlist"]
    wanted += [
        "[00003]: more than one file",
        "00005.wav",
        "00006.npy: 3 columns",
    ]
    can_read_anything = (videos / "00004.mp4").stat().st_uid == 0
    wanted += [] if can_read_anything else ["00004.mp4: cannot be read"]
    for text in wanted:
        assert sum(text in problem for problem in report.problems) == 1, (text, report.problems)
    assert len(report.problems) == len(wanted)
    assert "1 clip with a video but no usable row in the labels" in report.notes
    assert len(ShardSet(str(tmp_path / "out/*.tar"))) == 9 - len(wanted)


def test_nothing_to_pack_is_an_error_and_leaves_nothing(tmp_path):
    videos, labels = corpus(tmp_path, 1)
    (videos / "00000.mp4").write_bytes(b"text")
    with pytest.raises(ViperError, match=r"nothing to pack .*00000\.mp4"):
        pack(videos, labels, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_an_interrupted_run_leaves_nothing_and_can_be_repeated(tmp_path):
    videos, labels = corpus(tmp_path, 9)

    def interrupt(done: int, total: int) -> None:
        assert total == 9
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(videos, labels, tmp_path / "out", PackOptions(shard_size=2_000), progress=interrupt)
    assert list((tmp_path / "out").iterdir()) == []
    (tmp_path / "out" / ".packing-killed").mkdir()
    report = pack(videos, labels, tmp_path / "out")
    assert report.exit_code == 0
    assert report.notes == (
        f"{tmp_path / 'out' / '.packing-killed'} is left from a run that was killed; remove it",
    )


def test_shards_of_another_run_are_not_overwritten_unless_told(tmp_path):
    videos, labels = corpus(tmp_path, 9)
    pack(videos, labels, tmp_path / "out", PackOptions(shard_size=2_000))
    before = digest(tmp_path / "out")
    with pytest.raises(ViperError, match="another run"):
        pack(videos, labels, tmp_path / "out")
    assert digest(tmp_path / "out") == before
    pack(videos, labels, tmp_path / "out", PackOptions(overwrite=True))
    pack(videos, labels, tmp_path / "fresh")
    assert digest(tmp_path / "out") == digest(tmp_path / "fresh")


def test_overwriting_takes_nothing_that_is_not_its_own(tmp_path):
    videos, labels = corpus(tmp_path, 9)
    pack(videos, labels, tmp_path / "out", PackOptions(shard_size=2_000))
    theirs = tmp_path / "out" / "laion-000000.tar"
    theirs.write_bytes(b"somebody's")
    report = pack(videos, labels, tmp_path / "out", PackOptions(overwrite=True))
    assert theirs.read_bytes() == b"somebody's"
    assert any("laion-000000.tar stays as it is" in note for note in report.notes)
    foreign = tmp_path / "out" / "train-000077.tar"
    foreign.write_bytes(b"somebody's")
    before = digest(tmp_path / "out")
    with pytest.raises(ViperError, match=r"train-000077.tar: was not written by viper pack; move it"):
        pack(videos, labels, tmp_path / "out", PackOptions(overwrite=True))
    assert digest(tmp_path / "out") == before


def test_a_shard_that_changed_after_packing_is_found_out(tmp_path):
    videos, labels = corpus(tmp_path, 3)
    pack(videos, labels, tmp_path / "out")
    tar = tmp_path / "out" / "train-000000.tar"
    tar.write_bytes(tar.read_bytes()[:2048])
    with pytest.raises(ShardError, match="its index says"):
        ShardSet(str(tmp_path / "out/*.tar"))


def test_the_report_is_plain_data_and_a_table(tmp_path):
    videos, labels = corpus(tmp_path, 3)
    (videos / "00000.mp4").unlink()
    report = pack(videos, labels, tmp_path / "out")
    assert json.loads(json.dumps(report.to_json()))["splits"][0]["clips"] == 1
    console = Console(width=200, file=io.StringIO())
    console.print(report)
    text = console.file.getvalue()
    assert "empathic_pain" in text
    assert "left out: [00000]: no video" in text


# --- labels.csv ---------------------------------------------------------------------------------


def test_any_label_set_and_range_is_kept_in_its_order(tmp_path):
    rows = [
        {"Joy": 3, "File_ID": "a", "Split": "x", "Dread": -1.5},
        {"Joy": 90, "File_ID": "b", "Split": "x", "Dread": 7},
    ]
    write_labels(tmp_path / "labels.csv", rows)
    table = read_labels(tmp_path / "labels.csv")
    assert table.labels == LabelSet(("Joy", "Dread"), -1.5, 90.0)
    assert [row.intensities for row in table.rows] == [(3.0, -1.5), (90.0, 7.0)]
    assert table.problems == ()


def test_a_byte_order_mark_blank_lines_and_spaces_do_no_harm(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_bytes("\ufeffFile_ID , Split,Joy\r\n\r\n [007] , Train , 0.5 \r\n,,\r\n".encode())
    (row,) = read_labels(path).rows
    assert (row.file_id, row.key, row.split, row.intensities, row.line) == ("[007]", "007", "train", (0.5,), 3)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[00002],Test,s2,0.03,", "[00002],Test,s2,abc,", r"line 4: Adoration is 'abc', not a number"),
        ("[00002],Test,s2,0.03,", "[00002],Test,s2,nan,", r"line 4: Adoration is 'nan', not a number"),
        ("[00002],Test,s2,0.03,", "[00002],Test,s2,,", r"line 4: Adoration empty, others filled"),
        ("[00002],Test,s2,0.03,", "[00002],Test,s2,", r"line 4: 9 cells, the header has 10"),
        ("[00002]", "../00002", r"line 4: unusable File_ID '\.\./00002'"),
        ("[00002]", "", r"line 4: unusable File_ID ''"),
        ("[00002],Test", "[00002],../x", r"line 4: unusable Split '\.\./x'"),
        ("[00002],Test", "[00002],", r"line 4: unusable Split ''"),
    ],
)
def test_a_wrong_row_is_named_by_its_line_and_left_out(tmp_path, old, new, message):
    videos, labels = corpus(tmp_path)
    edit(labels, old, new)
    report = pack(videos, labels, tmp_path / "out")
    assert report.exit_code == 2
    (problem,) = report.problems
    assert problem.startswith(str(labels))
    assert re.search(message, problem)
    assert len(ShardSet(str(tmp_path / "out/*.tar"))) == 5


def test_a_doubled_id_names_both_lines_and_packs_neither(tmp_path):
    videos, labels = corpus(tmp_path)
    edit(labels, "[00004]", "00001")
    report = pack(videos, labels, tmp_path / "out")
    assert report.problems == (
        f"{labels}: lines 3 and 6: File_ID '00001' more than once; none of them is packed",
    )
    assert len(ShardSet(str(tmp_path / "out/*.tar"))) == 4


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("File_ID", "Fille_ID", r"no column 'File_ID' .*did you mean Fille_ID\?"),
        ("Split", "Spilt", r"no column 'Split' .*did you mean Spilt\?"),
        ("Split", "Part", r"no column 'Split' among"),
        ("Adoration", "Adoratoin", r"unknown column 'Adoratoin'; did you mean Adoration\?"),
        ("Empathic-Pain", "EmpathicPain", r"unknown column 'EmpathicPain'; did you mean Empathic-Pain\?"),
        ("Subject", "Subjekt", r"'Subjekt' seems to name the person in the clip.* --subject-column Subjekt"),
        ("Subject", "Sujbect", r"unknown column 'Sujbect'; did you mean Subject\?"),
        ("Fear", "Disgust", r"column 'Disgust' comes 2 times"),
        ("Fear", "", r"column 9 has no title"),
    ],
)
def test_a_wrong_header_stops_everything(tmp_path, old, new, message):
    videos, labels = corpus(tmp_path)
    edit(labels, old, new)
    with pytest.raises(ViperError, match=message) as error:
        pack(videos, labels, tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, r"cannot be read"),
        (b"", r"no rows"),
        (b"File_ID,Split,Joy\n", r"no rows"),
        (b"File_ID,Split\na,train\n", r"no emotion columns"),
        (b"File_ID,Split,Joy\n\xc4\xe3\xba\xc3,train,1\n", r"not UTF-8"),
        (b'File_ID,Split,Joy\n"a,train,1\n', r"unexpected end of data"),
        (b"File_ID:Split:Joy\na:train:1\n", r"titles are separated by colons"),
    ],
)
def test_a_file_that_is_no_table_says_so(tmp_path, data, message):
    if data is not None:
        (tmp_path / "labels.csv").write_bytes(data)
    with pytest.raises(ViperError, match=message):
        read_labels(tmp_path / "labels.csv")


def test_a_folder_that_is_not_there_says_so(tmp_path):
    _, labels = corpus(tmp_path)
    with pytest.raises(ViperError, match=r"nowhere: no such folder"):
        pack(tmp_path / "nowhere", labels, tmp_path / "out")


# --- action units ----------------------------------------------------------------------------


@pytest.mark.parametrize("shard_size", [0, -1])
def test_a_shard_size_that_makes_no_sense_is_refused(tmp_path, shard_size):
    videos, labels = corpus(tmp_path)
    with pytest.raises(ViperError, match="positive number of bytes"):
        pack(videos, labels, tmp_path / "out", PackOptions(shard_size=shard_size))


def test_action_units_are_ordered_by_their_names():
    names = [*FACIAL_EMOTIONS, *reversed(ACTION_UNITS), "face_x"]
    data = ",".join(names) + "\n" + ",".join(str(n) for n in range(28)) + "\n"
    units, has_emotions = read_action_units("a.csv", data.encode())
    assert has_emotions
    assert units.tolist() == [[*range(26, 6, -1), *range(7)]]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("", "no rows"),
        ("AU01,AU02\n1,2\n", "no column for au4, au5"),
        ("{header}\n" + ",".join(["x"] * 20) + "\n", "line 2: 'x' is not a number"),
        ("{header}\n1,2\n", "line 2: 2 cells"),
        ("{header}\n" + ",".join(["inf"] * 20) + "\n", "not finite"),
    ],
)
def test_action_units_that_make_no_sense_are_refused(data, message):
    data = data.replace("{header}", ",".join(ACTION_UNITS))
    with pytest.raises(ValueError, match=message):
        read_action_units("a.csv", data.encode())


def test_the_bar_counts_and_says_nothing_where_nothing_was_done(capsys):
    with counting("packing"):
        pass
    assert capsys.readouterr().err.strip() == ""
    with counting("packing") as progress:
        progress(3, 3)
    assert "3/3" in capsys.readouterr().err


def test_what_is_true_of_several_clips_is_one_note_behind_those_that_stand_for_themselves():
    findings = Findings()
    findings.count("without sound")
    findings.note(["clips that no row names: a.mp4"])
    findings.count("without sound")
    findings.count("cut", 3)
    findings.leave_out("a: no video", "b: no video")
    assert findings.notes == ("clips that no row names: a.mp4", "3 clips cut", "2 clips without sound")
    assert findings.problems == ["a: no video", "b: no video"]


@pytest.mark.parametrize("size", [0, -1])
def test_options_that_nothing_can_be_packed_with_are_refused_when_they_are_made(size):
    with pytest.raises(ViperError, match="give a positive number of bytes"):
        PackOptions(shard_size=size)
