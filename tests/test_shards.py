"""test_shards.py: shards are read whole or reported, by offset, whatever wrote them."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset
from support.our_shards import LABELS, write_ours
from support.tars import record, three_samples, write_foreign
from webdataset.tariterators import base_plus_ext

from viper_e2e.errors import ClipError
from viper_e2e.labels import LabelSet
from viper_e2e.shards import (
    ShardError,
    ShardLimits,
    ShardSet,
    index_path,
)
from viper_e2e.shards.index import key_and_extension
from viper_e2e.shards.sources import open_source
from viper_e2e.shards.tar import walk_tar

# --- round trip ---------------------------------------------------------------------------------


def test_what_was_packed_is_read_back_to_the_byte(tmp_path):
    shards = ShardSet(write_ours(tmp_path, 7, shard_size=10_000))
    assert len(shards) == 7
    assert len(shards.shards) > 1
    assert sum(shards.shard_sizes) == 7
    assert shards.labels == LABELS
    for n in range(7):
        sample = shards.read(n)
        assert sample.key == shards.entry(n).key == f"{n:05d}"
        assert sample.file_id == f"[{n:05d}]"
        assert sample.video == f"video {n} ".encode() * 100
        assert sample.subject == f"s{n % 2}"
        assert sample.intensities == (None if n % 3 == 2 else (0.25, n / 1000))
        assert (sample.sound, sample.action_units is None) == (
            (b"RIFF" * 50, False) if n % 3 == 1 else (None, True)
        )
        assert sample.shard == shards.shard_of(n).path_or_url
        assert shards.shard_of(n).split == "train"
    np.testing.assert_array_equal(shards.read(4).action_units, np.full((4, 27), 4, np.float32))
    with pytest.raises(IndexError):
        shards.entry(7)


def test_plain_webdataset_reads_our_shards(tmp_path):
    (path,) = write_ours(tmp_path)
    samples = list(webdataset.WebDataset(path, shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == ["00000", "00001", "00002"]
    assert samples[1]["mp4"] == b"video 1 " * 100
    assert json.loads(samples[1]["json"]) == {
        "file_id": "[00001]",
        "intensities": {"adoration": 0.25, "empathic_pain": 0.001},
        "subject": "s1",
    }
    assert np.load(io.BytesIO(samples[1]["fau.npy"])).shape == (4, 27)


def test_we_read_shards_written_by_webdataset(tmp_path):
    path = tmp_path / "val-000000.tar"
    with webdataset.TarWriter(str(path)) as writer:
        for n in range(3):
            intensities = {"fear": n / 10, "joy": 5.0} if n < 2 else {"joy": 5.0, "fear": n / 10}
            writer.write({"__key__": f"clip{n}", "mp4": b"v%d" % n, "json": {"intensities": intensities}})
    shards = ShardSet(str(path))
    assert shards.problems == ()
    assert shards.labels == LabelSet(("fear", "joy"), 0.0, 5.0)
    assert [shards.read(n).video for n in range(3)] == [b"v0", b"v1", b"v2"]
    assert [shards.read(n).intensities for n in range(3)] == [(0.0, 5.0), (0.1, 5.0), (0.2, 5.0)]
    assert shards.read(0).file_id == "clip0"
    assert shards.shards[0].split == "val"


def test_a_shard_that_lost_its_index_is_read_the_same(tmp_path):
    (path,) = write_ours(tmp_path)
    with_index = ShardSet(path)
    Path(index_path(path)).unlink()
    without = ShardSet(path)
    assert without.labels.names == with_index.labels.names
    for n in range(3):
        a, b = with_index.read(n), without.read(n)
        assert (a.key, a.video, a.file_id, a.sound, a.intensities, a.subject) == (
            *(b.key, b.video, b.file_id, b.sound, b.intensities, b.subject),
        )


@pytest.mark.parametrize(
    "name",
    [
        "a.mp4",
        "x.y.mp4",
        "d/e.f/g.h.MP4",
        "./a.mp4",
        ".hidden.mp4",
        "noext",
        "a.fau.npy",
        "a/b",
        "a..mp4",
    ],
)
def test_keys_end_at_the_first_dot_as_webdataset_says(name):
    prefix, suffix = base_plus_ext(name)
    expected = None if prefix is None else (prefix, suffix.lower())
    assert key_and_extension(name) == expected


def test_the_shadow_files_of_macos_are_no_samples():
    assert key_and_extension("d/._a.mp4") is None  # webdataset makes a sample "d/" of all of them


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_foreign_names_are_read(tmp_path, format):
    key = "ü" * 90 + "/" + "k" * 150
    path = write_foreign(
        tmp_path / "a.tar", [(f"{key}.mp4", b"film"), (f"{key}.json", record(1))], format=format
    )
    shards = ShardSet(str(path))
    assert shards.entry(0).key == key
    assert shards.read(0).video == b"film"


def test_a_pickled_set_reads_in_another_process(tmp_path):
    shards = ShardSet(write_ours(tmp_path))
    code = "import pickle, sys; s = pickle.load(sys.stdin.buffer); print(s.read(2).video[:7].decode())"
    done = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(shards), capture_output=True, check=True
    )
    assert done.stdout == b"video 2\n"


def test_reading_imports_neither_torch_nor_webdataset(tmp_path):
    (path,) = write_ours(tmp_path)
    code = (
        f"import sys; from viper_e2e.shards import ShardSet; ShardSet({path!r}).read(0);"
        "print([name for name in ('torch', 'webdataset', 'av') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout == "[]\n"


# --- torn and damaged ---------------------------------------------------------------------------


@pytest.mark.survival
def test_a_foreign_shard_cut_at_every_block_is_reported_never_half_read(tmp_path):
    whole = write_foreign(tmp_path / "whole.tar", three_samples("A")).read_bytes()
    other = write_foreign(tmp_path / "b.tar", three_samples("B"))
    wanted = {f"{n}": f"A video {n} ".encode() * 70 for n in range(3)}
    end = len(whole.rstrip(b"\0")) // 512 * 512 + 512 + 1024  # data, then the marker; the rest is padding
    cut, reported = tmp_path / "a.tar", 0
    for length in [*range(0, end, 512), *range(100, end, 4096)]:
        cut.write_bytes(whole[:length])
        with pytest.raises(ShardError, match=r"a\.tar.*incomplete"):
            ShardSet([str(cut), str(other)])
        shards = ShardSet([str(cut), str(other)], strict=False)
        assert any(str(cut) in problem and "incomplete" in problem for problem in shards.problems)
        reported += 1
        for n in range(len(shards)):
            sample, tag = shards.read(n), b"A" if shards.shard_of(n).path_or_url == str(cut) else b"B"
            assert sample.video == wanted[sample.key].replace(b"A", tag)
            assert sample.sound == f"A sound {sample.key} ".encode().replace(b"A", tag) * 50
            assert sample.intensities == (int(sample.key) / 100,)
    assert reported > 20
    cut.write_bytes(whole)
    assert len(ShardSet(str(cut))) == 3


def test_a_member_that_breaks_off_is_not_listed(tmp_path):
    path = write_foreign(tmp_path / "a.tar", [("0.mp4", b"whole" * 200), ("1.mp4", b"half" * 200)])
    assert [member.name for member in walk_tar(open_source(str(path)), ShardLimits()).members] == [
        "0.mp4",
        "1.mp4",
    ]
    path.write_bytes(path.read_bytes()[: 512 + 1024 + 512 + 512])
    walk = walk_tar(open_source(str(path)), ShardLimits())
    assert [member.name for member in walk.members] == ["0.mp4"]
    assert walk.torn == "breaks off inside '1.mp4' (byte 2560)"


def test_more_members_than_allowed_are_refused(tmp_path):
    path = write_foreign(tmp_path / "a.tar", three_samples("A"))
    assert len(ShardSet(str(path), limits=ShardLimits(max_members=9))) == 3
    with pytest.raises(ShardError, match="more than 8 members"):
        ShardSet(str(path), limits=ShardLimits(max_members=8))


def test_an_index_larger_than_allowed_is_not_read(tmp_path):
    (path,) = write_ours(tmp_path)
    size = Path(index_path(str(path))).stat().st_size
    assert len(ShardSet(str(path), limits=ShardLimits(max_index_bytes=size))) == 3
    with pytest.raises(ShardError, match=f"{size} bytes; an index has at most {size - 1}"):
        ShardSet(str(path), limits=ShardLimits(max_index_bytes=size - 1))


@pytest.mark.survival
def test_a_shard_of_ours_cut_at_every_block_is_an_error(tmp_path):
    (path,) = map(Path, write_ours(tmp_path))
    whole = path.read_bytes()
    for length in range(0, len(whole), 512):
        path.write_bytes(whole[:length])
        with pytest.raises(ShardError, match="incomplete"):
            ShardSet(str(path))
        assert len(ShardSet(str(path), strict=False)) == 0


def test_a_shard_that_goes_on_after_its_end_is_reported(tmp_path):
    a = write_foreign(tmp_path / "a.tar", three_samples("A"))
    a.write_bytes(a.read_bytes() * 2)
    with pytest.raises(ShardError, match="concatenated"):
        ShardSet(str(a))


def test_a_flipped_byte_names_its_clip_and_spares_the_others(tmp_path):
    (path,) = map(Path, write_ours(tmp_path))
    data = bytearray(path.read_bytes())
    data[data.index(b"video 1")] ^= 1
    path.write_bytes(data)
    shards = ShardSet(str(path))
    with pytest.raises(ClipError, match=r"00001: \.mp4 does not match the sha256") as error:
        shards.read(1)
    assert error.value.stage == "read"
    assert str(path) in str(error.value)
    assert shards.read(0).video == b"video 0 " * 100


def test_a_shard_cut_after_it_was_indexed_is_one_clips_error(tmp_path):
    (path,) = map(Path, write_ours(tmp_path))
    shards = ShardSet(str(path))
    os.truncate(path, shards.entry(2).members["mp4"].offset)
    with pytest.raises(ClipError, match="ends at byte"):
        shards.read(2)
    assert shards.read(0).key == "00000"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i: i | {"schema": "other/9"}, "schema 'other/9'"),
        (lambda i: i | {"size": i["size"] + 512}, "its index says"),
        (lambda i: {k: v for k, v in i.items() if k != "samples"}, "damaged index"),
        (lambda i: i | {"samples": [i["samples"][0] | {"members": {}}]}, "has no videos"),
        (lambda i: i | {"samples": [i["samples"][0] | {"intensities": [0.1]}]}, "not one per label"),
        (lambda i: i | {"samples": [i["samples"][0] | {"key": 7}]}, "not text"),
        (lambda i: i | {"samples": 3}, "damaged index"),
        (lambda i: i | {"labels": {"columns": ["a"]}}, "damaged index"),
        (
            lambda i: (
                i
                | {
                    "samples": [
                        i["samples"][0] | {"members": {"mp4": {"offset": 2**40, "size": 1, "sha256": ""}}}
                    ]
                }
            ),
            "impossible member",
        ),
        (lambda i: [i], "damaged index"),
    ],
)
def test_an_index_that_does_not_fit_is_refused(tmp_path, change, message):
    (path,) = write_ours(tmp_path)
    index = Path(index_path(path))
    index.write_text(json.dumps(change(json.loads(index.read_text()))))
    with pytest.raises(ShardError, match=re.escape(message)) as error:
        ShardSet(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"size": NaN}', "\xff", "9" * 10_000])
def test_an_index_that_is_no_json_is_refused(tmp_path, text):
    (path,) = write_ours(tmp_path)
    Path(index_path(path)).write_bytes(text.encode("latin-1"))
    with pytest.raises(ShardError, match=r"train-000000\.index\.json: (not valid JSON|damaged index)"):
        ShardSet(path)


def test_doubled_keys_are_listed(tmp_path):
    a, b = write_ours(tmp_path / "a"), write_ours(tmp_path / "b", 2, first=2)
    with pytest.raises(
        ShardError, match=r"key '00002' is in .*a/train-000000\.tar and in .*b/train-000000\.tar"
    ):
        ShardSet(a + b)
    assert list(ShardSet(a + b, strict=False).duplicate_keys) == ["00002"]
    split = [("1.mp4", b"a"), ("2.mp4", b"b"), ("1.json", record(1)), ("1.mov", b"c")]
    with pytest.raises(ShardError, match="key '1' is in"):
        ShardSet(str(write_foreign(tmp_path / "c.tar", split)))


def test_shards_of_different_labels_do_not_mix(tmp_path):
    a = write_foreign(tmp_path / "a.tar", [("1.mp4", b"a"), ("1.json", record(1, fear=0.5))])
    b = write_foreign(tmp_path / "b.tar", [("2.mp4", b"a"), ("2.json", record(2, joy=0.5))])
    with pytest.raises(ShardError, match=r"b\.tar: labels joy; .*a\.tar has fear \(missing: fear; more: joy"):
        ShardSet([str(a), str(b)])


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("1.json", record(1))], "has no videos"),
        ([("1.mp4", b"a"), ("1.mov", b"b")], "has 2 videos"),
        ([("1.mp4", b"a"), ("1.MP4", b"b")], ".mp4 twice"),
        ([("1.mp4", b"a"), ("1.wav", b"b"), ("1.flac", b"c")], "both wav and flac"),
        ([("1.mp4", b"a"), ("1.json", b'{"intensities": {"fear": 1, "Fear!": 2}}')], "have the same name"),
        ([("1.mp4", b"a"), ("1.json", b'{"intensities": [1]}')], "not an object of numbers"),
        ([("1.mp4", b"a"), ("1.json", b"[]")], "not an object"),
        ([("1.mp4", b"a"), ("1.json", b"{}" + b" " * 2**20)], "at most 1048576 are allowed"),
        ([("1.mp4", b"a"), ("1.json", record(1, joy=0.5))], "intensities of joy"),
    ],
)
def test_a_sample_that_makes_no_sense_is_left_out_and_named(tmp_path, members, message):
    path = write_foreign(tmp_path / "a.tar", [("0.mp4", b"x"), ("0.json", record(0)), *members])
    shards = ShardSet(str(path))
    assert [shards.entry(n).key for n in range(len(shards))] == ["0"]
    assert any("sample '1' left out" in problem and message in problem for problem in shards.problems)


@pytest.mark.parametrize(
    ("value", "said"),
    [("NaN", "fear is nan"), ('"much"', "'much'"), ("1e999", "inf"), ("null", "None"), ("true", "True")],
)
def test_a_clip_whose_labels_are_no_numbers_counts_as_unlabelled_and_is_named(tmp_path, value, said):
    text = f'{{"intensities": {{"fear": {value}}}}}'.encode()
    members = [("0.mp4", b"x"), ("0.json", text), ("1.mp4", b"y"), ("1.json", record(1))]
    shards = ShardSet(str(write_foreign(tmp_path / "a.tar", members)))
    assert [shards.entry(n).intensities for n in range(2)] == [None, (0.01,)]
    (problem,) = shards.problems
    assert "sample '0' counts as unlabelled" in problem
    assert said in problem
    assert "not a finite number" in problem


def test_shards_whose_labels_stand_in_another_order_are_put_in_the_firsts(tmp_path):
    a = write_foreign(tmp_path / "a.tar", [("1.mp4", b"a"), ("1.json", record(1, fear=0.5, joy=0.25))])
    b = write_foreign(tmp_path / "b.tar", [("2.mp4", b"a"), ("2.json", record(2, joy=0.75, fear=1.0))])
    shards = ShardSet([str(a), str(b)])
    assert shards.labels.names == ("fear", "joy")
    assert [shards.read(n).intensities for n in range(2)] == [(0.5, 0.25), (1.0, 0.75)]
    turned = shards.labelled_as(LabelSet(("Joy", "Fear")), "the model")
    assert turned.labels.columns == ("Joy", "Fear")
    assert [turned.read(n).intensities for n in range(2)] == [(0.25, 0.5), (0.75, 1.0)]
    assert turned.content_id() == shards.content_id()
    assert len(turned.only([False, True])) == 1
    assert turned.only([False, True]).read(0).key == "2"


# --- patterns -----------------------------------------------------------------------------------


def test_globs_and_braces_name_the_same_shards(tmp_path):
    paths = write_ours(tmp_path, 6, shard_size=4_000)
    assert len(paths) >= 3
    last = f"{len(paths) - 1:06d}"
    for pattern in (f"{tmp_path}/train-*.tar", f"{tmp_path}/train-{{000000..{last}}}.tar", f"{tmp_path}/*"):
        assert [shard.path_or_url for shard in ShardSet(pattern).shards] == paths
    assert len(ShardSet([paths[0], f"{tmp_path}/*.tar"])) == 6


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("nothing-*.tar", "no such shard"),
        ("a-{000..002}.tar", "no such shard"),
        ("a-{0..9.tar", "unbalanced braces"),
        ("a-{0..99999999999999}.tar", "more than 1000000 shards"),
        ("a-{0..9999}{0..9999}.tar", "more than 1000000 shards"),
        ([], "no shards given"),
        (".", "not a plain file"),
    ],
)
def test_a_pattern_that_names_nothing_says_so(tmp_path, monkeypatch, pattern, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ShardError, match=message):
        ShardSet(pattern)


def test_a_shard_that_is_not_there_is_answered_with_those_that_are(tmp_path):
    for name in ("training-000000", "training-000001", "testing-000000"):
        (tmp_path / f"{name}.tar").touch()
    with pytest.raises(ShardError) as error:
        ShardSet(f"{tmp_path}/train-*.tar")
    assert str(error.value) == (
        f"{tmp_path}/train-*.tar: no such shard; in {tmp_path} there are testing-*.tar, training-*.tar"
    )
    with pytest.raises(ShardError, match=rf"there is no folder {tmp_path}x; did you mean {tmp_path}\?"):
        ShardSet(f"{tmp_path}x/train-{{000000..000001}}.tar")


def test_labels_at_the_top_of_a_json_are_no_labels_and_that_is_told(tmp_path):
    top = json.dumps({"joy": 0.5, "fear": 0.25, "frames": 30}).encode()
    path = write_foreign(tmp_path / "top.tar", [("a.mp4", b"a" * 900), ("a.json", top)])
    shards = ShardSet(str(path))
    assert shards.entry(0).intensities is None
    (told,) = [line for line in shards.problems if "intensities" in line]
    assert "(joy, fear)" in told
    assert "not taken for labels" in told


def test_a_list_in_braces_may_be_longer_than_any_name(tmp_path):
    paths = write_ours(tmp_path, 60, shard_size=4_000)
    pattern = f"{tmp_path}/train-{{{','.join(f'{n:06d}' for n in range(len(paths)))}}}.tar"
    assert len(Path(pattern).name) > 255
    assert [shard.path_or_url for shard in ShardSet(pattern).shards] == paths
