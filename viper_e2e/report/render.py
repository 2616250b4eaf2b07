"""render.py: a clip with its face box and its intensities drawn over it, as mp4."""

from __future__ import annotations

import logging
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.codec.codec import UnknownCodecError
from av.container import OutputContainer
from av.error import FFmpegError
from av.video.reformatter import Colorspace
from PIL import Image

from viper_e2e.config import LimitsConfig
from viper_e2e.decoding import (
    ClipMedia,
    Deinterlacer,
    Scaler,
    Tracks,
    open_clip,
    prepare_video_codec,
    probe,
)
from viper_e2e.errors import ViperError
from viper_e2e.labels import LabelSet
from viper_e2e.loading import PlaceReader
from viper_e2e.model import Record
from viper_e2e.report.drawing import CANNOT_DRAW
from viper_e2e.report.overlay import Overlay

MIN_SIDE, MAX_SIDE = 480, 1280
"""Small clips are enlarged until names can be read, large ones shrunk: a rendering is for looking."""

_AAC_RATES = {8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000}

MADE_BY = "drawn by viper infer --render"
"""Mark in every rendering's metadata: other files are not overwritten."""

ENCODERS: tuple[tuple[str, dict[str, str]], ...] = (
    ("libx264", {"crf": "20", "preset": "veryfast"}),
    ("libopenh264", {"b": "6M"}),
    ("mpeg4", {"b": "8M"}),
)
"""The first that this FFmpeg has; builds under another licence lack libx264."""

_FINEST_TICK = Fraction(1, 60_000)
"""Resolution of the coarsest of them."""

_log = logging.getLogger(__name__)


def render(
    clip: str | os.PathLike | bytes,
    records: Record | Sequence[Record],
    out: str | os.PathLike,
    *,
    labels: LabelSet | None = None,
    clip_limits: LimitsConfig | None = None,
    video_track: int | None = None,
) -> Path:
    """Write ``clip`` to the mp4 ``out`` with a box around the face and what each task says; sound is kept.

    Args:
        clip: its path, or its bytes.
        records: what was found in this clip, or in each of its windows (`records.py`, with ``boxes``): the
            numbers shown are those of the window whose middle is nearest. Between instants the box is
            interpolated; it is solid where the face was detected and dashed where the record itself was
            interpolated.
        labels: what the numbers are; None: intensities from 0 to 1.
        clip_limits: what the clip may ask for; the defaults where None.
        video_track: which of several, as in `DecodingConfig`.

    Frames are streamed: memory does not grow with the clip. ``out`` appears when it is complete. Raises
    :class:`ViperError` for an ``out`` that is no mp4, is the clip itself or cannot be written, and
    ``ClipError`` for a clip that cannot be read.
    """
    clip, out = clip if isinstance(clip, bytes) else Path(clip), Path(out)
    records = [records] if isinstance(records, dict) else list(records)
    scored = [record for record in records if record["valid"]]
    name = Path(records[0]["clip"]).name
    if not scored:
        raise ViperError(f"{name}: cannot be rendered, it was not scored: {records[0]['error']}")
    if out.suffix.lower() != ".mp4":
        raise ViperError(f"{out}: renderings are mp4 files; end its name in .mp4")
    if isinstance(clip, Path) and out.exists() and clip.exists() and out.samefile(clip):
        raise ViperError(f"{out}: is the clip itself; name another file")
    if not may_replace(out):
        raise ViperError(f"{out}: exists and was not rendered by viper; name another file")
    clip_limits = clip_limits or LimitsConfig()
    info = probe(clip, clip_limits, video_track=video_track)
    tracks, shown_size = Tracks(video_track), (info.width, info.height)
    overlay = Overlay(scored, shown_size, canvas_size(*shown_size), labels, name)
    with open_clip(clip, clip_limits, tracks=tracks) as media, _new_mp4(out) as container:
        _Renderer(media, container, out, overlay).run()
    return out


@dataclass(frozen=True)
class RenderClip:
    """Renders a clip, given whose reader reads it, its place there, its records and the mp4; picklable."""

    readers: tuple[PlaceReader, ...]
    labels: LabelSet
    clip_limits: LimitsConfig
    video_track: int | None

    def __call__(self, job: tuple[int, object, list[Record], Path]) -> Path:
        reader, place, records, path = job
        try:
            return render(
                self.readers[reader].read(place).video,
                records,
                path,
                labels=self.labels,
                clip_limits=self.clip_limits,
                video_track=self.video_track,
            )
        except CANNOT_DRAW as error:
            raise ViperError(" ".join(str(error).split()) or type(error).__name__) from error


def may_replace(out: Path) -> bool:
    """Whether nothing is lost by writing there: there is no file, or an earlier rendering."""
    if not out.is_file():
        return True
    with out.open("rb") as file:
        return MADE_BY.encode() in file.read(32 * 1024**2)  # the metadata of renderings stands first


def partial_of(out: Path) -> Path:
    """Name of a rendering until it is complete; left behind if the process that made it died."""
    return out.with_name(f".{out.stem}.partial.mp4")


