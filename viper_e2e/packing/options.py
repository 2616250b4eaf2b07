"""packing/options.py: options of packing, as one value: files beside clips, sizes, words, the seed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from viper_e2e.config import LimitsConfig
from viper_e2e.errors import ViperError
from viper_e2e.shards import ShardLimits
from viper_e2e.tables import NO_CHOICES, ColumnChoices


@dataclass(frozen=True, kw_only=True)
class PackOptions:
    """Options of packing."""

    choices: ColumnChoices = NO_CHOICES
    """The meaning of the table's columns."""
    audio: Path | None = None
    """Folder of sound files kept apart from the clips."""
    fau: Path | None = None
    """Folder of action units, a csv or npy per clip."""
    shard_size: int = 256_000_000
    """Bytes after which a shard ends."""
    seed: int = 0
    """Seed of the order of samples."""
    overwrite: bool = False
    """Whether shards of an earlier run are replaced."""
    max_bytes: int = ShardLimits.max_clip_bytes
    """Size of the largest file that is packed; larger ones are left out."""
    dry_run: bool = False
    """Look at everything and write nothing; of clips only the first bytes are read, of files from which some
    are cut the times of their frames."""
    subtitles: bool = True
    """Whether those beside clips (vtt, srt, txt) are packed as their words."""
    words_language: str = ""
    """Language of the subtitles to take if there are several (``CLIP.en.srt``)."""
    transcribe: str | None = None
    """A Whisper, folder or hub id, for clips of which no words are known."""
    language: str | None = None
    """Spoken in those clips; ``None``: any."""

    def __post_init__(self) -> None:
        if self.shard_size <= 0:
            raise ViperError(f"shard size {self.shard_size}: give a positive number of bytes")

    @property
    def limits(self) -> LimitsConfig:
        return LimitsConfig(max_bytes_in_memory=self.max_bytes)


AS_USUAL = PackOptions()
