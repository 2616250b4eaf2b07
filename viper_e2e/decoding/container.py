"""container.py: opens a clip's file: what may be opened, within which limits, and what is in it."""

from __future__ import annotations

import io
import math
import os
import stat
import struct
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cache
from io import BufferedIOBase
from pathlib import Path

import av
from av.codec.codec import UnknownCodecError
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Discard, Disposition

from viper_e2e.config.schema import LimitsConfig
from viper_e2e.decoding.clocks import RunningClock
from viper_e2e.decoding.cropping import NO_CROP, Crop, read_crops
from viper_e2e.decoding.magic import (
    BESIDE_CONTAINERS,
    HEAD_BYTES,
    VIDEO_CONTAINERS,
    id3_bytes,
    sniff,
    sniff_sound,
    sound_alone,
)
from viper_e2e.decoding.mp4_tables import check_mp4_tables
from viper_e2e.decoding.sound_tracks import describe as describe_sound
from viper_e2e.decoding.sound_tracks import sound_tracks
from viper_e2e.decoding.tracks import (
    BY_RULE,
    Tracks,
    alpha_note,
    choose_video,
    describe,
    video_note,
    video_tracks,
)
from viper_e2e.errors import ClipError

Source = bytes | os.PathLike | str
"""A file's content, or where it lies."""

KEPT_BYTES = 8 * 2**20
"""A file whose packets are no more than this is read once: the second pass gets them from memory."""
PACKET_BYTES = 1024
"""What a packet in memory costs beside its content, which of small packets is most."""
_METADATA = {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}
"""PyAV 19 always replaces what is not UTF-8 in a header, and knows no such argument."""
_ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_WITHOUT_LENGTH = ("ts", "mpeg", "flv", "aac", "flac", "mp3")
_DEMUXERS = {"mp4": "mov", "mkv": "matroska", "webm": "matroska", "ts": "mpegts"}


@dataclass(frozen=True)
class Media:
    """An open file with the streams that we read."""

    name: str
    kind: str
    """As `sniff` calls it."""
    container: InputContainer
    video: av.VideoStream | None
    audio: av.AudioStream | None
    limits: LimitsConfig
    head: bytes
    num_bytes: int
    """Of the whole file."""
    tracks: Tracks = BY_RULE
    """As a person asked for them."""
    notes: tuple[str, ...] = ()
    """What was chosen among several; see `DecodedClip.notes`."""
    crop: Crop = NO_CROP
    """Edges of the coded picture that are not shown."""
    kept: Kept = field(default_factory=lambda: Kept())
    num_whole: Counter[int] = field(default_factory=Counter)
    """By stream: see `RunningClock`, of the last reading."""

    @property
    def is_indexed(self) -> bool:
        """Whether an index at hand says of every packet where it lies: an mp4 that is not in fragments."""
        if self.kind not in ("mp4", "mov"):
            return False
        stream = self.video or self.audio
        return stream.frames == len(stream.index_entries)

    @property
    def is_in_fragments(self) -> bool:
        """Whether it is an mp4 as recorders write it that may crash: whole up to where it breaks off."""
        return self.kind in ("mp4", "mov") and self.video is not None and self.video.frames == 0

    @property
    def may_break_off(self) -> bool:
        """Whether its header promises no length, so that it is whole up to where its writer stopped."""
        return self.kind in _WITHOUT_LENGTH or self.is_in_fragments

    @property
    def is_kept(self) -> bool:
        """Whether an indexed file is short enough for its packets to be kept."""
        streams = [stream for stream in (self.video, self.audio) if stream is not None]
        num_packets = sum(len(stream.index_entries) for stream in streams)
        return self.num_bytes + num_packets * PACKET_BYTES <= KEPT_BYTES

    @property
    def tick_seconds(self) -> Fraction:
        """The unit of the video stream's times, exact whatever PyAV computes with (its own rationals round)."""
        tick = self.video.time_base
        return Fraction(tick.numerator, tick.denominator)

    @property
    def frame_rate(self) -> Fraction:
        """Frames a second as the header has it; 25 if it has none."""
        rate = self.video.average_rate or Fraction(25)
        return Fraction(rate.numerator, rate.denominator)

    def seek(self, stream: av.stream.Stream, ticks: int) -> None:
        """Let `packets` go on at this stream's last keyframe whose decoding time is `ticks` or less."""
        self.container.seek(ticks, stream=stream, backward=True)

    def packets(self, *streams: av.stream.Stream | None) -> Iterator[av.Packet]:
        """The packets of these streams, in the file's order; ``None`` is no stream."""
        wanted = [stream for stream in streams if stream is not None]
        if self.kept.is_complete:
            while self.kept.packets:
                packet = self.kept.packets.popleft()
                if packet.stream in wanted:
                    yield packet
            return
        yield from self._read(wanted)

    def packets_to_keep(self, *streams: av.stream.Stream | None) -> Iterator[av.Packet]:
        """The same; if they are few, `packets` has them once more, from memory."""
        for packet in self._read([stream for stream in streams if stream is not None]):
            self.kept.add(packet)
            yield packet
        self.kept.finish()

    def _read(self, wanted: list[av.stream.Stream]) -> Iterator[av.Packet]:
        for stream in self.container.streams:
            # What nobody reads need not be fetched.
            stream.discard = Discard.default if stream in wanted else Discard.all
        clock = None if self.kind == "avi" or self.is_indexed else RunningClock(self.num_whole)
        try:
            for packet in self.container.demux(wanted):
                # The empty ones behind the last say that the file ends.
                if packet.size and not (packet.is_corrupt and self.is_in_fragments):
                    if clock is not None:
                        clock.place(packet)
                    yield packet
        except IndexError:
            # PyAV 18 trips over a stream that shows up midway (TS, FLV), after the last packet was handed on.
            return

    def fail(self, message: str, stage: str = "container") -> ClipError:
        """The error to raise about this file."""
        return ClipError(message, stage=stage, clip=self.name)


