"""Shards on servers are read by range, and only over https whose certificate is valid."""

from __future__ import annotations

import http.server
import os
import re
import socket
import ssl
import subprocess
import threading
from pathlib import Path

import pytest
from support.our_shards import write_ours

from viper_e2e.errors import ClipError
from viper_e2e.shards import (
    ShardError,
    ShardSet,
    http_client,
    index_path,
    remote,
)


class _Server(http.server.ThreadingHTTPServer):
    """Serves a folder by Range; counts bytes, can stumble, redirect, or ignore Range."""

    def __init__(self, folder: Path):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.sent, self.stumbles, self.plain, self.redirect = folder, 0, 0, False, None
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, path = self.server, self.server.folder / self.path.partition("?")[0].lstrip("/")
        if server.redirect:
            self._answer(302, b"", {"Location": server.redirect})
        elif server.stumbles:
            server.stumbles -= 1
            self._answer(503, b"")
        elif not path.is_file():
            self._answer(404, b"")
        elif server.plain:
            self._answer(200, path.read_bytes())
        else:
            data = path.read_bytes()
            first, last = map(int, re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"]).groups())
            part = data[first : last + 1]
            self._answer(206, part, {"Content-Range": f"bytes {first}-{first + len(part) - 1}/{len(data)}"})

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.server.sent += len(body)
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "RETRY_SECONDS", (0.0, 0.0))
    with _Server(tmp_path) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_remote_shards_are_read_by_range(tmp_path, server):
    paths = write_ours(tmp_path, 6, shard_size=4_000)
    shards = ShardSet(f"{server.url}/train-{{000000..{len(paths) - 1:06d}}}.tar?signature=secret")
    assert len(shards) == 6
    server.sent = 0
    assert shards.read(3).video == b"video 3 " * 100
    assert server.sent == 800
    Path(index_path(paths[0])).unlink()
    foreign = ShardSet(f"{server.url}/train-000000.tar?signature=secret")
    assert foreign.read(0).video == b"video 0 " * 100
    os.truncate(paths[0], 1000)
    with pytest.raises(ShardError, match="incomplete") as error:
        ShardSet(f"{server.url}/train-000000.tar?signature=secret")
    assert "secret" not in str(error.value)


def test_a_stumbling_server_is_asked_again(tmp_path, server):
    write_ours(tmp_path)
    shards = ShardSet(f"{server.url}/train-000000.tar")
    server.stumbles = 2
    assert shards.read(0).video == b"video 0 " * 100
    server.stumbles = 99
    with pytest.raises(ClipError, match="HTTP 503"):
        shards.read(0)


def test_a_server_that_is_not_there_or_ignores_range_says_so(tmp_path, server, monkeypatch):
    write_ours(tmp_path)
    with pytest.raises(ShardError, match="no such shard"):
        ShardSet(f"{server.url}/other-000000.tar")
    server.plain = True
    assert ShardSet(f"{server.url}/train-000000.tar").read(0).video == b"video 0 " * 100
    monkeypatch.setattr(remote, "WHOLE_BYTES", 1000)
    with pytest.raises(ShardError, match="does not serve byte ranges"):
        ShardSet(f"{server.url}/train-000000.tar")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(ShardError, match="check the address"):
            ShardSet(f"http://127.0.0.1:{closed.getsockname()[1]}/train-000000.tar")


@pytest.mark.parametrize("target", ["http://example.org/a.tar", "file:///etc/passwd", "ftp://h/a.tar"])
def test_redirects_to_anything_but_https_are_refused(server, target):
    server.redirect = target
    with pytest.raises(ShardError, match=r"refused|HTTP 302"):
        ShardSet(f"{server.url}/train-000000.tar")


@pytest.mark.slow
def test_https_is_checked_against_the_systems_certificates(tmp_path, server, monkeypatch):
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    made = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "1",
        "-keyout",
        key,
        "-out",
        certificate,
    ]
    try:
        subprocess.run([*made, *subject], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("the openssl program is not installed")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    write_ours(tmp_path)
    url = f"https://localhost:{server.server_port}/train-000000.tar"
    http_client.forget_connections()
    with pytest.raises(ShardError, match="certificate verify failed"):
        ShardSet(url)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    http_client.forget_connections()
    assert ShardSet(url).read(0).video == b"video 0 " * 100
    http_client.forget_connections()
