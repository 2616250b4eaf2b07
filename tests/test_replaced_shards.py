"""Clips of a shard without hashes that is replaced during a run fail: no other bytes take their places."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
from support.remote_shards import ShardServer, serving_shards, told
from support.tars import three_samples, write_foreign

from viper_e2e.errors import ClipError
from viper_e2e.loading import ClipLoader, Reading
from viper_e2e.shards import RemoteReading, ShardError, ShardLimits, ShardSet, index_path, make_index, remote

NAME = "train-000000.tar"


@pytest.fixture
def shard_server(tmp_path):
    write_foreign(tmp_path / NAME, three_samples("A"))
    with serving_shards(tmp_path) as shard_server:
        yield shard_server


def replaced(shard_server: ShardServer) -> None:
    """Other bytes in the same places."""
    write_foreign(shard_server.folder / NAME, three_samples("B"))
    os.utime(shard_server.folder / NAME, ns=(0, 0))
    shard_server.version = "2"


@pytest.mark.parametrize("where", ["server", "disk"])
def test_a_clip_of_a_replaced_shard_is_an_error_that_says_what_differs(where, shard_server):
    shards = ShardSet(f"{shard_server.url if where == 'server' else shard_server.folder}/{NAME}")
    assert shards.read(0).video.startswith(b"A")
    reader, place = pickle.loads(pickle.dumps((shards.reader(), shards.place_of(1))))
    replaced(shard_server)
    with pytest.raises(ClipError, match="was replaced since it was indexed") as error:
        reader.read(place)
    assert error.value.stage == "read"
    before, now = ("'\"1\" '", "'\"2\" '") if where == "server" else ("bytes, mtime", "mtime 0 ns")
    assert before in str(error.value)
    assert now in str(error.value)
    assert ShardSet(f"{shard_server.folder}/{NAME}").read(1).video.startswith(b"B"), "indexed anew it is read"


@pytest.mark.parametrize("read", ["range", "ahead"])
@pytest.mark.parametrize("is_kept", [False, True])
def test_no_way_of_reading_gives_bytes_of_another_state(read, is_kept, shard_server, tmp_path_factory):
    cache = str(tmp_path_factory.mktemp("kept")) if is_kept else None
    shards = ShardSet(
        f"{shard_server.url}/{NAME}", limits=ShardLimits(remote_reading=RemoteReading(read, cache=cache))
    )
    replaced(shard_server)
    with ClipLoader(shards, told, Reading(3, 0)) as loader:
        clips = [clip for batch in loader.epoch(0) for clip in batch.clips]
    assert [isinstance(clip, ClipError) and "was replaced" in str(clip) for clip in clips] == [True] * 3


def test_a_shard_replaced_while_it_is_indexed_is_refused(shard_server):
    shard_server.fault = lambda *_: replaced(shard_server) if len(shard_server.asked) == 2 else False
    with pytest.raises(ShardError, match="was replaced"):
        ShardSet(f"{shard_server.url}/{NAME}")


def test_noting_the_state_takes_no_request(shard_server):
    shards = ShardSet(
        f"{shard_server.url}/{NAME}", limits=ShardLimits(remote_reading=RemoteReading(cache="kept"))
    )
    opened = list(shard_server.asked)
    shard_server.asked.clear()
    ShardSet(f"{shard_server.url}/{NAME}")
    assert shard_server.asked == opened
    shard_server.asked.clear()
    shards.read(0)
    assert len(shard_server.asked) == len([name for name in shards.entry(0).members if name != "json"])


def test_clips_of_two_states_are_never_taken_for_one(shard_server):
    before = ShardSet(f"{shard_server.url}/{NAME}").clip_id(0)
    assert ShardSet(f"{shard_server.url}/{NAME}").clip_id(0) == before
    replaced(shard_server)
    assert ShardSet(f"{shard_server.url}/{NAME}").clip_id(0) != before


def test_hashes_are_believed_whatever_servers_tell(shard_server):
    """Several servers behind one address may tell different ETags of the same shard."""
    path = shard_server.folder / NAME
    Path(index_path(str(path))).write_bytes(make_index(str(path)))
    shard_server.fault = lambda *_: setattr(shard_server, "version", str(len(shard_server.asked)))
    assert ShardSet(f"{shard_server.url}/{NAME}").read(0).video.startswith(b"A")


def test_a_clip_behind_an_address_is_never_put_together_of_halves(shard_server, monkeypatch):
    monkeypatch.setattr(remote, "WHOLE_BYTES", 4096)
    assert remote.fetch(f"{shard_server.url}/{NAME}", 10**9) == (shard_server.folder / NAME).read_bytes()
    shard_server.asked.clear()
    shard_server.fault = lambda *_: replaced(shard_server) if len(shard_server.asked) == 3 else False
    with pytest.raises(ClipError, match=r"was replaced while it was read .*begin again$") as error:
        remote.fetch(f"{shard_server.url}/{NAME}", 10**9)
    assert error.value.stage == "read"
