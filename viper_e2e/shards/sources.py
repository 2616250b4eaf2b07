"""shards/sources.py: bytes of a local or https file by offset, with limits and one kind of error."""

from __future__ import annotations

import functools
import http.client
import os
import re
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin, urlsplit, urlunsplit

from viper_e2e.errors import ViperError

TIMEOUT_SECONDS = 30.0
LOOPBACK = ("127.0.0.1", "::1", "localhost")
RETRY_SECONDS = (0.5, 2.0, 8.0)
"""Waits before further attempts when a server or the network stumbles."""


class ShardError(ViperError):
    """A shard cannot be used: torn, damaged, hostile, unreachable, or not what its index says."""


@dataclass(frozen=True)
class ShardLimits:
    """What a shard may ask for before anything is allocated; more is an error."""

    max_clip_bytes: int = 2 * 1024**3
    """One video or sound member."""
    max_json_bytes: int = 1024**2
    max_action_units_bytes: int = 64 * 1024**2
    max_index_bytes: int = 64 * 1024**2
    max_header_bytes: int = 64 * 1024
    """One extended tar header (long names)."""
    max_members: int = 4_000_000
    """Members in one shard."""


class LocalFile:
    """A file on disk. Holds only its path: picklable, safe across fork and threads."""

    window_bytes = 4096
    """How much is read at once while walking headers."""

    def __init__(self, path: str):
        self.name = path

    def size(self) -> int:
        """Bytes; raises ``FileNotFoundError``, or ``ShardError`` where it is not a plain file."""
        if not Path(self.name).is_file():
            if not Path(self.name).exists():
                raise FileNotFoundError(self.name)
            raise ShardError(f"{self.name}: not a plain file; give shards, such as {self.name}/train-*.tar")
        return Path(self.name).stat().st_size

    def read(self, offset: int, size: int) -> bytes:
        """Exactly ``size`` bytes from ``offset``; ``ShardError`` where the file ends earlier."""
        pieces = []
        try:
            with Path(self.name).open("rb", buffering=0) as file:
                while size > 0 and (piece := os.pread(file.fileno(), size, offset)):
                    pieces.append(piece)
                    offset, size = offset + len(piece), size - len(piece)
        except OSError as error:
            raise ShardError(f"{self.name}: cannot be read ({error.strerror})") from error
        if size:
            raise ShardError(f"{self.name}: ends at byte {offset}, {size} bytes early; copy the shard again")
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class RemoteFile:
    """A file behind ``https://``, read by Range requests. Holds only its URL: picklable."""

    window_bytes = 65_536

    def __init__(self, url: str):
        self.url = url
        self.name = without_query(url)

    def size(self) -> int:
        """Bytes, from the first Range answer; raises ``FileNotFoundError`` where it is not there."""
        _, total = self._range(0, 1)
        return total

    def read(self, offset: int, size: int) -> bytes:
        """Exactly ``size`` bytes from ``offset``; ``ShardError`` where the server gives something else."""
        return self._range(offset, size)[0] if size else b""

    def _range(self, offset: int, size: int) -> tuple[bytes, int]:
        for wait in (*RETRY_SECONDS, None):
            try:
                return self._try_range(offset, size)
            except urllib.error.HTTPError as error:
                with error:
                    reason = f"HTTP {error.code} {error.reason}"
                if error.code in (403, 404, 410):  # stores that hide their listing answer 403 for "not there"
                    raise FileNotFoundError(self.name) from error
                if error.code == 416 and error.headers.get("Content-Range") == "bytes */0":
                    return b"", 0
                if error.code < 500 and error.code != 429:
                    break
            except (OSError, http.client.HTTPException) as error:
                reason = str(getattr(error, "reason", error)) or type(error).__name__
            if wait is not None:
                time.sleep(wait)
        raise ShardError(f"{self.name}: {reason}; check the address and the network")

    def _try_range(self, offset: int, size: int) -> tuple[bytes, int]:
        headers = {"Range": f"bytes={offset}-{offset + size - 1}", "Accept-Encoding": "identity"}
        opener = _opener(urlsplit(self.url).hostname not in LOOPBACK)
        request = urllib.request.Request(self.url, headers=headers)
        with opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
            served = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", answer.headers.get("Content-Range", ""))
            if answer.status != 206 or served is None:
                raise ShardError(f"{self.name}: the server does not serve byte ranges; download the shard")
            first, last, total = map(int, served.groups())
            if first != offset or last - first + 1 != size:
                raise ShardError(f"{self.name}: asked for {size} bytes at {offset}, got {served.group(0)!r}")
            data = answer.read(size)
        if len(data) < size:
            raise http.client.IncompleteRead(data, size - len(data))
        return data, total


Source = LocalFile | RemoteFile


def open_source(where: str) -> Source:
    """A local path, or an ``https://`` URL; every other scheme is a ``ShardError`` and is never opened."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", where) is None:
        return LocalFile(where)
    refuse_scheme(where)
    return RemoteFile(where)


def refuse_scheme(url: str) -> None:
    """Let through https anywhere, and plain http only to this very machine (a tunnel, a test)."""
    parts = urlsplit(url)
    if not (parts.scheme == "https" and parts.hostname) and not is_loopback(url):
        raise ShardError(
            f"{without_query(url)}: scheme {parts.scheme!r} is refused; "
            "shards are local paths (./name where a name has a colon) or https:// URLs"
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

    def redirect_request(self, req, fp, code, msg, headers, newurl):
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
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(),
    ):
        opener.add_handler(handler)
    return opener
