"""Servers as they are: refusing, stumbling, trickling; each costs little time and gets true words."""

from __future__ import annotations

import base64
import time
from pathlib import Path

import numpy as np
import pytest
from support.http_server import FILE, Handler, serving

from viper_e2e.clip import DecodedClip
from viper_e2e.errors import UNREACHABLE, ClipError
from viper_e2e.loading import ClipLoader, OrderSettings, Reading
from viper_e2e.loading.workers import WorkerPool
from viper_e2e.shards import ShardError, ShardSet, ShardWriter, remote
from viper_e2e.shards.sources import open_source


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch):
    monkeypatch.setattr(remote, "RETRY_SECONDS", (0.0, 0.0))


def test_a_range_is_read_and_the_size_told():
    with serving() as server:
        source = open_source(f"{server.url}/a.tar")
        assert source.size() == len(FILE)
        assert source.read(1000, 300) == FILE[1000:1300]


def test_other_bytes_than_asked_for_are_refused():
    def shifted(handler: Handler) -> bool:
        first, last = (1 + int(end) for end in handler.headers["Range"].removeprefix("bytes=").split("-"))
        place = {"Content-Range": f"bytes {first}-{last}/{len(FILE)}"}
        return handler.say(206, FILE[first : last + 1], place)

    with (
        serving(shifted) as server,
        pytest.raises(ShardError, match=r"asked for \d+ bytes at \d+, got 'bytes "),
    ):
        open_source(f"{server.url}/a.tar").read(100, 50)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (403, "HTTP 403 (Forbidden): its address has expired, needs a permission, or nothing is there"),
        (404, "no such shard (HTTP 404)"),
        (401, "HTTP 401: needs a login"),
        (400, "HTTP 400"),
    ],
)
def test_a_refusal_says_what_it_means_and_hides_the_signature(status, said):
    with serving(lambda handler: handler.say(status)) as server, pytest.raises(ShardError) as caught:
        ShardSet(f"{server.url}/train-000000.tar?signature=secret")
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_login_in_the_address_is_sent_and_not_told():
    def refuse(handler: Handler) -> bool:
        login = base64.b64encode(b"ann:p@ss").decode()
        return handler.headers.get("Authorization") != f"Basic {login}" and handler.say(401)

    with serving(refuse) as server:
        url = server.url.replace("//", "//ann:p%40ss@")
        assert open_source(f"{url}/a.tar").size() == len(FILE)
        with pytest.raises(ShardError) as caught:
            open_source(f"{server.url.replace('//', '//ann:wrong@')}/a.tar").size()
        assert "wrong" not in str(caught.value)


def test_a_login_stays_at_home_when_the_server_redirects():
    with serving() as other:

        def redirect(handler: Handler) -> bool:
            return handler.say(302, headers={"Location": f"{other.url}/a.tar"})

        with serving(redirect) as server:
            url = server.url.replace("//", "//ann:secret@")
            assert open_source(f"{url}/a.tar").read(5, 5) == FILE[5:10]
        assert "Authorization" in server.asked[0]
        assert "Authorization" not in other.asked[0]


def test_retry_after_is_heeded(monkeypatch):
    slept: list[float] = []
    monkeypatch.setattr(remote.time, "sleep", slept.append)
    answers = iter([{"Retry-After": "20"}, None])

    def busy(handler: Handler) -> bool:
        headers = next(answers)
        return headers is not None and handler.say(429, headers=headers)

    with serving(busy) as server:
        assert open_source(f"{server.url}/a.tar").size() == len(FILE)
    assert slept == [20.0]


def test_a_wait_that_nobody_has_time_for_is_not_begun(monkeypatch):
    slept: list[float] = []
    monkeypatch.setattr(remote.time, "sleep", slept.append)
    busy = {"Retry-After": "3600"}
    with (
        serving(lambda handler: handler.say(503, headers=busy)) as server,
        pytest.raises(ShardError, match="503"),
    ):
        open_source(f"{server.url}/a.tar").size()
    assert slept == []


