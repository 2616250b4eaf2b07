"""Whole shards read ahead: the same clips in the same order as from disk, whatever their server does."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from weakref import ref

import pytest
from support.remote_shards import PATTERN, ShardServer, cut_short, epochs, is_whole, told, write_shards

from viper_e2e.loading import ClipLoader, EpochOrder, OrderSettings, Reading, Share, read_ahead
from viper_e2e.loading.mixture_order import MixtureOrder, MixturePattern, clips_per_epoch
from viper_e2e.loading.read_ahead_buffer import InMemory
from viper_e2e.loading.spans import spans_of_clips
from viper_e2e.scoring.sources import Subset
from viper_e2e.shards import (
    RemoteFile,
    RemoteReading,
    ShardError,
    ShardLimits,
    ShardSet,
    WholeShard,
    remote,
    whole_shards,
)

AHEAD = RemoteReading("ahead")


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch):
    monkeypatch.setattr(remote, "RETRY_SECONDS", (0.0, 0.0))
    monkeypatch.setattr(whole_shards, "PIECE_BYTES", 1000)
    yield
    for thread in threading.enumerate():
        if thread.name in ("viper-read-ahead", "viper-ahead-service"):
            thread.join(5.0)
            assert not thread.is_alive(), "it ends with the last loader"


@pytest.mark.parametrize("shuffle", [True, False])
def test_some_clips_of_shards_are_read_ahead_as_all_are(shard_server, shuffle):
    """What a source is was asked before it was read ahead; only some clips of shards could not be shuffled."""
    some, found = [0, 1, 2, 13, 14, 3, 23], {}
    for pattern in (f"{shard_server.folder}/{PATTERN}", shard_server.pattern):
        source = Subset(ShardSet(pattern, limits=ShardLimits(remote_reading=AHEAD)), some)
        with ClipLoader(source, told, Reading(4, 0), order=OrderSettings(shuffle=shuffle)) as loader:
            found[pattern] = [
                clip.name for batch in loader.epoch(0) for clip in batch.clips if clip is not None
            ]
    local, remote_clips = found.values()
    assert source.shard_sizes == [3, 2, 1, 1]
    assert remote_clips == local
    assert len(local) == len(some)
    assert shard_server.of_clips() == []


# --- which shards are needed when ------------------------------------------------------------------


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_clip_never_stands_outside_of_the_span_of_its_shard(shuffle):
    sizes = [5, 0, 9, 1, 30, 7, 7]
    order = EpochOrder(sizes, seed=3, epoch=2, shuffle=shuffle, shuffle_window=8)
    spans = list(order.spans())
    shard_of = [shard for shard, size in enumerate(sizes) for _ in range(size)]
    assert [first for _, first, _ in spans] == sorted(first for _, first, _ in spans)
    assert sorted(shard for shard, _, _ in spans) == [0, 2, 3, 4, 5, 6]
    within = {shard: range(first, last + 1) for shard, first, last in spans}
    assert all(position in within[shard_of[order[position]]] for position in range(len(order)))


@pytest.mark.parametrize("epoch", [0, 1, 4])
def test_spans_of_a_mixture_hold_every_visit_of_a_shard(epoch):
    shares = [Share("a", [4, 3, 6], 0, 0.7), Share("b", [20, 5, 9], 13, 0.3)]
    counts = clips_per_epoch(shares)
    order = MixtureOrder(shares, MixturePattern(counts), counts, seed=1, epoch=epoch, shuffle_window=4)
    spans, shard_of = list(order.spans()), [0] * 4 + [1] * 3 + [2] * 6 + [3] * 20 + [4] * 5 + [5] * 9
    assert [first for _, first, _ in spans] == sorted(first for _, first, _ in spans)
    for position in range(len(order)):
        assert any(s == shard_of[order[position]] and a <= position <= b for s, a, b in spans)


# --- one shard -------------------------------------------------------------------------------------


def whole_of(shard_server: ShardServer, name: str = "train-000000.tar") -> WholeShard:
    return WholeShard(RemoteFile(f"{shard_server.url}/{name}"), shard_server.size(name))


def test_a_shard_that_is_cut_goes_on_where_it_was_cut(shard_server):
    def cuts(handler, data, first, last):
        return len(shard_server.asked) < 4 and cut_short(handler, data, first, last)

    shard_server.fault = cuts
    assert b"".join(whole_of(shard_server).pieces()) == (shard_server.folder / "train-000000.tar").read_bytes()
    assert [first for _, first, _ in shard_server.asked] == [0, 5000, 10_000, 15_000]


def test_a_server_that_fails_without_end_is_given_up_and_gone_on_with_later(shard_server):
    shard_server.fault = lambda handler, data, first, last: (
        (first >= 4000 and handler.say(503)) or cut_short(handler, data, first, last)
    )
    whole, got = whole_of(shard_server), []
    with pytest.raises(ShardError, match="HTTP 503"):
        got.extend(whole.pieces())
    assert whole.at == 5000
    shard_server.fault = lambda *_: False
    got.extend(whole.pieces())
    assert b"".join(got) == (shard_server.folder / "train-000000.tar").read_bytes()


def test_halves_of_two_states_of_a_shard_are_never_put_together(shard_server):
    def replaced(handler, data, first, last):
        if first == 0:
            return cut_short(handler, data, first, last)
        shard_server.version = "2"
        return False

    shard_server.fault = replaced
    with pytest.raises(ShardError, match="was replaced while it was read"):
        list(whole_of(shard_server).pieces())


def test_a_shard_of_another_size_than_its_index_says_is_refused(shard_server):
    whole = WholeShard(RemoteFile(f"{shard_server.url}/train-000000.tar"), 9_999)
    with pytest.raises(ShardError, match="bytes, its index says"):
        list(whole.pieces())


# --- an epoch --------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_an_epoch_read_ahead_is_that_from_disk_and_each_shard_is_asked_for_once(num_workers, shard_server):
    local = epochs(f"{shard_server.folder}/{PATTERN}", num_epochs=2)
    assert epochs(shard_server.pattern, AHEAD, num_epochs=2, num_workers=num_workers) == local
    assert shard_server.whole() == [f"train-{n:06d}.tar" for n in range(4)]
    assert shard_server.of_clips() == [], "shards stay in memory while there is room"


def in_trouble(shard_server: ShardServer, fault: str):
    """Each third answer to a shard is a failure."""

    def answer(handler, data, first, last):
        if len(shard_server.asked) % 3:
            return False
        if fault == "503":
            return handler.say(503)
        if fault == "cut":
            return cut_short(handler, data, first, last, after=min(2000, (last - first) // 2))
        if fault == "another range":
            place = {"Content-Range": f"bytes {first + 1}-{last + 1}/{len(data)}"}
            return is_whole(data, first, last) and handler.say(206, data[first : last + 1], place)
        if fault == "all of it":
            return handler.say(200, data)
        handler.close_connection = True
        return True

    return answer


@pytest.mark.parametrize("fault", ["503", "cut", "another range", "all of it", "closed"])
def test_an_epoch_from_a_server_in_trouble_is_that_from_disk(fault, shard_server):
    shards = ShardSet(shard_server.pattern, limits=ShardLimits(remote_reading=AHEAD))
    shard_server.fault = in_trouble(shard_server, fault)
    with ClipLoader(shards, told, Reading(4, 0), order=OrderSettings(shuffle_window=8)) as loader:
        found = [clip.name for batch in loader.epoch(0) for clip in batch.clips]
    assert found == epochs(f"{shard_server.folder}/{PATTERN}")


def test_errors_are_those_of_ranges(shard_server):
    """Clips of a shard that cannot be had as a whole are read one by one, and so is what is said of them."""
    shards = ShardSet(shard_server.pattern, limits=ShardLimits(remote_reading=AHEAD))
    shard_server.fault = lambda handler, data, first, last: handler.say(404)
    with ClipLoader(shards, told, Reading(4, 0), order=OrderSettings(shuffle_window=8)) as loader:
        found = [clip for batch in loader.epoch(0) for clip in batch.clips]
    assert {clip.stage for clip in found} == {"read"}
    assert "no such shard (HTTP 404)" in str(found[0])


def test_what_a_server_has_changed_meanwhile_is_told_of_each_clip(shard_server, tmp_path):
    shards = ShardSet(shard_server.pattern, limits=ShardLimits(remote_reading=AHEAD))
    shard_server.folder = write_shards(tmp_path / "others", seed=1)
    with ClipLoader(shards, told, Reading(4, 0), order=OrderSettings(shuffle_window=8)) as loader:
        found = [clip for batch in loader.epoch(0) for clip in batch.clips]
    assert all("does not match the sha256 of the index" in str(clip) for clip in found)


def test_no_more_memory_is_taken_than_was_given(shard_server, monkeypatch, capsys):
    size, most = max(shard_server.size(path.name) for path in shard_server.folder.glob("*.tar")), []
    there: list[ref[Watched]] = []

    class Watched(InMemory):
        def __init__(self, size: int):
            super().__init__(size)
            there.append(ref(self))

        def write(self, piece: bytes) -> None:
            super().write(piece)
            most.append(sum(room.have for one in tuple(there) if (room := one()) is not None))

        def read(self, offset: int, size: int) -> bytes:
            time.sleep(0.01)  # slowly, so that too much would come meanwhile
            return super().read(offset, size)

    monkeypatch.setattr(read_ahead, "InMemory", Watched)
    # Windows of one shard: two fit, so that the next one comes while one is read.
    small = RemoteReading("ahead", ahead_bytes=2 * size)
    local = epochs(f"{shard_server.folder}/{PATTERN}", num_epochs=2, shuffle=False)
    assert epochs(shard_server.pattern, small, num_epochs=2, shuffle=False) == local
    assert size < max(most) <= 2 * size
    assert shard_server.of_clips() == []


def test_shards_for_which_there_is_no_memory_are_read_by_range_and_that_is_told(shard_server, capsys):
    size = max(shard_server.size(path.name) for path in shard_server.folder.glob("*.tar"))
    small = RemoteReading("ahead", ahead_bytes=2 * size - 1)
    assert epochs(shard_server.pattern, small, shuffle_window=24) == epochs(
        f"{shard_server.folder}/{PATTERN}", shuffle_window=24
    )
    assert len(shard_server.whole()) == 1, "never thrown away to be fetched again"
    assert "raise it, or lower --shuffle-window" in " ".join(capsys.readouterr().err.split())


def test_shards_whose_clips_are_in_memory_are_not_fetched(shard_server):
    shards = ShardSet(shard_server.pattern, limits=ShardLimits(remote_reading=AHEAD))
    held = {f"clip{i:02d}": f"clip{i:02d}" for i in range(24) if i // 6 != 2}
    with ClipLoader(shards, told, Reading(4, 0), cached=held.get) as loader:
        assert len([clip for batch in loader.epoch(0) for clip in batch.clips]) == 24
    assert len(shard_server.whole()) == 1
    assert shard_server.of_clips() == []


def test_scored_clips_are_read_ahead_in_their_order(shard_server):
    shards = ShardSet(shard_server.pattern)
    spans = list(spans_of_clips(shards, [1, 2, 3, 12, 13]))
    assert [(Path(s.shard.path_or_url).name, s.first, s.last) for s in spans] == [
        ("train-000000.tar", 1, 3),
        ("train-000002.tar", 12, 13),
    ]
