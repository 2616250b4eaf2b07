"""container.py: opens a clip's file: what may be opened, within which limits, and what is in it."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from io import BufferedIOBase
from pathlib import Path
from typing import Any, NamedTuple

import av
from av.codec.codec import UnknownCodecError
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition

from viper_e2e.config import LimitsConfig
from viper_e2e.decoding.headers import (
    NO_CROP,
    Crop,
    check_length,
    check_mp4_tables,
    read_crops,
    stated_seconds,
)
from viper_e2e.decoding.magic import (
    BESIDE_CONTAINERS,
    HEAD_BYTES,
    VIDEO_CONTAINERS,
    id3_bytes,
    sniff,
    sniff_sound,
    sound_alone,
)
from viper_e2e.decoding.media import ClipMedia, Media, SoundMedia, over, reason_of
from viper_e2e.decoding.tracks import (
    BY_RULE,
    Tracks,
    alpha_note,
    choose_video,
    describe_picture,
    describe_sound,
    sound_tracks,
    video_note,
    video_tracks,
)
from viper_e2e.errors import ClipError, Stage

Source = bytes | os.PathLike[str] | str
"""A file's content, or where it lies."""

_METADATA: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}
"""PyAV 19 always replaces what is not UTF-8 in a header, and knows no such argument."""
_DEMUXERS = {"mp4": "mov", "mkv": "matroska", "webm": "matroska", "ts": "mpegts"}


class Behind:
    """An open file without its first bytes, as FFmpeg reads one."""

    def __init__(self, file: BufferedIOBase, skipped: int):
        self._file, self._skipped = file, skipped
        file.seek(skipped)

    def read(self, size: int) -> bytes:
        """See `io.BufferedIOBase.read`."""
        return self._file.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """See `io.IOBase.seek`."""
        offset += self._skipped if whence == io.SEEK_SET else 0
        return self._file.seek(offset, whence) - self._skipped

    def tell(self) -> int:
        """See `io.IOBase.tell`."""
        return self._file.tell() - self._skipped


def name_of(source: Source, name: str) -> str:
    """Name of a clip in messages: the given one, else its path."""
    return name or ("" if isinstance(source, bytes) else os.fspath(source))


@contextmanager
def open_clip(
    source: Source, limits: LimitsConfig, name: str = "", tracks: Tracks = BY_RULE
) -> Iterator[ClipMedia]:
    """Open a clip, after its magic, size, tables and streams were checked.

    A path is read piece by piece, never whole. FFmpeg is told the format, reads only through our file
    object and may open nothing else.
    Raises `ClipError` (stages ``read``, ``container``).
    """
    name = name_of(source, name)
    with _open_file(source, name) as file:
        num_bytes, head = _begin(file, source, limits, name)
        kind = sniff(head, name=name)
        _check_kind(kind, VIDEO_CONTAINERS, name)
        if kind in ("mp4", "mov"):
            check_mp4_tables(file, num_bytes, limits.max_frames, name)
        check_length(head, num_bytes, name)
        crops = read_crops(file, kind, num_bytes)
        file.seek(0)
        with _open_container(file, kind, name) as container:
            yield _clip_media(_Opened(name, kind, container, limits, head, num_bytes), tracks, crops)


@contextmanager
def open_sound(source: Source, limits: LimitsConfig, name: str = "") -> Iterator[SoundMedia]:
    """Open a file with sound alone in the same way."""
    name = name_of(source, name)
    with _open_file(source, name) as file:
        num_bytes, head = _begin(file, source, limits, name)
        kind, skipped = sniff_sound(head, name=name), 0
        if kind == "wav" and (skipped := id3_bytes(head)):
            # FFmpeg's reader of wav looks for no tag in front.
            file.seek(skipped)
            head = file.read(HEAD_BYTES)
        _check_kind(kind, BESIDE_CONTAINERS, name)
        if kind in ("mp4", "mov"):
            check_mp4_tables(file, num_bytes, limits.max_frames, name)
        check_length(head, num_bytes - skipped, name)
        file.seek(0)
        behind = Behind(file, skipped) if skipped else file
        with _open_container(behind, kind, name) as container:
            yield _sound_media(_Opened(name, kind, container, limits, head, num_bytes))


def _begin(file: BufferedIOBase, source: Source, limits: LimitsConfig, name: str) -> tuple[int, bytes]:
    """Size of a file in bytes, and its first bytes."""
    num_bytes = file.seek(0, io.SEEK_END)
    setting = "max_bytes_in_memory" if isinstance(source, bytes) else "max_bytes"
    if num_bytes > getattr(limits, setting):
        wanted = f"--max-bytes {-(-num_bytes // 10**9)}GB"
        raise over("bytes", num_bytes, getattr(limits, setting), setting, name, wanted)
    file.seek(0)
    return num_bytes, file.read(HEAD_BYTES)


def _check_kind(kind: str, kinds: Sequence[str], name: str) -> None:
    if kind not in kinds:
        message = f"is a {kind} file; {' '.join(kinds)} can be read here"
        raise ClipError(message, stage="container", clip=name)


