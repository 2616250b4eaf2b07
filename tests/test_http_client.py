"""Connections to web servers: kept while they last, made anew when not, never shared by two processes."""

from __future__ import annotations

import http.server
import multiprocessing
import os
import pickle
import socket
import threading
from contextlib import contextmanager

import pytest
from support.http_server import FILE, Handler, serving

from viper_e2e.errors import UNREACHABLE, ClipError
from viper_e2e.shards import ShardError, ShardSet, ShardWriter, http_client, remote
from viper_e2e.shards.limits import UnreachableError
from viper_e2e.shards.sources import open_source


class KeptAlive(Handler):
    """As servers are in the field: HTTP/1.1, a connection serves many requests."""

    protocol_version = "HTTP/1.1"

    def setup(self):
        super().setup()
        self.server.connections.append(self.client_address)


@contextmanager
def counting(behave=None):
    """A server that counts connections; this process begins without any of its own."""
    http_client.forget_connections()
    with serving(behave, KeptAlive) as server:
        server.connections = []
        yield server


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch):
    monkeypatch.setattr(remote, "RETRY_SECONDS", ())


def read_parts(url: str, count: int = 20) -> bytes:
    source = open_source(url)
    return b"".join(source.read(at * 100, 100) for at in range(count))


def test_many_ranges_are_read_over_one_connection():
    with counting() as server:
        assert read_parts(f"{server.url}/a.tar") == FILE[:2000]
        assert open_source(f"{server.url}/b.tar").size() == len(FILE)
        assert len(server.asked) == 21
        assert len(server.connections) == 1


def test_answers_without_bytes_for_us_leave_the_connection_in_use():
    def stumble(handler: Handler) -> bool:
        statuses = {"/away": 404, "/other": 302}
        status = statuses.get(handler.path)
        return status is not None and handler.say(status, b"words", {"Location": "/a.tar"})

    with counting(stumble) as server:
        with pytest.raises(FileNotFoundError):
            open_source(f"{server.url}/away").size()
        assert read_parts(f"{server.url}/other", 2) == FILE[:200]
        assert len(server.connections) == 1


def test_a_connection_whose_answer_is_not_read_to_the_end_serves_no_other_request():
    with counting(lambda handler: handler.say(200, FILE * 50)) as server:
        assert read_parts(f"{server.url}/a.tar", 3) == FILE[:300]
        assert len(server.connections) == 3


def test_a_connection_that_the_server_closed_meanwhile_costs_no_attempt():
    """Whether that is seen before the request or only by it; the retries are none."""

    def close_after(handler: Handler) -> bool:
        handler.ranged(FILE)
        handler.close_connection = True  # without a word: no `Connection: close`
        return True

    with counting(close_after) as server:
        assert read_parts(f"{server.url}/a.tar") == FILE[:2000]
        assert len(server.connections) == 20


def test_a_request_that_a_kept_connection_swallows_is_made_again_on_a_new_one():
    """The server closes in the moment in which the request is under way."""

    def swallow_second(handler: Handler) -> bool:
        if len(handler.server.asked) != 2:
            return False
        handler.connection.shutdown(socket.SHUT_RDWR)
        handler.close_connection = True
        return True

    with counting(swallow_second) as server:
        assert read_parts(f"{server.url}/a.tar", 3) == FILE[:300]
        assert len(server.connections) == 2
        assert len(server.asked) == 4


def test_a_server_that_closes_every_connection_without_a_word_is_unreachable():
    def hang_up(handler: Handler) -> bool:
        handler.connection.shutdown(socket.SHUT_RDWR)
        handler.close_connection = True
        return True

    with counting(hang_up) as server:
        with pytest.raises(ShardError, match="check the address and the network"):
            open_source(f"{server.url}/a.tar").size()
        assert len(server.asked) == 1


def read_in_child(pickled: bytes, answer) -> None:
    source = pickle.loads(pickled)
    answer.send(source.read(500, 100))


def test_a_source_travels_to_another_process_which_makes_its_own_connection():
    with counting() as server:
        source = open_source(f"{server.url}/a.tar")
        source.size()
        ours, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        child = context.Process(target=read_in_child, args=(pickle.dumps(source), theirs))
        child.start()
        assert ours.recv() == FILE[500:600]
        child.join()
        source.read(0, 1)
        assert len(server.connections) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_never_uses_a_connection_of_its_parent():
    """Both would read pieces of one another's answers."""
    with counting() as server:
        source = open_source(f"{server.url}/a.tar")
        source.size()
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.write(writer, b"".join(source.read(at, 10) for at in range(0, 100, 10)))
            finally:
                os._exit(0)
        theirs = b"".join(source.read(at, 10) for at in range(100, 200, 10))
        os.waitpid(child, 0)
        assert os.read(reader, 1000) == FILE[:100]
        assert theirs == FILE[100:200]
        assert len(server.connections) == 2


