"""shards/limits.py: limits of what a shard may ask for, and errors for one beyond them or out of reach."""

from __future__ import annotations

from dataclasses import dataclass, field

from viper_e2e.errors import ViperError
from viper_e2e.shards.remote_reading import RemoteReading


class ShardError(ViperError):
    """A shard cannot be used: torn, damaged, hostile, unreachable, or not what its index says."""


class UnreachableError(ShardError):
    """The network or a server failed, again and again; later it may not."""


@dataclass(frozen=True)
class ShardLimits:
    """Limits on a shard, checked before anything is allocated; more is an error."""

    max_clip_bytes: int = 2 * 1024**3
    """One video or sound member."""
    max_json_bytes: int = 1024**2
    max_action_units_bytes: int = 64 * 1024**2
    max_index_bytes: int = 64 * 1024**2
    max_columns_bytes: int = 4 * 1024**3
    """The same in columns, which are not copied into memory."""
    max_header_bytes: int = 64 * 1024
    """One extended tar header (long names)."""
    max_members: int = 4_000_000
    """Members in one shard."""
    remote_reading: RemoteReading = field(default_factory=RemoteReading)
    """How remote shards are read."""