class _Renderer:
    """Streams one open clip into one open mp4."""

    def __init__(
        self,
        media: ClipMedia,
        container: OutputContainer,
        out: Path,
        overlay: Overlay,
    ):
        self.media, self.container, self.out, self.overlay = media, container, out, overlay
        self.size = overlay.canvas
        self.rate = media.frame_rate
        self.tick_seconds = media.tick_seconds
        self.video = _add_video(container, out, self.size, self.rate, self.tick_seconds)
        self.audio = _add_sound(media, container)
        self.pts = array("q")
        """Timestamps of the pictures so far."""
        self.scaler, self.fields = Scaler(media, None, canvas=self.size), Deinterlacer()

    def run(self) -> None:
        prepare_video_codec(self.media)
        for frame in _frames(self.media, with_sound=self.audio is not None):
            if isinstance(frame, av.VideoFrame):
                self._read(frame)
            else:
                self._write_sound(frame)
        self._draw_all(self.fields.finish())
        self._write_picture(None)
        self._write_sound(None)

    def _read(self, frame: av.VideoFrame) -> None:
        self.media.check_frame_size(frame.width, frame.height)
        pts = self._pts(frame)
        if self.pts and pts <= self.pts[-1]:
            return  # damaged or doubled times; an encoder takes only rising ones
        self.pts.append(pts)
        self._draw_all(self.fields.push(len(self.pts) - 1, frame))

    def _pts(self, frame: av.VideoFrame) -> int:
        if frame.pts is not None:
            return frame.pts
        step = max(1, round(1 / self.rate / self.tick_seconds))
        return self.pts[-1] + step if self.pts else 0

    def _draw_all(self, frames: Iterable[tuple[int, av.VideoFrame]]) -> None:
        for index, frame in frames:
            image = Image.fromarray(np.ascontiguousarray(self.scaler(frame)))
            pts = self.pts[index]
            self.overlay.draw(image, float((pts - self.pts[0]) * self.tick_seconds))
            drawn = av.VideoFrame.from_image(image)
            drawn.pts, drawn.time_base = pts, self.tick_seconds
            self._write_picture(drawn)

    def _write_picture(self, frame: av.VideoFrame | None) -> None:
        with _writing(self.out):
            self.container.mux(self.video.encode(frame))

    def _write_sound(self, frame: av.AudioFrame | None) -> None:
        if self.audio is not None:
            with _writing(self.out):
                self.container.mux(self.audio.encode(frame))


def canvas_size(width: int, height: int) -> tuple[int, int]:
    """Size of the rendering of a clip of this size: sides even, for the encoder."""
    scale = min(max(1.0, MIN_SIDE / min(width, height)), MAX_SIDE / max(width, height))
    return _even(width * scale), _even(height * scale)


def _even(side: float) -> int:
    return max(16, round(side / 2) * 2)


# --- reading and writing --------------------------------------------------------------------------


def _frames(media: ClipMedia, *, with_sound: bool) -> Iterator[av.VideoFrame | av.AudioFrame]:
    """Pictures and sound as they come; packets that cannot be decoded are passed over."""
    streams = list(media.streams) if with_sound else [media.video]
    for packet in media.container.demux(streams):
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            continue
        yield from (frame for frame in frames if isinstance(frame, av.VideoFrame | av.AudioFrame))


def _encoder(out: Path) -> tuple[str, dict[str, str]]:
    for name, options in ENCODERS:
        try:
            av.codec.Codec(name, "w")
        except UnknownCodecError:
            continue
        if name != ENCODERS[0][0]:
            _log.warning("%s: encoded with %s, as this FFmpeg has no %s", out, name, ENCODERS[0][0])
        return name, dict(options)
    names = ", ".join(name for name, _ in ENCODERS)
    raise ViperError(f"{out}: this FFmpeg encodes no video for mp4; it needs one of {names}")


def _add_video(
    container: OutputContainer, out: Path, size: tuple[int, int], rate: Fraction, tick_seconds: Fraction
) -> av.VideoStream:
    name, options = _encoder(out)
    stream = container.add_stream(name, rate=rate, options=options)
    assert isinstance(stream, av.VideoStream), name
    stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
    # What swscale makes of RGB, said in the file: players would take large pictures for BT.709.
    stream.codec_context.colorspace = Colorspace.ITU601
    if name == "mpeg4":
        tick_seconds = max(tick_seconds, _FINEST_TICK)
    stream.codec_context.time_base = tick_seconds  # frames keep their own times, evenly spaced or not
    return stream


def _add_sound(media: ClipMedia, container: OutputContainer) -> av.AudioStream | None:
    """An AAC stream for the clip's sound: re-encoded, as mp4 cannot hold all that clips come with."""
    if media.audio is None or media.audio.codec_context is None:
        return None
    context = media.audio.codec_context
    rate = context.sample_rate if context.sample_rate in _AAC_RATES else 48_000
    return container.add_stream("aac", rate=rate, layout="mono" if context.channels == 1 else "stereo")


@contextmanager
def _new_mp4(out: Path) -> Iterator[OutputContainer]:
    """An mp4 that gets its name when it is complete, and is gone if it does not become so."""
    partial = partial_of(out)
    try:
        with _writing(out):
            container = av.open(str(partial), "w", options={"movflags": "+faststart"})
            container.metadata["comment"] = MADE_BY
        try:
            yield container
        finally:
            with _writing(out):
                container.close()
        with _writing(out):
            partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except (FFmpegError, OSError) as error:
        reason = error.strerror or error
        raise ViperError(
            f"{out}: cannot be written ({reason}); is its folder there, with room in it?"
        ) from error