def _open_file(source: Source, name: str) -> BufferedIOBase:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    path = Path(source)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ClipError("is not a regular file", stage="read", clip=name)
        return path.open("rb")
    except OSError as error:
        raise ClipError(f"cannot be opened: {error.strerror or error}", stage="read", clip=name) from error


@contextmanager
def _open_container(file: BufferedIOBase | Behind, kind: str, name: str) -> Iterator[InputContainer]:
    """Errors that PyAV raises while it is open are this file's."""
    options = {
        "protocol_whitelist": "data",
        "max_streams": "64",
        # While it opens a file, FFmpeg decodes frames to learn more: before their size is checked, and for
        # most of the time that opening takes. Sound it may decode; without, MPEG-TS has no packet lengths.
        "codec_whitelist": _sound_decoders(),
    }
    try:
        with av.open(file, "r", format=_DEMUXERS.get(kind, kind), options=options, **_METADATA) as container:
            yield container
    except FFmpegError as error:
        message = f"cannot be read as {kind} ({reason_of(error)}); it is damaged or incomplete: copy it again"
        raise ClipError(message, stage="container", clip=name) from error
    except OSError as error:
        raise ClipError(f"cannot be read: {error.strerror or error}", stage="read", clip=name) from error


@cache
def _sound_decoders() -> str:
    """The names of all audio decoders, as FFmpeg's options take them."""
    names = []
    for name in sorted(av.codec.codecs_available):
        try:
            codec = av.codec.Codec(name, "r")
        except UnknownCodecError:
            # An encoder only.
            continue
        if codec.type == "audio":
            names.append(codec.name)
    return ",".join(names)


class _Opened(NamedTuple):
    """A file that was opened, with the limits and facts known so far."""

    name: str
    kind: str
    container: InputContainer
    limits: LimitsConfig
    head: bytes
    num_bytes: int

    def fail(self, message: str, stage: Stage = "container") -> ClipError:
        """See `Media.fail`."""
        return ClipError(message, stage=stage, clip=self.name)


def _clip_media(opened: _Opened, tracks: Tracks, crops: Sequence[Crop]) -> ClipMedia:
    container = opened.container
    pictures = video_tracks(container.streams.video)
    video = choose_video(pictures, tracks.video)
    heard = sound_tracks(container, video)
    if tracks.audio is not None and tracks.hears:
        heard = list(container.streams.audio[tracks.audio - 1 :][:1])
    if not pictures:
        nothing = "has no video stream; give a clip with pictures"
        raise opened.fail(sound_alone(opened.kind, opened.name) if container.streams.audio else nothing)
    if video is None:
        known = ", ".join(describe_picture(pictures, track) for track in pictures)
        raise opened.fail(f"has no video track {tracks.video}, only {known}; choose one (--video-track)")
    if video.codec_context is None:
        raise opened.fail("its video is coded in a way that this build of PyAV cannot decode; convert it")
    media = ClipMedia(
        **opened._asdict(),
        video=video,
        audio=heard[0] if heard else None,
        tracks=tracks,
        notes=tuple(note for note in (video_note(pictures, video), alpha_note(video)) if note),
        crop=_crop_of(container, video, crops),
    )
    media.tick_seconds_of(video)  # raises where there is none
    media.check_frame_size(video.codec_context.width, video.codec_context.height)
    media.check_num_frames(video.frames)
    if media.audio is None and container.streams.audio and tracks.hears:
        known = ", ".join(describe_sound(track, container.streams.audio) for track in container.streams.audio)
        raise media.fail(f"has no sound track {tracks.audio}, only {known}; choose one (--audio-track)")
    _check_lasting(media, media.audio if tracks.hears else None)
    return media


def _sound_media(opened: _Opened) -> SoundMedia:
    container = opened.container
    if video_tracks(container.streams.video):
        what = f"is a {opened.kind} file with pictures"
        raise opened.fail(f"{what}; beside a clip belongs a file with only sound")
    heard = sound_tracks(container, None)
    if not heard:
        raise opened.fail("has no audio stream", stage="sound")
    media = SoundMedia(**opened._asdict(), audio=heard[0])
    _check_lasting(media, media.audio)
    return media


def _check_lasting(media: Media, audio: av.AudioStream | None) -> None:
    """The format of the sound that is heard, and how long the file is by its header."""
    if audio is not None and audio.codec_context is not None:
        media.check_sound_format(audio.codec_context.sample_rate, audio.codec_context.channels)
    if media.kind != "ts":
        # A TS has no length in a header, and the last time less the first is none where its clock restarts.
        media.check_seconds(stated_seconds(media.container, media.kind))


def _crop_of(container: InputContainer, video: av.VideoStream, crops: Sequence[Crop]) -> Crop:
    """The chosen track's among those of all video tracks, if both were counted alike."""
    streams = [
        stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic
    ]
    return crops[streams.index(video)] if len(streams) == len(crops) and video in streams else NO_CROP