@pytest.mark.parametrize("offset", [0, 1000])
def test_the_bytes_are_taken_out_of_a_whole_answer(offset):
    with serving(lambda handler: handler.say(200, FILE)) as server:
        source = open_source(f"{server.url}/a.tar")
        assert source.size() == len(FILE)
        assert source.read(offset, 300) == FILE[offset : offset + 300]


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"Content-Type": "text/html; charset=utf-8"}, "answered with a web page (a login?)"),
        ({"Content-Encoding": "gzip"}, "the server compresses it (gzip)"),
    ],
)
def test_an_answer_that_is_something_else_is_told(headers, said):
    with (
        serving(lambda handler: handler.say(200, b"<html>", headers)) as server,
        pytest.raises(ShardError) as caught,
    ):
        open_source(f"{server.url}/a.tar").size()
    assert said in str(caught.value)


@pytest.mark.parametrize("where", ["body", "head"])
def test_a_trickle_is_given_up(where, monkeypatch):
    monkeypatch.setattr(remote, "TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr(remote, "RETRY_SECONDS", ())

    def trickle(handler: Handler) -> bool:
        head = b"HTTP/1.0 206 Partial\r\nContent-Range: bytes 0-99/10240\r\nContent-Length: 100\r\n\r\n"
        if where == "body":
            handler.wfile.write(head)
        for byte in FILE[:100] if where == "body" else head:
            time.sleep(0.05)
            try:
                handler.wfile.write(bytes([byte]))
            except OSError:
                break
        return True

    began = time.monotonic()
    with serving(trickle) as server, pytest.raises(ShardError, match="no whole answer within"):
        open_source(f"{server.url}/a.tar").read(0, 100)
    assert time.monotonic() - began < 3


class SlowToRecover(WorkerPool):
    """Stands for a pool of workers whose first outcomes of a clip are an outage's."""

    def __init__(self, outages: int):
        self.outages, self.names = outages, []

    def submit(self, index: int, name: str) -> int:
        self.names.append(name)
        return len(self.names) - 1

    def outcome(self, ticket: int):
        self.outages -= 1
        if self.outages >= 0:
            return ClipError("HTTP 503", stage=UNREACHABLE, clip=self.names[ticket])
        return DecodedClip(self.names[ticket], np.zeros((1, 2, 2, 3), np.uint8), np.zeros(1), 1.0)

    def reset_restarts(self):
        pass

    def discard(self, tickets):
        list(tickets)

    def close(self):
        pass


def make_shard(folder: Path) -> dict[str, bytes]:
    with ShardWriter(folder, "train", None, shard_size=10**6) as writer:
        for key in "abcd":
            writer.add(key, {"mp4": key.encode() * 100}, file_id=key)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_outage_costs_an_epoch_no_clip(num_workers, tmp_path, capfd):
    data, until = make_shard(tmp_path), [0.0]

    def serve(handler: Handler) -> bool:
        if time.monotonic() < until[0]:
            return handler.say(503)
        handler.ranged(data[Path(handler.path).name])
        return True

    with serving(serve) as server:
        shards = ShardSet(f"{server.url}/train-000000.tar")
        loader = ClipLoader(shards, decoded, Reading(2, num_workers), order=OrderSettings(shuffle=False))
        loader.stream.outage_seconds = 20.0
        if num_workers:
            loader.stream.pool = SlowToRecover(3)
        until[0] = time.monotonic() + 0.3
        clips = [clip for batch in loader.epoch(0) for clip in batch.clips]
    assert sorted(clip.name for clip in clips) == list("abcd")
    assert capfd.readouterr().err.count("waiting up to 20 s for it") == 1


def test_an_outage_that_does_not_end_is_given_up_once(tmp_path, capfd):
    data = make_shard(tmp_path)
    with serving(lambda handler: handler.ranged(data[Path(handler.path).name]) or True) as server:
        shards = ShardSet(f"{server.url}/train-000000.tar")
    loader = ClipLoader(shards, decoded, Reading(4, 0), order=OrderSettings(shuffle=False))
    loader.stream.outage_seconds = 0.2
    began = time.monotonic()
    (batch,) = loader.epoch(0)
    assert [clip.stage for clip in batch.clips] == [UNREACHABLE] * 4
    assert all(isinstance(clip, ClipError) for clip in batch.clips)
    assert time.monotonic() - began < 2
    assert capfd.readouterr().err.count("waiting up to") == 1


def decoded(sample) -> DecodedClip:
    return DecodedClip(sample.key, np.zeros((1, 2, 2, 3), np.uint8), np.zeros(1), 1.0)