class Behind:
    """An open file without its first bytes, as FFmpeg reads one."""

    def __init__(self, file: BufferedIOBase, skipped: int):
        self._file, self._skipped = file, skipped
        file.seek(skipped)

    def read(self, size: int) -> bytes:
        """As of a file."""
        return self._file.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As of a file."""
        offset += self._skipped if whence == io.SEEK_SET else 0
        return self._file.seek(offset, whence) - self._skipped

    def tell(self) -> int:
        """As of a file."""
        return self._file.tell() - self._skipped


class Kept:
    """The packets of a short file."""

    def __init__(self) -> None:
        self.packets: deque[av.Packet] = deque()
        self.is_complete = False
        self._room = KEPT_BYTES

    def add(self, packet: av.Packet) -> None:
        self._room -= packet.size + PACKET_BYTES
        if self._room >= 0:
            self.packets.append(packet)
        else:
            self.packets.clear()

    def finish(self) -> None:
        self.is_complete = self._room >= 0


def name_of(source: Source, name: str) -> str:
    """How messages call a clip: the given name, else its path."""
    return name or ("" if isinstance(source, bytes) else os.fspath(source))


@contextmanager
def open_media(
    source: Source,
    limits: LimitsConfig,
    name: str = "",
    kinds: Sequence[str] = VIDEO_CONTAINERS,
    tracks: Tracks = BY_RULE,
) -> Iterator[Media]:
    """Open a file of one of `kinds`, after its magic, size, tables and streams were checked.

    A path is read piece by piece, never whole. FFmpeg is told the format, reads only through our file
    object and may open nothing else. With the default `kinds` there is a video stream; with
    `BESIDE_CONTAINERS` an audio stream.
    Raises `ClipError` (stages ``read``, ``container``).
    """
    name = name_of(source, name)
    with _open_file(source, name) as file:
        num_bytes = file.seek(0, io.SEEK_END)
        setting = "max_bytes_in_memory" if isinstance(source, bytes) else "max_bytes"
        if num_bytes > getattr(limits, setting):
            wanted = f"--max-bytes {-(-num_bytes // 10**9)}GB"
            raise _over("bytes", num_bytes, getattr(limits, setting), setting, name, wanted)
        file.seek(0)
        head = file.read(HEAD_BYTES)
        skipped = 0
        if kinds is BESIDE_CONTAINERS:
            kind = sniff_sound(head, name=name)
            if kind == "wav" and (skipped := id3_bytes(head)):
                # FFmpeg's reader of wav looks for no tag in front.
                file.seek(skipped)
                head = file.read(HEAD_BYTES)
        else:
            kind = sniff(head, name=name)
        if kind not in kinds:
            message = f"is a {kind} file; {' '.join(kinds)} can be read here"
            raise ClipError(message, stage="container", clip=name)
        if kind in ("mp4", "mov"):
            check_mp4_tables(file, num_bytes, limits.max_frames, name)
        _check_length(head, num_bytes - skipped, name)
        crops = read_crops(file, kind, num_bytes)
        file.seek(0)
        try:
            with _open_container(Behind(file, skipped) if skipped else file, kind, limits) as container:
                file_facts = name, kind, container, limits, head, num_bytes
                media = _choose_streams(*file_facts, tracks, with_video=kinds is VIDEO_CONTAINERS)
                yield replace(media, crop=_crop_of(media, crops)) if crops else media
        except FFmpegError as error:
            message = f"cannot be read as {kind} ({_reason(error)}); it is damaged or incomplete: copy it again"
            raise ClipError(message, stage="container", clip=name) from error
        except OSError as error:
            raise ClipError(f"cannot be read: {error.strerror or error}", stage="read", clip=name) from error


def check_frame_size(media: Media, width: int, height: int) -> None:
    """Raise `ClipError` if a frame is larger than the limits."""
    limits, found = media.limits, f"has frames of {width}×{height}"
    wanted = f"(--max-side-in {max(width, height)} allows more)"
    if width > limits.max_width or height > limits.max_height:
        allowed = f"{limits.max_width}×{limits.max_height}"
        raise media.fail(f"{found}; limits.max_width and max_height allow {allowed} {wanted}")
    if width * height > limits.max_pixels:
        raise media.fail(f"{found}; limits.max_pixels allows {limits.max_pixels:,} pixels {wanted}")


def check_sound_format(media: Media, sample_rate: int, channels: int) -> None:
    """Raise `ClipError` if the sound is outside the limits."""
    limits = media.limits
    if channels < 1 or sample_rate < 1:
        raise media.fail("its sound has no channels or no rate; it is damaged: copy it again", stage="sound")
    if channels > limits.max_channels:
        raise _over("audio channels", channels, limits.max_channels, "max_channels", media.name)
    if not limits.min_sample_rate <= sample_rate <= limits.max_sample_rate:
        allowed = f"{limits.min_sample_rate:,} to {limits.max_sample_rate:,}"
        raise media.fail(
            f"has sound at {sample_rate:,} Hz; limits.min_sample_rate and max_sample_rate allow {allowed}"
        )


def check_seconds(media: Media, seconds: float) -> None:
    """Raise `ClipError` if something in the clip is longer than the limits."""
    if seconds > media.limits.max_seconds:
        wanted = f"--max-seconds {math.ceil(seconds)}"
        raise _over(
            "seconds", round(seconds), round(media.limits.max_seconds), "max_seconds", media.name, wanted
        )


def check_num_frames(media: Media, num_frames: int) -> None:
    """Raise `ClipError` if there are more frames than the limits allow."""
    if num_frames > media.limits.max_frames:
        wanted = "more --max-seconds"
        raise _over("frames", num_frames, media.limits.max_frames, "max_frames", media.name, wanted)


def prepare_video_codec(media: Media) -> None:
    """Set up the video codec before its first packet: one thread, and no frame above the limits."""
    codec = media.video.codec_context
    # Frame threads decode ahead of what we ask for; parallelism is by process (`loader.py`).
    codec.thread_type, codec.thread_count = "NONE", 1
    codec.options = {"max_pixels": str(media.limits.max_pixels)}


def _open_file(source: Source, name: str) -> BufferedIOBase:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    path = Path(source)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ClipError("is no regular file", stage="read", clip=name)
        return path.open("rb")
    except OSError as error:
        raise ClipError(f"cannot be opened: {error.strerror or error}", stage="read", clip=name) from error


def _open_container(file: BufferedIOBase | Behind, kind: str, limits: LimitsConfig) -> InputContainer:
    options = {
        "protocol_whitelist": "data",
        "max_streams": "64",
        # While it opens a file, FFmpeg decodes frames to learn more: before their size is checked, and for
        # most of the time that opening takes. Sound it may decode; without, MPEG-TS has no packet lengths.
        "codec_whitelist": _sound_decoders(),
    }
    return av.open(file, format=_DEMUXERS.get(kind, kind), options=options, **_METADATA)


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


def _choose_streams(
    name: str,
    kind: str,
    container: InputContainer,
    limits: LimitsConfig,
    head: bytes,
    num_bytes: int,
    tracks: Tracks,
    *,
    with_video: bool,
) -> Media:
    pictures = video_tracks(container.streams.video) if with_video else []
    video = choose_video(pictures, tracks.video)
    heard = sound_tracks(container, video)
    if tracks.audio is not None and tracks.hears and with_video:
        heard = container.streams.audio[tracks.audio - 1 :][:1]
    audio = heard[0] if heard else None
    media = Media(name, kind, container, video, audio, limits, head, num_bytes, tracks)
    if with_video:
        if not pictures:
            nothing = "has no video stream; give a clip with pictures"
            raise media.fail(sound_alone(kind, name) if container.streams.audio else nothing)
        if video is None:
            known = ", ".join(describe(pictures, track) for track in pictures)
            raise media.fail(f"has no video track {tracks.video}, only {known}; choose one (--video-track)")
        if video.codec_context is None:
            raise media.fail("its video is coded in a way that this build of PyAV cannot decode; convert it")
        if not video.time_base:
            raise media.fail("its video has no unit of time; it is damaged: copy it again")
        check_frame_size(media, video.codec_context.width, video.codec_context.height)
        check_num_frames(media, video.frames)
        notes = video_note(pictures, video), alpha_note(video)
        media = replace(media, notes=tuple(note for note in notes if note))
        if audio is None and container.streams.audio and tracks.hears:
            known = ", ".join(
                describe_sound(track, container.streams.audio) for track in container.streams.audio
            )
            raise media.fail(f"has no sound track {tracks.audio}, only {known}; choose one (--audio-track)")
    elif video_tracks(container.streams.video):
        raise media.fail(f"is a {kind} file with pictures; beside a clip belongs a file with sound alone")
    elif audio is None:
        raise media.fail("has no audio stream", stage="sound")
    if audio is not None and audio.codec_context is not None and tracks.hears:
        check_sound_format(media, audio.codec_context.sample_rate, audio.codec_context.channels)
    if kind != "ts":
        # A TS has no length in a header, and the last time less the first is none where its clock starts anew.
        check_seconds(media, stated_seconds(container, kind))
    return media


def _crop_of(media: Media, crops: Sequence[Crop]) -> Crop:
    """The chosen track's among those of all video tracks, if both were counted alike."""
    streams = [
        stream for stream in media.container.streams.video if not stream.disposition & Disposition.attached_pic
    ]
    return (
        crops[streams.index(media.video)] if len(streams) == len(crops) and media.video in streams else NO_CROP
    )


