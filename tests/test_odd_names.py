"""Files called as phones, macOS and people call them: packed under their own names, or told before that."""

from __future__ import annotations

import csv
import os
import sys
import unicodedata
from pathlib import Path

import pytest
from support.media import make_clip
from support.odd_names import ODD_NAMES

from viper_e2e.packing import pack
from viper_e2e.shards import ShardSet

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse some of these names")

REFUSED = {"tab\there", "new\nline", "back\\slash", os.fsdecode(b"caf\xe9"), "."}


def write_table(path: Path, ids: list[str]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["File_ID", "Split", "Joy"], *([name, "train", "0.5"] for name in ids)])
    return path


def test_odd_names_are_packed_or_refused_in_a_line(tmp_path):
    folder = tmp_path / "clips [1]"
    folder.mkdir()
    data = make_clip(tmp_path / "one.mp4", num_frames=1, sound=None).read_bytes()
    for name in ODD_NAMES:
        (folder / name).write_bytes(data + name.encode("utf-8", "surrogateescape"))
    stems = [name.rpartition(".")[0] for name in ODD_NAMES]
    good = [stem for stem in stems if stem.strip() not in REFUSED and not stem.startswith("#")]  # a comment
    in_table = [stem for stem in stems if stem not in (os.fsdecode(b"caf\xe9"), ".")]
    table = write_table(tmp_path / "labels.csv", in_table)
    report = pack(folder, table, tmp_path / "out")
    shards = ShardSet(str(tmp_path / "out" / "train-*.tar"))
    assert sorted(shards.entry(i).file_id for i in range(len(shards))) == sorted(stem.strip() for stem in good)
    for i in range(len(shards)):
        sample = shards.read(i)
        written = bytes(sample.video)[len(data) :].decode()
        assert unicodedata.normalize("NFC", written.rpartition(".")[0]).strip() == unicodedata.normalize(
            "NFC", sample.file_id
        )
    told = "\n".join(report.problems)
    assert "has a control character (U+0009)" in told
    assert "caf\\\\xe9" in told
    assert "is not UTF-8" in told
    # Any WebDataset reader sees the same samples.
    for path in (tmp_path / "out").glob("*.index.json"):
        path.unlink()
    foreign = ShardSet(str(tmp_path / "out" / "train-*.tar"))
    assert not foreign.problems
    assert {foreign.entry(i).file_id for i in range(len(foreign))} == {stem.strip() for stem in good}


def test_a_label_typed_in_one_spelling_finds_a_file_stored_in_the_other(tmp_path):
    (tmp_path / "videos").mkdir()
    make_clip(tmp_path / "videos" / unicodedata.normalize("NFD", "Zoë.mp4"), num_frames=1, sound=None)
    table = write_table(tmp_path / "labels.csv", [unicodedata.normalize("NFC", "Zoë")])
    assert pack(tmp_path / "videos", table, tmp_path / "out").exit_code == 0


def test_names_that_only_a_dot_tells_apart_stay_two_samples_or_are_told(tmp_path):
    (tmp_path / "videos").mkdir()
    for name in ("a.1", "a_1", "b"):
        make_clip(tmp_path / "videos" / f"{name}.mp4", num_frames=1, sound=None)
    table = write_table(tmp_path / "labels.csv", ["a.1", "a_1", "b"])
    report = pack(tmp_path / "videos", table, tmp_path / "out")
    assert report.exit_code == 2
    assert "become the same name" in " ".join(report.problems)


def test_the_same_name_in_two_folders_is_never_taken_silently(tmp_path):
    for folder in ("train", "dev"):
        (tmp_path / "videos" / folder).mkdir(parents=True)
        make_clip(tmp_path / "videos" / folder / "dia0_utt0.mp4", num_frames=1, sound=None)
        make_clip(tmp_path / "videos" / folder / f"{folder}.mp4", num_frames=1, sound=None)
    table = write_table(tmp_path / "labels.csv", ["dia0_utt0", "train", "dev"])
    report = pack(tmp_path / "videos", table, tmp_path / "out")
    assert report.exit_code == 2
    assert "dia0_utt0: more than one file" in " ".join(report.problems)


def test_pack_finds_every_ending_and_counts_what_is_none(tmp_path):
    folder = tmp_path / "videos" / "day 1.mp4"
    folder.mkdir(parents=True)
    data = make_clip(tmp_path / "one.mp4", num_frames=1, sound=None).read_bytes()
    names = ["a.MTS", "b.m4v", "c.3gp", "d.wmv", "e.MPG"]
    for name in names:
        (folder / name).write_bytes(data)
    (folder / "._a.MTS").write_bytes(b"Mac OS X")
    (folder / "notes.docx").write_bytes(b"words")
    (folder / "f.mp4").symlink_to("nowhere")
    table = write_table(tmp_path / "labels.csv", [name[0] for name in names])
    report = pack(tmp_path / "videos", table, tmp_path / "out")
    assert report.exit_code == 0
    told = " ".join(report.notes)
    assert "1 file does not have the extension of a clip: 1 .docx" in told
    assert "f.mp4 (a broken link)" in told
    assert len(ShardSet(str(tmp_path / "out" / "train-*.tar"))) == 5
