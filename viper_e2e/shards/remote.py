"""shards/remote.py: bytes of an https file by Range requests: patient with servers, never for ever."""

from __future__ import annotations

import base64
import contextlib
import errno
import functools
import http.client
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from http.client import HTTPResponse
from typing import IO
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from viper_e2e.errors import UNREACHABLE, ClipError
from viper_e2e.shards.limits import ShardError, UnreachableError

TIMEOUT_SECONDS = 20.0
"""To connect, for the head of an answer, and for each piece of it."""
LEAST_BYTES_PER_SECOND = 20_000
"""An answer that comes slower is given up."""
RETRY_SECONDS = (0.5, 2.0, 8.0, 15.0, 15.0)
"""Waits before further attempts when a server or the network stumbles."""
PATIENCE_SECONDS = 50.0
"""No further attempt begins later: a clip's worker has a minute."""
WHOLE_BYTES = 16 * 2**20
"""Of a server that sends the whole file instead of a range, as much is read to get to the bytes asked for."""
LOOPBACK = ("127.0.0.1", "::1", "localhost")
_PIECE_BYTES = 2**20
_NOT_THERE = {
    403: "HTTP 403 (Forbidden): its address has expired, needs a permission, or nothing is there",
    404: "no such shard (HTTP 404)",
    410: "no such shard (HTTP 410)",
}


class _Stumble(Exception):
    """An attempt that may succeed when it is made again; the message says what happened."""

    def __init__(self, reason: str, wait_seconds: float = 0.0):
        super().__init__(reason)
        self.wait_seconds = wait_seconds


class RemoteFile:
    """A file behind ``https://``, read by Range requests. Holds only its URL: picklable.

    ``https://user:password@host/…`` logs in (HTTP basic authentication).
    """

    window_bytes = 65_536

    def __init__(self, url: str):
        parts = urlsplit(url)
        login, _, host = parts.netloc.rpartition("@")
        self.url = urlunsplit((parts.scheme, host, parts.path, parts.query, ""))
        self.name = without_query(url)
        self._login = login

    def size(self) -> int:
        """Bytes, from the first Range answer; raises ``FileNotFoundError`` where it is not there."""
        _, total = self._range(0, 1)
        return total

    def read(self, offset: int, size: int) -> bytes:
        """Exactly ``size`` bytes from ``offset``; ``ShardError`` where the server gives something else."""
        return self._range(offset, size)[0] if size else b""

    def _range(self, offset: int, size: int) -> tuple[bytes, int]:
        began, reason = time.monotonic(), ""
        for wait in (*RETRY_SECONDS, None):
            try:
                return self._try_range(offset, size)
            except _Stumble as stumble:
                reason = str(stumble)
                wait = None if wait is None else max(wait, stumble.wait_seconds)
            if wait is None or time.monotonic() + wait - began > PATIENCE_SECONDS:
                break
            time.sleep(wait)
        raise UnreachableError(f"{self.name}: {reason}; check the address and the network")

    def _try_range(self, offset: int, size: int) -> tuple[bytes, int]:
        with _Watchdog() as watchdog:
            try:
                with self._ask(offset, size) as answer:
                    watchdog.arm(TIMEOUT_SECONDS + size / LEAST_BYTES_PER_SECOND)
                    return self._part(answer, offset, size)
            except urllib.error.HTTPError as error:
                with error:
                    return self._refused(error)
            except (OSError, http.client.HTTPException) as error:
                reason = str(getattr(error, "reason", error)) or type(error).__name__
                raise _Stumble(watchdog.told or reason) from error

    def _ask(self, offset: int, size: int) -> HTTPResponse:
        headers = {"Range": f"bytes={offset}-{offset + size - 1}", "Accept-Encoding": "identity"}
        request = urllib.request.Request(self.url, headers=headers)
        if self._login:
            code = base64.b64encode(unquote(self._login).encode()).decode()
            request.add_unredirected_header("Authorization", f"Basic {code}")
        opener = _opener(urlsplit(self.url).hostname not in LOOPBACK)
        return opener.open(request, timeout=TIMEOUT_SECONDS)

    def _refused(self, error: urllib.error.HTTPError) -> tuple[bytes, int]:
        """Raises what a status that is no success means, or gives an empty file's bytes."""
        if error.code in _NOT_THERE:  # stores that hide their listing answer 403 for "not there"
            raise FileNotFoundError(errno.ENOENT, _NOT_THERE[error.code], self.name) from error
        if error.code == 401:
            advice = "needs a login: write https://user:password@host/…, or give a signed address"
            raise ShardError(f"{self.name}: HTTP 401: {advice}") from error
        if error.code == 416 and error.headers.get("Content-Range") == "bytes */0":
            return b"", 0
        reason = f"HTTP {error.code} {error.reason}"
        if error.code < 500 and error.code not in (408, 425, 429):
            raise ShardError(f"{self.name}: {reason}; check the address and the network") from error
        later = error.headers.get("Retry-After", "")
        raise _Stumble(reason, float(later) if later.isdecimal() else 0.0) from error

    def _part(self, answer: HTTPResponse, offset: int, size: int) -> tuple[bytes, int]:
        """The bytes asked for out of an answer, and the size of the whole file."""
        if (encoding := answer.headers.get("Content-Encoding", "identity")) != "identity":
            raise ShardError(f"{self.name}: the server compresses it ({encoding}), which byte ranges exclude")
        if answer.status == 200:
            return self._part_of_whole(answer, offset, size)
        served = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", answer.headers.get("Content-Range", ""))
        if answer.status != 206 or served is None:
            raise self._without_ranges()
        first, last, total = map(int, served.groups())
        if first != offset or last - first + 1 != size:
            raise ShardError(f"{self.name}: asked for {size} bytes at {offset}, got {served.group(0)!r}")
        return _exactly(answer, size), total

    def _part_of_whole(self, answer: HTTPResponse, offset: int, size: int) -> tuple[bytes, int]:
        """Out of an answer that begins at the file's first byte, if it need not be read far."""
        if answer.headers.get_content_type() == "text/html":
            raise ShardError(f"{self.name}: the server answered with a web page (a login?), not with the file")
        total = answer.headers.get("Content-Length", "")
        if offset > WHOLE_BYTES or not total.isdecimal():
            raise self._without_ranges()
        return _exactly(answer, offset + size)[offset:], int(total)

    def _without_ranges(self) -> ShardError:
        return ShardError(f"{self.name}: the server does not serve byte ranges; download the shard")


