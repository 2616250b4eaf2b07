"""shards/http_client.py: GET requests over kept connections: one pool a process, redirects and time watched."""

from __future__ import annotations

import contextlib
import errno
import http.client
import os
import socket
import ssl
import threading
import urllib.request
from collections.abc import Mapping
from urllib.parse import unquote, urljoin, urlsplit

import urllib3
import urllib3.connection
from urllib3.exceptions import HTTPError, ProtocolError, SSLError
from urllib3.response import BaseHTTPResponse

from viper_e2e.shards.addresses import LOOPBACK, refuse_redirect, same_origin, without_query
from viper_e2e.shards.limits import ShardError

MAX_REDIRECTS = 10
KEPT_CONNECTIONS = 16
"""Per server; indexes of a shard set are read by eight threads."""
_REDIRECTS = (301, 302, 303, 307, 308)
_PIECE_BYTES = 2**20
_TOLD_BYTES = 4096
_LASTING = (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH)
_LARGE_BYTES = 2**16
"""More than this is not read only to keep a connection."""


class Stumble(Exception):
    """An attempt that may succeed when it is made again; the message says what happened."""

    def __init__(self, reason: str, wait_seconds: float = 0.0):
        super().__init__(reason)
        self.wait_seconds = wait_seconds


class NoServerError(Stumble):
    """No server has answered there in this process, and what prevents it does not pass by itself."""


class Answer:
    """A server's answer, its body unread. Close it, or its connection is lost."""

    def __init__(self, response: BaseHTTPResponse, watchdog: _Watchdog):
        self._response, self._watchdog = response, watchdog
        self.status, self.headers = response.status, response.headers
        self.reason = response.reason or ""

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Once read to its end, its connection has gone back to the pool; a short rest is read to get there."""
        if (self._response.length_remaining or _LARGE_BYTES) < _LARGE_BYTES:
            self._response.drain_conn()
        self._watchdog.stop()
        self._response.close()
        self._response.release_conn()

    def beginning(self) -> bytes:
        """The first bytes of a refusal, if they come at once."""
        try:
            return self._response.read1(_TOLD_BYTES, decode_content=False)
        except (HTTPError, OSError, http.client.HTTPException) as error:
            raise Stumble(self._watchdog.fault or _reason(error)) from error

    def exactly(self, size: int, within_seconds: float) -> bytes:
        """So many bytes of the body, as they come, so that the watchdog can end it between two."""
        self._watchdog.arm(within_seconds)
        pieces, left = [], size
        try:
            while left and (piece := self._response.read1(min(left, _PIECE_BYTES), decode_content=False)):
                pieces.append(piece)
                left -= len(piece)
        except (HTTPError, OSError, http.client.HTTPException) as error:
            raise Stumble(self._watchdog.fault or _reason(error)) from error
        if left:
            raise Stumble(self._watchdog.fault or f"the answer ends {left} of {size} bytes early")
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def get(url: str, headers: Mapping[str, str], secrets: Mapping[str, str], timeout_seconds: float) -> Answer:
    """Ask for ``url``; any status is an answer, but redirects are followed where they may lead.

    ``secrets`` are headers that only the server of ``url`` gets. Raises ``Stumble`` where no answer comes, and
    ``NoServerError`` where none is to be expected: an unknown name, a closed port, a certificate of others.
    """
    watchdog = _Watchdog()
    watchdog.arm(2 * timeout_seconds)
    here = url
    try:
        for _ in range(MAX_REDIRECTS + 1):
            sent = {**headers, **secrets} if same_origin(url, here) else dict(headers)
            answer = Answer(_ask(here, sent, timeout_seconds, watchdog), watchdog)
            ANSWERED.add(urlsplit(here).netloc)
            location = answer.headers.get("Location")
            if answer.status not in _REDIRECTS or not location:
                return answer
            answer.close()
            watchdog.arm(2 * timeout_seconds)
            target = urljoin(here, location)
            refuse_redirect(here, target)
            here = target
    except (HTTPError, OSError, http.client.HTTPException) as error:
        watchdog.stop()
        is_new = urlsplit(here).netloc not in ANSWERED
        kind = NoServerError if is_new and _is_lasting(_innermost(error)) else Stumble
        raise kind(watchdog.fault or _reason(error)) from error
    except ShardError:
        watchdog.stop()
        raise
    watchdog.stop()
    raise ShardError(f"{without_query(url)}: redirected more than {MAX_REDIRECTS} times; check the address")


def _ask(url: str, headers: dict[str, str], timeout_seconds: float, watchdog: _Watchdog) -> BaseHTTPResponse:
    _Watchdog.current.watchdog = watchdog
    while True:
        watchdog.reuses = True
        try:
            return _pools.of(_proxy_for(url)).urlopen(
                "GET",
                url,
                headers=headers,
                redirect=False,
                retries=False,
                timeout=timeout_seconds,
                preload_content=False,
                decode_content=False,
            )
        except (ProtocolError, SSLError):
            # A server may close a kept connection in the moment in which it is used again. That is no failure
            # of the server: the next kept one is tried, and at last a new one.
            if not watchdog.reuses or watchdog.fault:
                raise


def _reason(error: BaseException) -> str:
    """Message of the innermost error; outer ones repeat it between names of classes."""
    innermost = _innermost(error)
    if isinstance(innermost, socket.gaierror):
        return "no server has this name"
    if isinstance(innermost, OSError) and innermost.errno in _LASTING:
        return innermost.strerror or str(innermost)
    return str(innermost) or type(innermost).__name__


def _innermost(error: BaseException) -> BaseException:
    while deeper := error.__cause__ or next((a for a in error.args if isinstance(a, BaseException)), None):
        error = deeper
    return error


def _is_lasting(error: BaseException) -> bool:
    if isinstance(error, socket.gaierror | ssl.SSLCertVerificationError):
        return True
    return isinstance(error, OSError) and error.errno in _LASTING


ANSWERED: set[str] = set()
"""Servers that have answered this process: those come back."""


class _Watchdog:
    """Ends a request that is not over in time, however busily its bytes trickle in.

    A socket's own timeout counts from the last byte: a byte every few seconds would hold it for ever.
    """

    current = threading.local()
    """The watchdog of this thread's request."""

    def __init__(self) -> None:
        self.fault, self.reuses = "", True
        self.socket: socket.socket | None = None
        self._timer: threading.Timer | None = None

    def arm(self, seconds: float) -> None:
        """Set the deadline this many seconds from now."""
        self.stop()
        self._timer = threading.Timer(seconds, self._end, (seconds,))
        self._timer.daemon = True
        self._timer.start()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _end(self, seconds: float) -> None:
        self.fault = f"no whole answer within {seconds:.0f} s"
        if self.socket is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self.socket, socket.SHUT_RDWR)


