"""ahead_service.py: serves shards that are read ahead to worker processes: one process fetches, all read."""

from __future__ import annotations

import contextlib
import json
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import AuthenticationError, current_process
from multiprocessing.connection import Client, Connection, Listener
from typing import ClassVar

from viper_e2e.loading.read_ahead import WAIT_SECONDS, ReadAhead
from viper_e2e.shards import Bytes, Direct, RemoteReading, is_remote

Address = str | tuple[str, int]


class AheadService:
    """A `ReadAhead` that workers reach by the machine's own sockets; shared by all streams of this process."""

    _shared: ClassVar[dict[RemoteReading, AheadService]] = {}
    _turn = threading.Lock()

    def __init__(self, reading: RemoteReading):
        self.remote_reading, self.ahead, self._users = reading, ReadAhead(reading), 0
        self._listener = Listener(authkey=bytes(current_process().authkey))
        self.token = secrets.token_hex(8)
        threading.Thread(target=self._accept, name="viper-ahead-service", daemon=True).start()

    @classmethod
    def shared(cls, reading: RemoteReading) -> AheadService:
        """The one of this process; `leave` it when it is no longer needed."""
        with cls._turn:
            service = cls._shared.get(reading) or cls(reading)
            cls._shared[reading] = service
            service._users += 1
            return service

    @classmethod
    def with_token(cls, token: str) -> AheadService | None:
        """If it is of this process."""
        return next((one for one in cls._shared.values() if one.token == token), None)

    def leave(self) -> None:
        """The last one who leaves closes it."""
        with self._turn:
            self._users -= 1
            if self._users:
                return
            del self._shared[self.remote_reading]
        self.ahead.close()
        with contextlib.suppress(EOFError, OSError, AuthenticationError):
            # What waits for a connection is not woken by its end.
            Client(self._listener.address, authkey=bytes(current_process().authkey)).close()
        self._listener.close()

    def opener(self, wait_seconds: float) -> AheadOpener:
        """Opener for a `SampleReader`, here or in a worker; a clip waits this long for its shard."""
        return AheadOpener(self._listener.address, self.token, wait_seconds)

    def _accept(self) -> None:
        while self.ahead.is_open:
            try:
                worker = self._listener.accept()
            except (EOFError, AuthenticationError):
                continue  # a worker that ended in this moment, or a stranger
            except OSError:
                return  # closed
            threading.Thread(target=self._serve, args=(worker,), daemon=True).start()

    def _serve(self, worker: Connection) -> None:
        try:
            while True:
                address, offset, size, wait_seconds = json.loads(worker.recv_bytes())
                if size is None:
                    self.ahead.doubt(address)
                    continue
                found = self.ahead.read(address, offset, size, wait_seconds)
                worker.send_bytes(b"none" if found is None else b"here")
                if found is not None:
                    worker.send_bytes(found)
        except (EOFError, OSError):
            return  # it has ended


_connections: dict[Address, Connection] = {}
"""Connections of this worker to the process that it works for."""


@dataclass(frozen=True)
class AheadOpener:
    """Opens remote shards through what was read ahead of them, and local ones directly."""

    address: Address
    token: str
    wait_seconds: float = WAIT_SECONDS

    def open(self, path_or_url: str, version: str | None = None) -> Bytes:
        if not is_remote(path_or_url):
            return Direct().open(path_or_url, version)
        return _Ahead(path_or_url, version, self._ask)

    def doubt(self, path_or_url: str) -> None:
        here = AheadService.with_token(self.token)
        if here is not None:
            here.ahead.doubt(path_or_url)
        else:
            self._send(path_or_url, 0, None)

    def _ask(self, address: str, offset: int, size: int) -> bytes | None:
        here = AheadService.with_token(self.token)
        if here is not None:
            return here.ahead.read(address, offset, size, self.wait_seconds)
        worker = self._send(address, offset, size)
        try:
            if worker is None:
                return None
            if worker.poll(2 * self.wait_seconds):
                return worker.recv_bytes() if worker.recv_bytes() == b"here" else None
        except (EOFError, OSError):
            pass
        _connections.pop(self.address).close()  # an answer that still comes is to nothing that is asked later
        return None

    def _send(self, address: str, offset: int, size: int | None) -> Connection | None:
        """``None`` where nobody is there any more, as at the end of a command."""
        try:
            if self.address not in _connections:
                _connections[self.address] = Client(self.address, authkey=bytes(current_process().authkey))
            _connections[self.address].send_bytes(
                json.dumps([address, offset, size, self.wait_seconds]).encode()
            )
            return _connections[self.address]
        except (EOFError, OSError, AuthenticationError):
            _connections.pop(self.address, None)
            return None


@dataclass(frozen=True)
class _Ahead:
    """One shard."""

    path_or_url: str
    version: str | None
    ask: Callable[[str, int, int], bytes | None]

    def read(self, offset: int, size: int) -> bytes:
        """Read from the bytes read ahead, else by a range: the same bytes, and the same errors."""
        found = self.ask(self.path_or_url, offset, size)
        return Direct().open(self.path_or_url, self.version).read(offset, size) if found is None else found
