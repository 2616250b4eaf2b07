"""packing/samples.py: the files of a clip -> the members of its sample in a shard, or why it is left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from viper_e2e.clip import Sample, Segment
from viper_e2e.config import LimitsConfig
from viper_e2e.cutting import cut
from viper_e2e.decoding import BESIDE_CONTAINERS, HEAD_BYTES, VIDEO_CONTAINERS, sniff, sniff_sound
from viper_e2e.errors import ClipError
from viper_e2e.packing.action_units import read_action_units
from viper_e2e.packing.dry_run import Rehearsal
from viper_e2e.packing.media_worker import in_worker
from viper_e2e.packing.report import Findings
from viper_e2e.packing.segments import Clip, sound_of, units_of
from viper_e2e.packing.subtitles import PackedWords
from viper_e2e.runtime import SOUND_EXTENSIONS, VIDEO_EXTENSIONS
from viper_e2e.shards import ShardWriter, action_units_to_npy


class Samples:
    """Hands clips to a writer of shards; ``findings`` have those that cannot be packed."""

    def __init__(self, words: PackedWords, limits: LimitsConfig, findings: Findings):
        self.words, self.limits, self.findings = words, limits, findings

    def add_to(self, writer: ShardWriter | Rehearsal, clip: Clip) -> None:
        """Read one clip's files and hand them to the writer, or say why not."""
        row = clip.row
        try:
            members, segment, source = self._members(clip, is_dry=isinstance(writer, Rehearsal))
        except ClipError as error:
            self.findings.leave_out(f"{row.file_id}: {error}")
            return
        except ValueError as error:
            self.findings.leave_out(f"{row.file_id}: {clip.units}: {error}")
            return
        writer.add(
            row.key,
            members,
            file_id=row.file_id,
            intensities=row.intensities,
            subject=row.subject,
            meta=row.meta,
            text=row.text,
            segment=segment,
            source=source,
        )

    def _members(
        self, clip: Clip, *, is_dry: bool
    ) -> tuple[dict[str, bytes], Segment | None, Mapping[str, object] | None]:
        """The members; what of the video is the clip; what it was cut from."""
        members, segment, source = self._video(clip, is_dry=is_dry)
        if clip.sound:
            members |= self._sound(clip.sound, clip, segment, is_dry=is_dry)
        if clip.units:
            members["fau.npy"] = self._units(clip, clip.units)
        said = self.words.members(clip.video, clip.row.text, clip.row.segment if clip.stretch else None)
        if not said and not is_dry:
            said = self.words.transcribed(_sample(clip.row.key, members, segment))
        return members | said, segment, source

    def _video(
        self, clip: Clip, *, is_dry: bool
    ) -> tuple[dict[str, bytes], Segment | None, Mapping[str, object] | None]:
        """The video, whole or cut, with sound that was cut apart."""
        segment = clip.row.segment
        if clip.stretch is None:
            data = self._media(clip.video, VIDEO_CONTAINERS, is_dry=is_dry)
            return {_extension(clip.video): data}, segment, None
        if is_dry:
            # That it can be cut is known since it was matched.
            return {}, segment, None
        made = in_worker.on_file(clip.video, cut, clip.stretch, self.limits)
        members = {made.extension: made.data}
        if made.sound is not None and not clip.sound:
            members["wav"] = made.sound
        if made.is_uncut and not clip.stretch.is_uncut:
            self.findings.count("whose whole file was packed, as copying only their packets was not exact")
        start, end = clip.stretch.start_seconds, clip.stretch.end_seconds
        source = {"file": clip.video.name, "start": start, "end": end}
        return members, replace(made.segment, side=segment.side if segment else "full"), source

    def _sound(self, path: Path, clip: Clip, segment: Segment | None, *, is_dry: bool) -> dict[str, bytes]:
        """The sound file that is kept apart, cut as the video is."""
        if clip.stretch is not None and segment is not None and not is_dry:
            return {"wav": sound_of(clip, segment, self.limits)}
        # `.ogg` may be a video among a shard's members.
        extension = "oga" if _extension(path) == "ogg" else _extension(path)
        return {extension: self._media(path, BESIDE_CONTAINERS, is_dry=is_dry)}

    def _units(self, clip: Clip, path: Path) -> bytes:
        units, has_emotions = read_action_units(path.name, _read(path, self.limits.max_bytes_in_memory))
        if not has_emotions:
            self.findings.count("whose action units come without the seven emotions (stored as 0)")
        return action_units_to_npy(units_of(clip, units))

    def _media(self, path: Path, allowed: tuple[str, ...], *, is_dry: bool) -> bytes:
        """The bytes of a clip or a sound file, whose first ones tell an allowed container."""
        data = _read(path, self.limits.max_bytes_in_memory, HEAD_BYTES if is_dry else None)
        look = sniff_sound if allowed is BESIDE_CONTAINERS else sniff
        container = look(data[:HEAD_BYTES], name=str(path))
        if container not in allowed:
            reason = f"holds {container}; allowed are {' '.join(allowed)}"
            raise ClipError(reason, stage="container", clip=str(path))
        return data


def _sample(key: str, members: Mapping[str, bytes], segment: Segment | None) -> Sample:
    """A clip as it will lie in its shard."""
    video = next(data for extension, data in members.items() if extension in VIDEO_EXTENSIONS)
    sound = next((data for extension, data in members.items() if extension in SOUND_EXTENSIONS), None)
    return Sample(key, video, sound=sound, segment=segment)


def _extension(path: Path) -> str:
    return path.suffix[1:].lower()


def _read(path: Path, max_bytes: int, at_most: int | None = None) -> bytes:
    try:
        size = path.stat().st_size
        if size > max_bytes:
            wanted = f"--max-bytes {-(-size // 10**9)}GB allows more, here and wherever the shards are read"
            reason = f"has {size:,} bytes, at most {max_bytes:,} are packed ({wanted})"
            raise ClipError(reason, stage="read", clip=str(path))
        if at_most is not None:
            with path.open("rb") as file:
                return file.read(at_most)
        return path.read_bytes()
    except OSError as error:
        raise ClipError(f"cannot be read ({error.strerror})", stage="read", clip=str(path)) from error
