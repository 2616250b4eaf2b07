"""shards/sample_reading.py: one sample read out of its shard, by its place alone, without its index."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from viper_e2e.clip import Sample
from viper_e2e.errors import UNREACHABLE, ClipError, Stage
from viper_e2e.runtime import SOUND_EXTENSIONS, VIDEO_EXTENSIONS
from viper_e2e.shards.action_units import action_units_from_npy
from viper_e2e.shards.index import ACTION_UNITS_EXTENSION, Member, SampleEntry
from viper_e2e.shards.limits import ShardLimits, UnreachableError
from viper_e2e.shards.remote_reading import Opener
from viper_e2e.shards.sources import Direct, ShardError, open_source
from viper_e2e.shards.subtitles import MAX_WORDS_BYTES, WORDS_EXTENSIONS, Subtitles, read_subtitles


@dataclass(frozen=True, slots=True)
class Place:
    """Place of one sample: all that a worker needs to read it."""

    path_or_url: str
    """Path or address of the shard."""
    entry: SampleEntry
    version: str | None = None
    """State of a shard without hashes when it was indexed."""


@dataclass(frozen=True)
class SampleReader:
    """Picklable and small, whatever the number of samples."""

    limits: ShardLimits
    opener: Opener = field(default_factory=Direct)
    """Source of the bytes."""

    def read(self, place: Place) -> Sample:
        """Bytes checked against the index's sha256 where it has them.

        Raises ``ClipError`` (stage ``"read"``) where this one clip cannot be had.
        """
        entry = place.entry
        video = next(extension for extension in entry.members if extension in VIDEO_EXTENSIONS)
        sound = next((extension for extension in entry.members if extension in SOUND_EXTENSIONS), None)
        units = None
        if ACTION_UNITS_EXTENSION in entry.members:
            data = self._member(place, ACTION_UNITS_EXTENSION, self.limits.max_action_units_bytes)
            try:
                units = action_units_from_npy(data)
            except ValueError as error:
                raise _failure(place, f".{ACTION_UNITS_EXTENSION}: {error}") from error
        said = self._words(place)
        return Sample(
            key=entry.key,
            words=said.cues,
            words_by=said.made_by,
            video=self._member(place, video, self.limits.max_clip_bytes),
            file_id=entry.file_id,
            sound=self._member(place, sound, self.limits.max_clip_bytes) if sound else None,
            action_units=units,
            intensities=entry.intensities,
            subject=entry.subject,
            shard=place.path_or_url,
            segment=entry.segment,
        )

    def _words(self, place: Place) -> Subtitles:
        extension = next((one for one in WORDS_EXTENSIONS if one in place.entry.members), None)
        if extension is None:
            return Subtitles(())
        try:
            found = read_subtitles(extension, self._member(place, extension, MAX_WORDS_BYTES))
        except ValueError as error:
            if isinstance(error, ClipError):
                raise
            raise _failure(place, f".{extension}: {error}") from error
        if found.faults:
            raise _failure(place, f".{extension}: {found.faults[0]}")
        return found

    def _member(self, place: Place, extension: str, max_bytes: int) -> bytes:
        member = place.entry.members[extension]
        if member.size > max_bytes:
            raise _failure(
                place,
                f".{extension} has {member.size} bytes, at most {max_bytes} are allowed (see --max-bytes)",
            )
        data = self._bytes(place, extension, self.opener)
        if not _is_whole(data, member) and not isinstance(self.opener, Direct):
            self.opener.doubt(place.path_or_url)
            data = self._bytes(place, extension, Direct())
        if not _is_whole(data, member):
            raise _failure(
                place, f".{extension} does not match the sha256 of the index; copy or pack the shard again"
            )
        return data

    def _bytes(self, place: Place, extension: str, opener: Opener) -> bytes:
        member = place.entry.members[extension]
        try:
            return opener.open(place.path_or_url, place.version).read(member.offset, member.size)
        except (ShardError, FileNotFoundError) as error:
            stage: Stage = UNREACHABLE if isinstance(error, UnreachableError) else "read"
            reason = error.strerror if isinstance(error, FileNotFoundError) and error.strerror else error
            raise _failure(place, f".{extension} cannot be read: {reason}", stage) from error


def _is_whole(data: bytes, member: Member) -> bool:
    """Whether these are the bytes that the index means, as far as it says."""
    return member.sha256 is None or hashlib.sha256(data).hexdigest() == member.sha256


def _failure(place: Place, reason: str, stage: Stage = "read") -> ClipError:
    return ClipError(
        f"{reason} (shard {open_source(place.path_or_url).name})", stage=stage, clip=place.entry.key
    )