def test_a_shard_set_of_one_shard_is_opened_and_read_over_one_connection(tmp_path):
    with ShardWriter(tmp_path, "train", None, shard_size=10**6) as writer:
        for key in "abcdefgh":
            writer.add(key, {"mp4": key.encode() * 100}, file_id=key)
    data = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    with counting(lambda handler: handler.ranged(data[handler.path[1:]]) or True) as server:
        shards = ShardSet(f"{server.url}/train-000000.tar")
        assert [shards.read(i).video for i in range(8)] == [key.encode() * 100 for key in "abcdefgh"]
        assert len(server.connections) == 1


def test_threads_share_what_is_kept():
    with counting() as server:
        url = f"{server.url}/a.tar"
        threads = [threading.Thread(target=read_parts, args=(url,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(server.asked) == 80
        assert len(server.connections) <= 4


@pytest.fixture
def closed_port() -> int:
    """Of this machine, where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def refused_waits(monkeypatch):
    """Attempts that would be made again fail the test."""
    monkeypatch.setattr(remote, "RETRY_SECONDS", (0.0,))
    monkeypatch.setattr(http_client, "ANSWERED", set())
    monkeypatch.setattr(remote.time, "sleep", lambda _: pytest.fail("waits"))


@pytest.mark.usefixtures("refused_waits")
def test_a_server_that_refuses_or_that_nobody_knows_is_an_error_at_once(closed_port):
    for address, said in (
        (f"http://127.0.0.1:{closed_port}/clip.mp4", "Connection refused; check the address"),
        ("https://nowhere.invalid/clip.mp4", "no server has this name; check the address"),
    ):
        with pytest.raises(ClipError, match=said) as caught:
            remote.fetch(address, 100)
        assert caught.value.stage == "read"
        with pytest.raises(ShardError, match=said) as refused:
            ShardSet(address.replace("clip.mp4", "train-000000.tar"))
        assert not isinstance(refused.value, UnreachableError)


def test_a_server_that_has_answered_before_is_waited_for(monkeypatch, closed_port):
    monkeypatch.setattr(http_client, "ANSWERED", {f"127.0.0.1:{closed_port}"})
    with pytest.raises(ClipError, match="Connection refused") as caught:
        remote.fetch(f"http://127.0.0.1:{closed_port}/clip.mp4", 100)
    assert caught.value.stage == UNREACHABLE


def test_bytes_of_a_shard_that_is_indexed_are_waited_for_also_by_a_new_process(monkeypatch, closed_port):
    monkeypatch.setattr(http_client, "ANSWERED", set())
    with pytest.raises(UnreachableError, match="Connection refused"):
        open_source(f"http://127.0.0.1:{closed_port}/train-000000.tar").read(512, 100)


def test_redirects_in_a_circle_end():
    with counting(lambda handler: handler.say(302, headers={"Location": "/b"})) as server:
        with pytest.raises(ShardError, match="redirected more than 10 times"):
            open_source(f"{server.url}/a").size()
        assert len(server.asked) == 11


class Proxy(http.server.BaseHTTPRequestHandler):
    def do_CONNECT(self):
        self.server.asked.append((self.path, self.headers.get("Proxy-Authorization")))
        self.send_error(407)

    def log_message(self, *_: object):
        pass


def test_the_proxy_of_the_environment_is_asked_for_other_machines_alone(monkeypatch):
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with serving(handler=Proxy) as proxy, counting() as server:
        monkeypatch.setenv("https_proxy", proxy.url.replace("//", "//ann:secret@"))
        monkeypatch.setenv("http_proxy", proxy.url)
        with pytest.raises(ShardError, match="407") as caught:
            open_source("https://store.invalid/a.tar").size()
        assert "secret" not in str(caught.value)
        assert proxy.asked[0][0] == "store.invalid:443"
        assert proxy.asked[0][1].startswith("Basic ")
        assert open_source(f"{server.url}/a.tar").size() == len(FILE)
        assert len(proxy.asked) == 1