class _Watched(urllib3.connection.HTTPConnection):
    """Tells the watchdog of its thread which socket an answer is awaited from."""

    def connect(self) -> None:
        _Watchdog.current.watchdog.reuses = False
        super().connect()

    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]  # as urllib3's own
        _Watchdog.current.watchdog.socket = self.sock
        return super().getresponse()


class _WatchedSecure(_Watched, urllib3.connection.HTTPSConnection):
    pass


class _PlainPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Watched


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _WatchedSecure


class _Pools:
    """The connections of this process, by the proxy they go through; made when the first is needed."""

    def __init__(self) -> None:
        self._lock, self._by_proxy = threading.Lock(), dict[str, urllib3.PoolManager]()

    def of(self, proxy: str) -> urllib3.PoolManager:
        with self._lock:
            if proxy not in self._by_proxy:
                self._by_proxy[proxy] = manager = _new_manager(proxy)
                manager.pool_classes_by_scheme = {"http": _PlainPool, "https": _SecurePool}
            return self._by_proxy[proxy]


def _new_manager(proxy: str) -> urllib3.PoolManager:
    context = ssl.create_default_context()  # the system's certificates, or SSL_CERT_FILE's
    if proxy:
        login, _, _ = urlsplit(proxy).netloc.rpartition("@")
        headers = urllib3.make_headers(proxy_basic_auth=unquote(login)) if login else None
        return urllib3.ProxyManager(proxy, proxy_headers=headers, maxsize=KEPT_CONNECTIONS, ssl_context=context)
    return urllib3.PoolManager(maxsize=KEPT_CONNECTIONS, ssl_context=context)


def manager_for(url: str) -> urllib3.PoolManager:
    """Connections for libraries that log in, through the same proxy, without our time limits."""
    return _new_manager(_proxy_for(url))


def _proxy_for(url: str) -> str:
    """Proxy from the environment (`https_proxy`, `no_proxy`); none for this machine itself."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host in LOOPBACK or urllib.request.proxy_bypass(host):
        return ""
    proxy = urllib.request.getproxies().get(parts.scheme, "")
    return proxy if "://" in proxy or not proxy else f"http://{proxy}"


_pools = _Pools()
_inherited: list[_Pools] = []


def forget_connections() -> None:
    """Begin with a new pool. The old one stays as it is: in a forked child its sockets are the parent's.

    Not even let go of: closing it takes locks, which a thread of the parent may have held in that moment.
    """
    global _pools
    _inherited.append(_pools)
    _pools = _Pools()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forget_connections)