def fetch(url: str, max_bytes: int) -> bytes:
    """The whole of a clip behind an address; ``ClipError`` where it cannot be had or is larger than allowed."""
    refuse_scheme(url)
    source = RemoteFile(url)
    try:
        size = source.size()
        if size > max_bytes:
            message = f"has {size:,} bytes, at most {max_bytes:,} are allowed (see --max-bytes), or download it"
            raise ClipError(message, stage="read", clip=source.name)
        pieces = range(0, size, WHOLE_BYTES)
        return b"".join(source.read(at, min(WHOLE_BYTES, size - at)) for at in pieces)
    except FileNotFoundError as error:
        reason = error.strerror or str(error)
        reason = "nothing is there (HTTP 404)" if "404" in reason else reason
        raise ClipError(reason, stage="read", clip=source.name) from error
    except ShardError as error:
        stage = UNREACHABLE if isinstance(error, UnreachableError) else "read"
        raise ClipError(str(error).removeprefix(f"{source.name}: "), stage=stage, clip=source.name) from error


def _exactly(answer: HTTPResponse, size: int) -> bytes:
    """So many bytes of an answer, taken as they come, so that a watchdog can end it between two."""
    pieces, left = [], size
    while left and (piece := answer.read1(min(left, _PIECE_BYTES))):
        pieces.append(piece)
        left -= len(piece)
    if left:
        raise http.client.IncompleteRead(b"", left)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class _Watchdog:
    """Ends a request that is not over in time, however busily its bytes trickle in.

    A socket's own timeout counts from the last byte: a byte every few seconds would hold it for ever.
    """

    current = threading.local()
    """The watchdog of this thread's request."""

    def __init__(self) -> None:
        self.told = ""
        self.sockets: list[socket.socket] = []
        self._timer: threading.Timer | None = None

    def __enter__(self) -> _Watchdog:
        _Watchdog.current.watchdog = self
        self.arm(2 * TIMEOUT_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.sockets.clear()

    def arm(self, seconds: float) -> None:
        """From now on so long."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = threading.Timer(seconds, self._end, (seconds,))
        self._timer.daemon = True
        self._timer.start()

    def _end(self, seconds: float) -> None:
        self.told = f"no whole answer within {seconds:.0f} s"
        for sock in self.sockets:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)


class _Connection(http.client.HTTPConnection):
    def connect(self) -> None:
        super().connect()
        _Watchdog.current.watchdog.sockets.append(self.sock)


class _SecureConnection(http.client.HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        _Watchdog.current.watchdog.sockets.append(self.sock)


class _Plain(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(_Connection, req)


class _Secure(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(_SecureConnection, req)


def refuse_scheme(url: str) -> None:
    """Let through https anywhere, and plain http only to this very machine (a tunnel, a test)."""
    parts = urlsplit(url)
    if not (parts.scheme == "https" and parts.hostname) and not is_loopback(url):
        raise ShardError(
            f"{without_query(url)}: scheme {parts.scheme!r} is refused; "
            "clips and shards are local paths (./name where a name has a colon) or https:// URLs"
        )


def is_loopback(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname in LOOPBACK


def without_query(url: str) -> str:
    """The URL for messages: a signed query is a secret."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Redirects stay on https: a server must not send us to a plain, local or other address."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes] | HTTPResponse,
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        target = urljoin(req.full_url, newurl)
        if urlsplit(target).scheme != "https" and not (is_loopback(req.full_url) and is_loopback(target)):
            raise ShardError(f"{without_query(req.full_url)}: redirected to {without_query(target)}: refused")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@functools.cache
def _opener(through_proxy: bool) -> urllib.request.OpenerDirector:
    # Built by hand: build_opener() would add file:, ftp: and data: handlers.
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(None if through_proxy else {}),
        _Plain(),
        _Secure(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(),
    ):
        opener.add_handler(handler)
    return opener
