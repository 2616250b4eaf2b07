"""shards/shard_state.py: the one state of a shard without hashes, from which all that is read must come."""

from __future__ import annotations

from viper_e2e.shards.limits import ShardError


class ShardState:
    """Identity of a file's state, noted at the first read or when it was indexed."""

    since, advice = (
        "since it was indexed",
        "begin again, so that it is indexed again; if its bytes are the same (touched, or on several servers "
        "that disagree), put the index that `viper index` writes of a copy on disk beside it",
    )

    def __init__(self, version: str | None = None):
        self.version = version
        """ETag and date of a server, size and date on disk; ``None``: not known yet."""

    def check(self, name: str, version: str | None) -> None:
        """Compare with what was reported before; ``ShardError`` if it differs."""
        if self.version not in (None, version):
            differs = f"(it was {self.version!r}, now it is {version!r})"
            raise ShardError(f"{name}: was replaced {self.since} {differs}; {self.advice}")
        self.version = version


class ClipState(ShardState):
    """The same of a clip, which comes in pieces and has no index."""

    since, advice = "while it was read", "begin again"
