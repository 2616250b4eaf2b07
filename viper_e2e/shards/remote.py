"""shards/remote.py: bytes of a remote file by Range requests, with retries and time limits."""

from __future__ import annotations

import base64
import errno
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit, urlunsplit

from viper_e2e.errors import UNREACHABLE, ClipError, Stage
from viper_e2e.shards.addresses import refuse_scheme, without_query
from viper_e2e.shards.limits import ShardError, UnreachableError
from viper_e2e.shards.shard_state import ClipState, ShardState
from viper_e2e.shards.stores import forget_logins, login_fault, request_for

if TYPE_CHECKING:
    from viper_e2e.shards.http_client import Answer, Stumble

TIMEOUT_SECONDS = 20.0
"""Time limit to connect, for the head of an answer, and for each piece of it."""
LEAST_BYTES_PER_SECOND = 20_000
"""An answer that comes slower is given up."""
RETRY_SECONDS = (0.5, 2.0, 8.0, 15.0, 15.0)
"""Waits before further attempts when a server or the network stumbles."""
PATIENCE_SECONDS = 50.0
"""No further attempt begins later: a clip's worker has a minute."""
WHOLE_BYTES = 16 * 2**20
"""Most bytes read to get to the wanted ones if a server sends the whole file instead of a range."""
SERVED = (200, 206)
_NOT_THERE = {
    403: "HTTP 403 (Forbidden): its address has expired, needs a permission, or nothing is there",
    404: "no such shard (HTTP 404)",
    410: "no such shard (HTTP 410)",
}


