"""render.py: a clip with its face box and its intensities drawn over it, as mp4."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from av.container import OutputContainer
from av.error import FFmpegError
from av.video.reformatter import Colorspace
from PIL import Image, ImageDraw, ImageFont

from ..config import LimitsConfig
from ..decoding import probe
from ..decoding.container import Media, check_frame_size, open_media, prepare_video_codec
from ..decoding.fields import Deinterlacer
from ..decoding.picture import Scaler
from ..decoding.tracks import Tracks
from ..errors import ViperError
from ..records import Record
from .figures import span_of, words

MIN_SIDE, MAX_SIDE = 480, 1280
"""Small clips are enlarged until names can be read, large ones shrunk: a rendering is for looking."""

_BOX, _BAR, _TRACK, _PANEL = (255, 214, 10), (86, 180, 233, 255), (95, 95, 95, 220), (0, 0, 0, 150)
_AAC_RATES = {8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000}

Box = tuple[float, float, float, float]


def render(
    clip: str | os.PathLike,
    record: Record,
    out: str | os.PathLike,
    *,
    limits: tuple[float, float] = (0.0, 1.0),
    clip_limits: LimitsConfig | None = None,
    video_track: int | None = None,
) -> Path:
    """Write ``clip`` to the mp4 ``out`` with a box around the face and a bar per emotion; sound is kept.

    Args:
        record: what was found in this clip (`records.py`, with ``boxes``). Between its instants the box is
            interpolated; it is solid where the face was detected and dashed where the record itself was
            interpolated.
        limits: the smallest and the largest value; bars begin where zero is.
        clip_limits: what the clip may ask for; the defaults where None.
        video_track: which of several, as in `DecodingConfig`.

    Frames are streamed: memory does not grow with the clip. ``out`` appears when it is complete. Raises
    :class:`ViperError` for an ``out`` that is no mp4, is the clip itself or cannot be written, and
    ``ClipError`` for a clip that cannot be read.
    """
    clip, out = Path(clip), Path(out)
    if not record["valid"]:
        raise ViperError(f"{clip}: cannot be rendered, it was not scored: {record['error']}")
    if out.suffix.lower() != ".mp4":
        raise ViperError(f"{out}: renderings are mp4 files; end its name in .mp4")
    if out.exists() and clip.exists() and out.samefile(clip):
        raise ViperError(f"{out}: is the clip itself; name another file")
    clip_limits = clip_limits or LimitsConfig()
    info = probe(clip, clip_limits, video_track=video_track)
    tracks = Tracks(video_track)
    with open_media(clip, clip_limits, tracks=tracks) as media, _new_mp4(out) as container:
        _Renderer(media, container, out, record, (info.width, info.height), limits).run()
    return out


class BoxTrack:
    """The face box of a record at any time of its clip."""

    def __init__(self, record: Record):
        self.seconds = np.asarray(record["frame_seconds"], np.float64)
        self.boxes = record["boxes"]

    def at(self, seconds: float) -> tuple[Box, bool] | None:
        """The box and whether it is interpolated in the record; None where there is no face.

        Between a frame with a face and one without, the nearer one decides.
        """
        after = int(np.searchsorted(self.seconds, seconds, side="right"))
        before, after = max(after - 1, 0), min(after, len(self.seconds) - 1)
        span = self.seconds[after] - self.seconds[before]
        share = float(np.clip((seconds - self.seconds[before]) / span, 0, 1)) if span > 0 else 0.0
        ends = self.boxes[before], self.boxes[after]
        if ends[0] is None or ends[1] is None:
            nearer = ends[round(share)]
            return None if nearer is None else (tuple(nearer[:4]), nearer[4] == "interpolated")
        box = tuple((1 - share) * a + share * b for a, b in zip(ends[0][:4], ends[1][:4], strict=True))
        return box, ends[round(share)][4] == "interpolated"


class _Renderer:
    """Streams one open clip into one open mp4."""

    def __init__(
        self,
        media: Media,
        container: OutputContainer,
        out: Path,
        record: Record,
        display_size: tuple[int, int],
        limits: tuple[float, float],
    ):
        self.media, self.container, self.out = media, container, out
        self.size = canvas_size(*display_size)
        self.scale = self.size[0] / display_size[0], self.size[1] / display_size[1]
        self.track = BoxTrack(record)
        self.panel = bar_panel(record["intensities"], self.size, limits)
        self.corner = _corner(record["boxes"], display_size[0], self.panel, self.size)
        self.rate = media.frame_rate
        self.tick_seconds = media.tick_seconds
        self.video = _add_video(container, self.size, self.rate, self.tick_seconds)
        self.audio = _add_sound(media, container)
        self.pts = array("q")
        """Of the pictures so far."""
        self.scaler, self.fields = Scaler(media, None, canvas=self.size), Deinterlacer()

    def run(self) -> None:
        prepare_video_codec(self.media)
        for frame in _frames(self.media, with_sound=self.audio is not None):
            if isinstance(frame, av.VideoFrame):
                self._read(frame)
            else:
                self._write(self.audio, frame)
        self._draw_all(self.fields.finish())
        self._write(self.video, None)
        if self.audio is not None:
            self._write(self.audio, None)

    def _read(self, frame: av.VideoFrame) -> None:
        check_frame_size(self.media, frame.width, frame.height)
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
            self._draw(image, float((pts - self.pts[0]) * self.tick_seconds))
            drawn = av.VideoFrame.from_image(image)
            drawn.pts, drawn.time_base = pts, self.tick_seconds
            self._write(self.video, drawn)

    def _draw(self, image: Image.Image, seconds: float) -> None:
        found = self.track.at(seconds)
        if found is not None:
            box, interpolated = found
            corners = [value * self.scale[i % 2] for i, value in enumerate(box)]
            draw_box(image, corners, dashed=interpolated)
        image.paste(self.panel, self.corner, self.panel)

    def _write(self, stream: av.stream.Stream, frame: av.VideoFrame | av.AudioFrame | None) -> None:
        with _writing(self.out):
            self.container.mux(stream.encode(frame))


# --- drawing --------------------------------------------------------------------------------------


def canvas_size(width: int, height: int) -> tuple[int, int]:
    """Size of the rendering of a clip of this size: sides even, for the encoder."""
    scale = min(max(1.0, MIN_SIDE / min(width, height)), MAX_SIDE / max(width, height))
    return tuple(max(16, round(side * scale / 2) * 2) for side in (width, height))


def draw_box(image: Image.Image, box: list[float], *, dashed: bool) -> None:
    """Outline a box (x0 y0 x1 y1, upper ends exclusive) where it is, never outside the picture."""
    draw = ImageDraw.Draw(image)
    thick = max(3, round(min(image.size) / 180))
    x0, y0 = (min(max(value, 0), side - 1) for value, side in zip(box[:2], image.size, strict=True))
    x1, y1 = (min(max(value - 1, 0), side - 1) for value, side in zip(box[2:], image.size, strict=True))
    corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)]
    for a, b in pairwise(corners):
        length = max(abs(b[0] - a[0]), abs(b[1] - a[1]), 1)
        dash = 4 * thick if dashed else length
        for start in np.arange(0, length, 2 * dash if dashed else dash):
            ends = [min(at, length) / length for at in (start, start + dash)]
            points = [tuple(p + end * (q - p) for p, q in zip(a, b, strict=True)) for end in ends]
            draw.line(points, fill=_BOX, width=thick)


def bar_panel(
    intensities: Mapping[str, float], canvas: tuple[int, int], limits: tuple[float, float] = (0.0, 1.0)
) -> Image.Image:
    """A see-through panel with a name, a bar and a number per emotion that fits into the canvas."""
    size = min(28.0, min(canvas) / 30)
    while True:
        font = ImageFont.load_default(max(size, 4))
        names_width = max(font.getlength(words(name)) for name in intensities)
        number_width = max(font.getlength(f"{value:.2f}") for value in intensities.values())
        row, pad = 1.45 * size, 0.6 * size
        bar_width = 6 * size
        width = round(names_width + bar_width + number_width + 4 * pad)
        height = round(row * len(intensities) + 1.2 * pad)
        if size <= 4 or (width <= 0.95 * canvas[0] and height <= 0.95 * canvas[1]):
            break
        size *= 0.9
    panel = Image.new("RGBA", (width, height))
    draw = ImageDraw.Draw(panel)
    draw.rounded_rectangle((0, 0, width - 1, height - 1), radius=pad, fill=_PANEL)
    for i, (name, value) in enumerate(intensities.items()):
        middle = 0.6 * pad + (i + 0.5) * row
        begin, end = span_of(value, limits)
        left, top, bottom = pad * 2 + names_width, middle - 0.3 * size, middle + 0.3 * size
        draw.text((pad, middle), words(name), font=font, fill="white", anchor="lm")
        draw.rectangle((left, top, left + bar_width, bottom), fill=_TRACK)
        if end > begin:
            draw.rectangle((left + begin * bar_width, top, left + end * bar_width, bottom), fill=_BAR)
        if 0 < (zero := span_of(0.0, limits)[0]) < 1:
            at = left + zero * bar_width
            draw.line((at, top - 1, at, bottom + 1), fill="white", width=max(1, round(size / 14)))
        draw.text((width - pad, middle), f"{value:.2f}", font=font, fill="white", anchor="rm")
    return panel


# --- reading and writing --------------------------------------------------------------------------


def _frames(media: Media, *, with_sound: bool) -> Iterator[av.VideoFrame | av.AudioFrame]:
    """Pictures and sound as they come; packets that cannot be decoded are passed over."""
    streams = [media.video, media.audio] if with_sound else [media.video]
    for packet in media.container.demux(streams):
        try:
            yield from packet.decode()
        except av.error.InvalidDataError:
            continue


def _corner(boxes: list, width: int, panel: Image.Image, canvas: tuple[int, int]) -> tuple[int, int]:
    """Where the panel lies: at the bottom, on the side where the face mostly is not."""
    centres = [(box[0] + box[2]) / 2 for box in boxes if box is not None]
    face_is_left = bool(centres) and np.median(centres) < width / 2
    margin = canvas[1] // 40
    x = canvas[0] - panel.width - margin if face_is_left else margin
    return max(x, 0), max(canvas[1] - panel.height - margin, 0)


def _add_video(
    container: OutputContainer, size: tuple[int, int], rate: Fraction, tick_seconds: Fraction
) -> av.VideoStream:
    stream = container.add_stream("libx264", rate=rate, options={"crf": "20", "preset": "veryfast"})
    stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
    # What swscale makes of RGB, said in the file: players would take large pictures for BT.709.
    stream.codec_context.colorspace = Colorspace.ITU601
    stream.codec_context.time_base = tick_seconds  # frames keep their own times, evenly spaced or not
    return stream


def _add_sound(media: Media, container: OutputContainer) -> av.AudioStream | None:
    """An AAC stream for the clip's sound: encoded anew, as mp4 cannot hold all that clips come with."""
    if media.audio is None or media.audio.codec_context is None:
        return None
    context = media.audio.codec_context
    rate = context.sample_rate if context.sample_rate in _AAC_RATES else 48_000
    return container.add_stream("aac", rate=rate, layout="mono" if context.channels == 1 else "stereo")


@contextmanager
def _new_mp4(out: Path) -> Iterator[OutputContainer]:
    """An mp4 that gets its name when it is complete, and is gone if it does not become so."""
    partial = out.with_name(f".{out.stem}.partial.mp4")
    try:
        with _writing(out):
            container = av.open(str(partial), "w", options={"movflags": "+faststart"})
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
