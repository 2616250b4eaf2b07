"""Of a hostile shard nothing is opened, followed or allocated before it was looked at."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
from support.our_shards import write_ours
from support.tars import three_samples, write_foreign

from viper_e2e.errors import ClipError
from viper_e2e.shards import (
    ShardError,
    ShardLimits,
    ShardSet,
    action_units_from_npy,
    action_units_to_npy,
)


@pytest.mark.parametrize(
    "scheme", ["pipe:touch {}", "file://{}", "http://example.org{}", "ftp://h{}", "az://h{}", "data:{}"]
)
def test_unknown_schemes_are_never_opened(tmp_path, scheme):
    canary = tmp_path / "canary"
    for pattern in (scheme.format(canary), [scheme.format(canary)]):
        with pytest.raises(ShardError, match="is refused"):
            ShardSet(pattern)
    assert not canary.exists()


def test_compressed_and_sparse_archives_are_refused(tmp_path):
    plain = write_foreign(tmp_path / "a.tar", three_samples("A")).read_bytes()
    (tmp_path / "b.tar").write_bytes(gzip.compress(plain))
    with pytest.raises(ShardError, match="compressed with gzip"):
        ShardSet(str(tmp_path / "b.tar"))
    with (tmp_path / "1.mp4").open("wb") as film:
        film.truncate(2**30)
    for format in ("gnu", "posix"):
        out = tmp_path / f"{format}.tar"
        subprocess.run(["tar", "-S", f"--format={format}", "-cf", out, "-C", tmp_path, "1.mp4"], check=True)
        assert out.stat().st_size < 2**20
        with pytest.raises(ShardError, match="sparse"):
            ShardSet(str(out))


def test_links_devices_and_paths_that_lead_outside_are_ignored(tmp_path):
    canary = tmp_path / "canary.mp4"
    canary.write_bytes(b"secret")
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("/abs.mp4", "../up.mp4", "a/../../b.mp4", "c:\\d.mp4", "bell\a.mp4", "ok.mp4"):
            info = tarfile.TarInfo(name)
            info.size = 4
            tar.addfile(info, io.BytesIO(b"film"))
        for type, name in (
            (tarfile.SYMTYPE, "sym.mp4"),
            (tarfile.LNKTYPE, "hard.mp4"),
            (tarfile.FIFOTYPE, "fifo.mp4"),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = type, str(canary)
            tar.addfile(info)
    shards = ShardSet(str(path))
    assert [shards.entry(n).key for n in range(len(shards))] == ["ok"]
    assert sum("ignored" in problem for problem in shards.problems) == 8


class _Bomb:
    def __reduce__(self):
        return os.mkdir, ("unpickled",)


def test_pickles_are_never_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bomb = pickle.dumps(_Bomb())
    array = np.empty(1, object)
    array[0] = _Bomb()
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    members = [
        ("1.mp4", b"film"),
        ("1.pyd", bomb),
        ("1.pkl", bomb),
        ("1.pth", bomb),
        ("1.fau.npy", stream.getvalue()),
    ]
    shards = ShardSet(str(write_foreign(tmp_path / "a.tar", members)))
    assert sum("never opened" in problem for problem in shards.problems) == 3
    with pytest.raises(ClipError, match="allowed are floats"):
        shards.read(0)
    assert not Path("unpickled").exists()


def test_members_over_the_limit_are_refused_before_reading(tmp_path):
    (path,) = write_ours(tmp_path)
    shards = ShardSet(path, limits=ShardLimits(max_clip_bytes=100))
    with pytest.raises(ClipError, match="at most 100 are allowed"):
        shards.read(0)


def test_a_header_that_claims_too_much_is_refused_before_allocation(tmp_path):
    path = tmp_path / "a.tar"
    for type, size, message in (
        (b"x", 2**33, "extended header"),
        (b"L", 2**33, "extended header"),
        (b"0", 2**40, "incomplete"),
    ):
        info = tarfile.TarInfo("1.mp4")
        info.type, info.size = type, size
        path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
        with pytest.raises(ShardError, match=message):
            ShardSet(str(path))


@pytest.mark.parametrize(
    "body", [b"12 path=x\n", b"99999 path=x\n", b"0 a=b\n", b"abc", b"9 size=-1\n", b"11 path=x"]
)
def test_a_damaged_pax_header_is_torn(tmp_path, body):
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = b"x", len(body)
    film = tarfile.TarInfo("1.mp4")
    film.size = 4
    blocks = info.tobuf() + body.ljust(512, b"\0") + film.tobuf() + b"film".ljust(512, b"\0") + bytes(1024)
    (tmp_path / "a.tar").write_bytes(blocks)
    with pytest.raises(ShardError, match="incomplete"):
        ShardSet(str(tmp_path / "a.tar"))


@pytest.mark.slow
def test_random_damage_never_escapes_as_another_error(tmp_path):
    whole = write_foreign(tmp_path / "a.tar", three_samples("A"), format=tarfile.PAX_FORMAT).read_bytes()
    generator = np.random.default_rng(0)
    path = tmp_path / "b.tar"
    for _ in range(300):
        data = bytearray(whole)
        for position in generator.integers(0, len(whole), 20):
            data[position] = generator.integers(0, 256)
        path.write_bytes(data)
        shards = ShardSet(str(path), strict=False)
        for n in range(len(shards)):
            assert isinstance(shards.read(n).video, bytes)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(3, np.float32), "shape"),
        (np.zeros((0, 27), np.float32), "shape"),
        (np.zeros((2, 5000), np.float32), "shape"),
        (np.zeros((2, 27), np.int64), "allowed are floats"),
        (np.array(["a"]), "allowed are floats"),
    ],
)
def test_action_units_are_one_table_of_floats(array, message):
    stream = io.BytesIO()
    np.save(stream, array)
    with pytest.raises(ValueError, match=message):
        action_units_from_npy(stream.getvalue())


def test_action_units_that_claim_more_than_they_hold_are_refused():
    data = action_units_to_npy(np.zeros((4, 27)))
    with pytest.raises(ValueError, match="claims shape"):
        action_units_from_npy(data.replace(b"(4, 27)", b"(900000000, 27)".ljust(15))[: len(data)])
    with pytest.raises(ValueError, match="claims shape"):
        action_units_from_npy(data[:-4])
    with pytest.raises(ValueError):
        action_units_from_npy(b"not numpy")