def stated_seconds(container: InputContainer, kind: str) -> float:
    """How long a file lasts by its header; 0 if that does not say."""
    seconds = (container.duration or 0) / av.time_base
    if kind in ("mkv", "webm"):
        # It tells when it ends: a part of a recording that begins hours into it is not hours long.
        seconds -= max(container.start_time or 0, 0) / av.time_base
    return max(seconds, 0.0)


def first_frame(media: Media) -> av.VideoFrame:
    """Decode from where the file stands to its first frame. Raises `ClipError` (stage ``decode``)."""
    prepare_video_codec(media)
    try:
        frame = next(media.container.decode(media.video), None)
    except FFmpegError as error:
        raise media.fail(f"its first frame cannot be decoded ({_reason(error)})", stage="decode") from error
    if frame is None:
        raise media.fail("has a video stream without a frame", stage="decode")
    check_frame_size(media, frame.width, frame.height)
    return frame


def _check_length(head: bytes, num_bytes: int, name: str) -> None:
    """Refuse a mkv, webm, avi, asf or wav that is shorter than it says (mp4: counted in `timeline.py`)."""
    promised = 0
    if head[:4] in (b"RF64", b"BW64") and head[12:16] == b"ds64":
        promised = struct.unpack("<Q", head[20:28])[0] + 8
    elif head.startswith(b"RIFF"):
        promised = struct.unpack("<I", head[4:8])[0] + 8
        # What writers leave there that could not go back to fill it in.
        promised = 0 if promised in (8, 0xFFFFFFFF + 8) else promised
    elif (at := head.find(_ASF_FILE_PROPERTIES)) > 0 and len(head) >= at + 92:
        size, flags = struct.unpack("<40xQ40xI", head[at : at + 92])
        # A broadcast is written without knowing its end.
        promised = 0 if flags & 1 else size
    elif head.startswith(b"\x1a\x45\xdf\xa3") and (at := head.find(b"\x18\x53\x80\x67")) > 0:
        promised = _ebml_size(head[at + 4 : at + 12]) + at
    if promised > num_bytes + 1:
        message = f"is cut short: {num_bytes:,} of {promised:,} bytes; copy it again"
        raise ClipError(message, stage="container", clip=name)


def _ebml_size(field: bytes) -> int:
    """An EBML variable-length size plus the bytes it is written in, or 0 if it says that it is unknown."""
    if len(field) < 8 or field[0] == 0:
        return 0
    width = 9 - field[0].bit_length()
    value = int.from_bytes(field[:width]) & ((1 << 7 * width) - 1)
    return 0 if value == (1 << 7 * width) - 1 else value + width + 4


def _reason(error: FFmpegError) -> str:
    return (error.strerror or type(error).__name__).rstrip(".").lower()


def _over(what: str, found: int, allowed: int, setting: str, name: str, wanted: str = "") -> ClipError:
    """`wanted`: the option that raises the limit, as it would have to be given."""
    message = f"has {found:,} {what}; limits.{setting} allows {allowed:,}"
    return ClipError(f"{message} ({wanted} allows more)" if wanted else message, stage="container", clip=name)
