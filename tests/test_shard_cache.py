"""`--cache DIR`: shards fetched once and read from there later, whoever dies or runs beside."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from support.remote_shards import PATTERN, cut_short, epochs, is_whole, serving_shards, told, write_shards

from viper_e2e.errors import ViperError
from viper_e2e.loading import ClipLoader, OrderSettings, Reading, read_ahead
from viper_e2e.shards import (
    BusyError,
    RemoteReading,
    ShardCache,
    ShardLimits,
    ShardSet,
    cache_name,
    remote,
    whole_shards,
)
from viper_e2e.shards.shard_cache import CachedFile


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch):
    monkeypatch.setattr(remote, "RETRY_SECONDS", (0.0, 0.0))
    monkeypatch.setattr(whole_shards, "PIECE_BYTES", 1000)
    monkeypatch.setattr(read_ahead, "RETRY_SECONDS", 0.05)


def kept(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.tar"))


def files(folder: Path) -> set[str]:
    """What is there besides whole shards and the marker."""
    return {path.name for path in folder.iterdir() if path.suffix != ".tar"} - {"viper_shards.json"}


@pytest.mark.parametrize("read", ["range", "ahead"])
def test_a_second_run_asks_the_server_for_no_shard(read, shard_server, tmp_path, capsys):
    cache = RemoteReading(read, cache=str(tmp_path / "kept"))
    local = epochs(f"{shard_server.folder}/{PATTERN}", num_epochs=2)
    assert epochs(shard_server.pattern, cache, num_epochs=2) == local
    assert (len(shard_server.whole()), shard_server.of_clips()) == (4, [])
    assert {path.read_bytes() for path in kept(tmp_path / "kept")} == {
        path.read_bytes() for path in shard_server.folder.glob("*.tar")
    }
    assert files(tmp_path / "kept") == set()
    shard_server.asked.clear()
    capsys.readouterr()
    assert epochs(shard_server.pattern, cache, num_epochs=2) == local
    assert (shard_server.whole(), shard_server.of_clips()) == ([], [])
    assert "4 shards found in" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_workers_read_what_their_process_keeps(shard_server, tmp_path):
    cache = RemoteReading(cache=str(tmp_path / "kept"))
    local = epochs(f"{shard_server.folder}/{PATTERN}")
    assert epochs(shard_server.pattern, cache, num_workers=2) == local
    assert (len(shard_server.whole()), shard_server.of_clips()) == (4, [])
    assert epochs(shard_server.pattern, cache, num_workers=2) == local
    assert len(shard_server.whole()) == 4


@pytest.mark.parametrize("fault", ["503", "cut"])
def test_a_server_in_trouble_leaves_whole_shards_or_none(fault, shard_server, tmp_path):
    shards = ShardSet(
        shard_server.pattern, limits=ShardLimits(remote_reading=RemoteReading(cache=str(tmp_path)))
    )

    def answer(handler, data, first, last):
        if len(shard_server.asked) % 3 or fault == "503":
            return len(shard_server.asked) % 3 == 0 and handler.say(503)
        return cut_short(handler, data, first, last, after=min(2000, (last - first) // 2))

    shard_server.fault = answer
    with ClipLoader(shards, told, Reading(4, 0), order=OrderSettings(shuffle_window=8)) as loader:
        found = [clip.name for batch in loader.epoch(0) for clip in batch.clips]
    assert found == epochs(f"{shard_server.folder}/{PATTERN}")
    originals = {path.read_bytes() for path in shard_server.folder.glob("*.tar")}
    assert {path.read_bytes() for path in kept(tmp_path)} <= originals
    assert files(tmp_path) == set()


# --- identity --------------------------------------------------------------------------------------


def without_index(folder: Path, remote_folder: Path) -> Path:
    folder.mkdir()
    for path in remote_folder.glob("*.tar"):
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_a_shard_is_known_by_its_content_and_not_by_its_name(shard_server, tmp_path):
    cache = RemoteReading(cache=str(tmp_path / "kept"))
    epochs(shard_server.pattern, cache)
    shard_server.folder = write_shards(tmp_path / "others", seed=1)
    assert epochs(shard_server.pattern, cache) == epochs(f"{shard_server.folder}/{PATTERN}")
    assert len(kept(tmp_path / "kept")) == 8
    with serving_shards(shard_server.folder) as elsewhere:
        assert epochs(elsewhere.pattern, cache) == epochs(f"{shard_server.folder}/{PATTERN}")
        assert elsewhere.whole() == [], "the same shards at another address"


def test_without_hashes_what_the_server_says_of_a_shard_is_its_identity(shard_server, tmp_path):
    cache = RemoteReading(cache=str(tmp_path / "kept"))
    shard_server.folder = without_index(tmp_path / "bare", shard_server.folder)
    local = epochs(f"{shard_server.folder}/{PATTERN}")
    counts = []
    for version in "112":
        shard_server.version = version
        assert epochs(shard_server.pattern, cache) == local
        counts.append(len(shard_server.whole()))
        shard_server.asked.clear()
    assert counts == [8, 4, 8], "headers are walked each time, which takes all of so small a shard"


def test_a_shard_that_cannot_be_told_from_another_has_no_name(shard_server, tmp_path):
    shard = ShardSet(f"{shard_server.folder}/train-000000.tar").shards[0]
    assert cache_name(shard) is not None
    shard_server.folder = without_index(tmp_path / "bare", shard_server.folder)
    bare = ShardSet(f"{shard_server.folder}/train-000000.tar").shards[0]
    assert cache_name(replace(bare, version=None)) is None
    assert cache_name(replace(bare, version="1")) not in (None, cache_name(replace(bare, version="2")))


def test_a_kept_shard_that_was_damaged_costs_no_clip(shard_server, tmp_path):
    cache = RemoteReading(cache=str(tmp_path / "kept"))
    local = epochs(f"{shard_server.folder}/{PATTERN}")
    epochs(shard_server.pattern, cache)
    for path in kept(tmp_path / "kept"):
        path.write_bytes(bytes(path.stat().st_size))
    assert epochs(shard_server.pattern, cache) == local
    cut = kept(tmp_path / "kept")
    for path in cut:
        path.write_bytes(path.read_bytes()[:-512])
    assert epochs(shard_server.pattern, cache) == local
    assert all(Path(path).stat().st_size % 10_240 == 0 for path in kept(tmp_path / "kept"))


def test_a_shard_of_which_some_clips_are_left_out_is_kept_once(shard_server, tmp_path):
    """As for each fold of a cross-validation, and for clips without labels."""
    limits = ShardLimits(remote_reading=RemoteReading(cache=str(tmp_path / "kept")))
    for part in range(2):
        shards = ShardSet(shard_server.pattern, limits=limits).only([i % 3 > part for i in range(24)])
        with ClipLoader(shards, told, Reading(4, 0)) as loader:
            assert sum(len(batch.clips) for batch in loader.epoch(0)) == 16 - 8 * part
    assert (len(shard_server.whole()), shard_server.of_clips(), len(kept(tmp_path / "kept"))) == (4, [], 4)


# --- the folder ------------------------------------------------------------------------------------


def test_a_folder_with_something_else_in_it_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("words")
    with pytest.raises(ViperError, match=r"holds thesis\.tex, and was not made by --cache; name a new folder"):
        ShardCache(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_limit_without_a_folder_is_refused():
    with pytest.raises(ViperError, match="--cache-size 5: needs the folder"):
        RemoteReading(cache_bytes=5)


def fill(kept: ShardCache, name: str, size: int = 1000, in_use: tuple[str, ...] = ()) -> CachedFile | None:
    file = kept.hold(name * 64, size, [one * 64 for one in in_use])
    if file is not None and not file.have:
        file.write(name.encode() * size)
        file.settle()
    return file


def test_what_was_not_used_for_longest_goes_first_and_nothing_else_is_touched(tmp_path):
    shard_cache = ShardCache(str(tmp_path), max_bytes=3000)
    (tmp_path / "mine.tar").write_bytes(bytes(5000))
    for age, name in enumerate("abc"):
        fill(shard_cache, name)
        os.utime(tmp_path / f"{name * 64}.tar", (age, age))
    fill(shard_cache, "a")  # is used again
    fill(shard_cache, "d")
    assert {path.name[0] for path in kept(tmp_path)} == set("acdm")
    assert fill(shard_cache, "e", in_use=tuple("acd")) is None, "what is in use stays"
    assert fill(shard_cache, "e", size=4000) is None
    assert {path.name[0] for path in kept(tmp_path)} == set("acdm")


def test_a_limit_that_is_too_small_for_an_epoch_costs_no_clip_and_is_kept(shard_server, tmp_path, capsys):
    size = max(path.stat().st_size for path in shard_server.folder.glob("*.tar"))
    cache = RemoteReading(cache=str(tmp_path / "kept"), cache_bytes=2 * size)
    assert epochs(shard_server.pattern, cache, shuffle_window=24) == epochs(
        f"{shard_server.folder}/{PATTERN}", shuffle_window=24
    )
    assert sum(path.stat().st_size for path in kept(tmp_path / "kept")) <= 2 * size
    assert len(shard_server.whole()) == 2, "never thrown away to be fetched again"
    assert "--cache-size: not all shards" in " ".join(capsys.readouterr().err.split())


def test_a_full_disk_is_told_once_and_costs_no_clip(shard_server, tmp_path, monkeypatch, capsys):
    def full(self, piece):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(CachedFile, "write", full)
    cache = RemoteReading(cache=str(tmp_path / "kept"))
    assert epochs(shard_server.pattern, cache) == epochs(f"{shard_server.folder}/{PATTERN}")
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("No space left on device; continues without it") == 1
    assert kept(tmp_path / "kept") == []
    assert files(tmp_path / "kept") == set()


# --- several at once, and deaths -------------------------------------------------------------------


def test_a_shard_is_fetched_by_one_at_a_time_and_found_by_the_others(tmp_path):
    first, second = ShardCache(str(tmp_path)), ShardCache(str(tmp_path))
    file = first.hold("a" * 64, 1000)
    with pytest.raises(BusyError):
        second.hold("a" * 64, 1000)
    file.write(bytes(1000))
    assert kept(tmp_path) == [], "not taken for whole before it is settled"
    file.settle()
    assert second.hold("a" * 64, 1000).read(0, 10) == bytes(10)


def test_room_that_one_was_given_is_not_given_to_another_at_the_same_moment(tmp_path, monkeypatch):
    first, second = (ShardCache(str(tmp_path), max_bytes=1500) for _ in range(2))
    open_file, asked = Path.open, []

    def ask_first(path: Path, *how, **more):
        if path.suffix == ".part" and not asked:
            asked.append(path)
            with pytest.raises(BusyError):
                second.hold("b" * 64, 1000)
        return open_file(path, *how, **more)

    monkeypatch.setattr(Path, "open", ask_first)
    assert first.hold("a" * 64, 1000) is not None
    assert asked
    assert second.hold("b" * 64, 1000) is None


def test_a_shard_that_is_settled_while_the_folder_is_read_is_counted(tmp_path, monkeypatch):
    first, second = (ShardCache(str(tmp_path), max_bytes=1500) for _ in range(2))
    file = first.hold("a" * 64, 1000)
    file.write(bytes(1000))
    read, reads = os.scandir, []

    def missing_it(folder: Path):
        reads.append(folder)
        if len(reads) == 1:  # read after the old name is gone and before the new one is there
            file.settle()
            return iter(())
        return read(folder)

    monkeypatch.setattr(os, "scandir", missing_it)
    assert second.hold("b" * 64, 1000, in_use=["a" * 64]) is None


FETCH = """
import sys
from support.remote_shards import epochs
from viper_e2e.shards import RemoteReading
print("\\n".join(epochs(sys.argv[1], RemoteReading(cache=sys.argv[2]), num_epochs=2)))
"""


def fetching(shard_server, folder: Path) -> subprocess.Popen:
    here = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    words = [sys.executable, "-c", FETCH, shard_server.pattern, str(folder)]
    return subprocess.Popen(words, env=here, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_two_processes_at_the_same_time_fetch_each_shard_once(shard_server, tmp_path):
    local = epochs(f"{shard_server.folder}/{PATTERN}", num_epochs=2)
    shard_server.fault = lambda handler, data, first, last: bool(
        is_whole(data, first, last) and time.sleep(0.05)
    )
    runs = [fetching(shard_server, tmp_path / "kept") for _ in range(2)]
    assert [run.communicate(timeout=120)[0].split("\n")[:-1] for run in runs] == [local, local]
    assert (len(shard_server.whole()), shard_server.of_clips()) == (4, [])
    assert files(tmp_path / "kept") == set()


@pytest.mark.slow
def test_a_process_killed_while_it_fetches_leaves_nothing_that_is_taken_for_whole(shard_server, tmp_path):
    half_there = threading.Event()

    def half(handler, data, first, last):
        if not is_whole(data, first, last):
            return False
        place = {"Content-Range": f"bytes {first}-{last}/{len(data)}", "Content-Length": str(last - first + 1)}
        handler.say(206, data[first : last // 2], place)
        half_there.set()
        time.sleep(0.5)
        return True

    shard_server.fault = half
    run = fetching(shard_server, tmp_path / "kept")
    assert half_there.wait(60)
    time.sleep(0.2)
    run.send_signal(signal.SIGKILL)
    run.communicate(timeout=60)
    assert kept(tmp_path / "kept") == []
    assert files(tmp_path / "kept") != set()
    shard_server.fault = lambda *_: False
    cache = RemoteReading(cache=str(tmp_path / "kept"))
    assert epochs(shard_server.pattern, cache) == epochs(f"{shard_server.folder}/{PATTERN}")
    assert len(kept(tmp_path / "kept")) == 4
    assert {name for name in files(tmp_path / "kept") if not name.endswith(".lock")} == set()
