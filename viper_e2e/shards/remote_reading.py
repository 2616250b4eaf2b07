"""shards/remote_reading.py: ways to read remote shards: clip by clip, or whole and ahead, with a cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from viper_e2e.config import RemoteConfig, RemoteOptions
from viper_e2e.errors import ViperError


@dataclass(frozen=True)
class RemoteReading:
    """Settings for reading shards on servers and in stores; those on disk are read directly."""

    read: Literal["range", "ahead"] = "range"
    """``range``: a request each clip. ``ahead``: whole shards by one request each, before they are wanted."""
    ahead_bytes: int = RemoteConfig.read_ahead_memory.num_bytes
    """Memory of a process, its workers' included, for shards read ahead."""
    cache: str | None = None
    """Folder in which whole shards are cached for later epochs and runs; ``None``: the disk is never used."""
    cache_bytes: int | None = None
    """Size of that folder; ``None``: as much as the disk has."""

    def __post_init__(self) -> None:
        if self.cache_bytes and self.cache is None:
            raise ViperError(
                f"--cache-size {self.cache_bytes}: needs the folder that it limits: add --cache DIR"
            )

    @classmethod
    def of(cls, options: RemoteOptions | RemoteConfig) -> RemoteReading:
        """From the options of a command or the settings of a run."""
        return cls(
            options.read,
            options.read_ahead_memory.num_bytes,
            options.cache or None,
            options.cache_size.num_bytes or None,
        )

    @property
    def reads_whole(self) -> bool:
        """Whether shards are read whole."""
        return self.read == "ahead" or self.cache is not None


@runtime_checkable
class Bytes(Protocol):
    """Bytes of a file by offset."""

    def read(self, offset: int, size: int, /) -> bytes: ...


@runtime_checkable
class Opener(Protocol):
    """Opens shards by path or address. Picklable."""

    def open(self, path_or_url: str, version: str | None, /) -> Bytes:
        """``version``: of its index, where it is without hashes; what is read must be of no other."""
        ...

    def doubt(self, path_or_url: str, /) -> None:
        """Report that bytes of this shard differ from its index."""
        ...
