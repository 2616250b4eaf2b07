"""Clips of a shard without hashes that is replaced during a run fail: no other bytes take their places."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
from support.far_shards import Far, far_away, told
from support.tars import three_samples, write_foreign

from viper_e2e.errors import ClipError
from viper_e2e.loading import ClipLoader
from viper_e2e.shards import FarReading, ShardError, ShardLimits, ShardSet, index_path, make_index, remote

NAME = "train-000000.tar"


@pytest.fixture
def far(tmp_path):
    write_foreign(tmp_path / NAME, three_samples("A"))
    with far_away(tmp_path) as far:
        yield far


def replaced(far: Far) -> None:
    """Other bytes in the same places."""
    write_foreign(far.folder / NAME, three_samples("B"))
    os.utime(far.folder / NAME, ns=(0, 0))
    far.version = "2"


@pytest.mark.parametrize("where", ["server", "disk"])
def test_a_clip_of_a_replaced_shard_is_an_error_that_says_what_differs(where, far):
    shards = ShardSet(f"{far.url if where == 'server' else far.folder}/{NAME}")
    assert shards.read(0).video.startswith(b"A")
    reader, place = pickle.loads(pickle.dumps((shards.reader(), shards.place_of(1))))
    replaced(far)
    with pytest.raises(ClipError, match="was replaced since it was indexed") as error:
        reader.read(place)
    assert error.value.stage == "read"
    before, now = ("'\"1\" '", "'\"2\" '") if where == "server" else ("bytes, mtime", "mtime 0 ns")
    assert before in str(error.value)
    assert now in str(error.value)
    assert ShardSet(f"{far.folder}/{NAME}").read(1).video.startswith(b"B"), "indexed anew it is read"


@pytest.mark.parametrize("read", ["range", "ahead"])
@pytest.mark.parametrize("is_kept", [False, True])
def test_no_way_of_reading_gives_bytes_of_another_state(read, is_kept, far, tmp_path_factory):
    cache = str(tmp_path_factory.mktemp("kept")) if is_kept else None
    shards = ShardSet(f"{far.url}/{NAME}", limits=ShardLimits(far=FarReading(read, cache=cache)))
    replaced(far)
    with ClipLoader(shards, told, batch_size=3, num_workers=0) as loader:
        clips = [clip for batch in loader.epoch(0) for clip in batch.clips]
    assert [isinstance(clip, ClipError) and "was replaced" in str(clip) for clip in clips] == [True] * 3


def test_a_shard_replaced_while_it_is_indexed_is_refused(far):
    far.fault = lambda *_: replaced(far) if len(far.asked) == 2 else False
    with pytest.raises(ShardError, match="was replaced"):
        ShardSet(f"{far.url}/{NAME}")


def test_noting_the_state_takes_no_request(far):
    shards = ShardSet(f"{far.url}/{NAME}", limits=ShardLimits(far=FarReading(cache="kept")))
    opened = list(far.asked)
    far.asked.clear()
    ShardSet(f"{far.url}/{NAME}")
    assert far.asked == opened
    far.asked.clear()
    shards.read(0)
    assert len(far.asked) == len([name for name in shards.entry(0).members if name != "json"])


def test_clips_of_two_states_are_never_taken_for_one(far):
    before = ShardSet(f"{far.url}/{NAME}").clip_id(0)
    assert ShardSet(f"{far.url}/{NAME}").clip_id(0) == before
    replaced(far)
    assert ShardSet(f"{far.url}/{NAME}").clip_id(0) != before


def test_hashes_are_believed_whatever_servers_tell(far):
    """Several servers behind one address may tell different ETags of the same shard."""
    path = far.folder / NAME
    Path(index_path(str(path))).write_bytes(make_index(str(path)))
    far.fault = lambda *_: setattr(far, "version", str(len(far.asked)))
    assert ShardSet(f"{far.url}/{NAME}").read(0).video.startswith(b"A")


def test_a_clip_behind_an_address_is_never_put_together_of_halves(far, monkeypatch):
    monkeypatch.setattr(remote, "WHOLE_BYTES", 4096)
    assert remote.fetch(f"{far.url}/{NAME}", 10**9) == (far.folder / NAME).read_bytes()
    far.asked.clear()
    far.fault = lambda *_: replaced(far) if len(far.asked) == 3 else False
    with pytest.raises(ClipError, match=r"was replaced while it was read .*begin again$") as error:
        remote.fetch(f"{far.url}/{NAME}", 10**9)
    assert error.value.stage == "read"