class RemoteFile:
    """A file behind ``https://`` or in a store, read by Range requests. Picklable.

    ``https://user:password@host/…`` logs in (HTTP basic authentication).
    """

    window_bytes = 65_536

    def __init__(self, url: str, state: ShardState | None = None):
        parts = urlsplit(url)
        login, _, host = parts.netloc.rpartition("@")
        self.url = urlunsplit((parts.scheme, host, parts.path, parts.query, ""))
        self.name = without_query(url)
        self._login = login
        self.state = state
        """State that all answers must have; ``None``: any."""

    def size(self) -> int:
        """Bytes, from the first Range answer; raises ``FileNotFoundError`` where it is not there.

        ``ShardError`` at once where no server is to be expected there. For bytes of what is known to be there
        one is waited for: this question comes first, of a shard's index or of a clip.
        """
        # 0.1 s of imports that local shards do without
        from viper_e2e.shards.http_client import NoServerError

        _, total = self._range(0, 1, final=NoServerError)
        return total

    def read(self, offset: int, size: int) -> bytes:
        """Exactly ``size`` bytes from ``offset``; ``ShardError`` where the server gives something else."""
        return self._range(offset, size)[0] if size else b""

    def _range(self, offset: int, size: int, final: type[Stumble] | tuple[()] = ()) -> tuple[bytes, int]:
        """``final``: of what stumbles, that after which no further attempt is made."""
        from viper_e2e.shards.http_client import Stumble

        began, reason = time.monotonic(), ""
        for wait in (*RETRY_SECONDS, None):
            try:
                return self._try_range(offset, size)
            except final as error:
                raise ShardError(f"{self.name}: {error}; check the address and the network") from error
            except Stumble as stumble:
                reason = str(stumble)
                wait = None if wait is None else max(wait, stumble.wait_seconds)
            if wait is None or time.monotonic() + wait - began > PATIENCE_SECONDS:
                break
            time.sleep(wait)
        raise UnreachableError(f"{self.name}: {reason}; check the address and the network")

    def _try_range(self, offset: int, size: int) -> tuple[bytes, int]:
        with self.asked(offset, size) as answer:
            if answer.status not in SERVED:
                return self.refused(answer)
            before, total = self.place_in(answer, offset, size)
            if self.state is not None:
                self.state.check(self.name, version_of(answer))
            return answer.exactly(before + size, patience_seconds(size))[before:], total

    @contextmanager
    def asked(self, offset: int, size: int) -> Iterator[Answer]:
        """The answer to a request for a range, whatever it says, but for logins, which are looked for twice."""
        from viper_e2e.shards.http_client import get

        headers = {"Range": f"bytes={offset}-{offset + size - 1}", "Accept-Encoding": "identity"}
        for is_last in (False, True):
            request = request_for(self.url)
            with get(request.url, headers, request.secrets | self._secrets(), TIMEOUT_SECONDS) as answer:
                fault = None if answer.status in SERVED else login_fault(self.url, answer)
                if fault is None:
                    yield answer
                    return
            if is_last:
                raise ShardError(f"{self.name}: {fault}")
            forget_logins()  # over days of training they may have been renewed meanwhile

    def _secrets(self) -> dict[str, str]:
        if not self._login:
            return {}
        return {"Authorization": f"Basic {base64.b64encode(unquote(self._login).encode()).decode()}"}

    def refused(self, answer: Answer) -> tuple[bytes, int]:
        """Raises what a status that is no success means, or gives an empty file's bytes."""
        from viper_e2e.shards.http_client import Stumble

        if answer.status in _NOT_THERE:  # stores that hide their listing answer 403 for "not there"
            raise FileNotFoundError(errno.ENOENT, _NOT_THERE[answer.status], self.name)
        if answer.status == 401:
            advice = "needs a login: write https://user:password@host/…, or give a signed address"
            raise ShardError(f"{self.name}: HTTP 401: {advice}")
        if answer.status == 416 and answer.headers.get("Content-Range") == "bytes */0":
            return b"", 0
        reason = f"HTTP {answer.status} {answer.reason}"
        if answer.status < 500 and answer.status not in (408, 425, 429):
            raise ShardError(f"{self.name}: {reason}; check the address and the network")
        later = answer.headers.get("Retry-After", "")
        raise Stumble(reason, float(later) if later.isdecimal() else 0.0)

    def place_in(self, answer: Answer, offset: int, size: int) -> tuple[int, int]:
        """Number of bytes in an answer before the wanted ones, and the size of the whole file."""
        if (encoding := answer.headers.get("Content-Encoding", "identity")) != "identity":
            raise ShardError(
                f"{self.name}: the server compresses it ({encoding}), so byte ranges cannot be read; "
                "download the shard"
            )
        if answer.status == 200:
            return self._place_in_whole(answer, offset)
        served = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", answer.headers.get("Content-Range", ""))
        if answer.status != 206 or served is None:
            raise self._without_ranges()
        first, last, total = map(int, served.groups())
        if first != offset or last - first + 1 != size:
            raise ShardError(f"{self.name}: asked for {size} bytes at {offset}, got {served.group(0)!r}")
        return 0, total

    def _place_in_whole(self, answer: Answer, offset: int) -> tuple[int, int]:
        """Place of an answer that begins at the file's first byte, if it is found within a few bytes."""
        if answer.headers.get("Content-Type", "").partition(";")[0].strip().lower() == "text/html":
            raise ShardError(f"{self.name}: the server answered with a web page (a login?), not with the file")
        total = answer.headers.get("Content-Length", "")
        if offset > WHOLE_BYTES or not total.isdecimal():
            raise self._without_ranges()
        return offset, int(total)

    def _without_ranges(self) -> ShardError:
        return ShardError(f"{self.name}: the server does not serve byte ranges; download the shard")


def version_of(answer: Answer) -> str | None:
    """A server's identifier of a file's state."""
    told = [answer.headers.get(name, "") for name in ("ETag", "Last-Modified")]
    return " ".join(told) if any(told) else None


def fetch(url: str, max_bytes: int) -> bytes:
    """The whole of a clip behind an address; ``ClipError`` where it cannot be had or is larger than allowed."""
    refuse_scheme(url)
    source = RemoteFile(url, ClipState())
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
        stage: Stage = UNREACHABLE if isinstance(error, UnreachableError) else "read"
        raise ClipError(str(error).removeprefix(f"{source.name}: "), stage=stage, clip=source.name) from error


def patience_seconds(size: int) -> float:
    """Time limit for this many bytes."""
    return TIMEOUT_SECONDS + size / LEAST_BYTES_PER_SECOND
