"""picture.py: a decoded frame as a player shows it: upright, in square pixels, in SDR, at the wanted size."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
from av.error import FFmpegError
from av.filter import Graph
from av.filter.context import FilterContext

from viper_e2e.clip import Side
from viper_e2e.decoding.colour import RGBConverter
from viper_e2e.decoding.geometry import (
    Size,
    fitted_size,
    half_size,
    orientation_of,
    pixel_aspect,
    scaled_size,
    shown_size,
)
from viper_e2e.decoding.headers import Crop
from viper_e2e.decoding.media import ClipMedia


class Scaler:
    """Decoded frame → uint8 RGB as shown, its longer side at most `max_side`.

    A clip whose shown size changes midway keeps the size of its first frame: later ones are fitted into it,
    each by its own shape, between black bars where that differs.
    """

    def __init__(
        self, media: ClipMedia, max_side: int | None, canvas: Size | None = None, *, side: Side = "full"
    ):
        """`canvas`: the size to hand out, whatever the first frame's is. `side`: the half that is handed out,
        as if it were the picture."""
        self.media, self.max_side, self.side = media, max_side, side
        self.display_size: Size = (0, 0)
        """Size of the first frame, as shown, before scaling."""
        self.changes: list[Size] = []
        """Shown sizes of other shape that came later, each once."""
        self._canvas = canvas
        self._whole_size: Size = (0, 0)
        """Size of the first frame, as shown, both halves."""
        self._convert, self._crop = RGBConverter(), Cropper(media.crop)

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on the pictures so far."""
        if not self.changes:
            return ()
        first, *others = ("×".join(map(str, size)) for size in [self._whole_size, *self.changes])
        text = f"the picture changes midway from {first} to {', '.join(others)}"
        return (f"{text}, which is shown inside the first between black bars",)

    def __call__(self, frame: av.VideoFrame, aspect: Fraction | None = None) -> np.ndarray:
        """uint8 ``H W 3``. `aspect`: of the frame's pixels; None: as the codec has it now.

        Raises `ClipError` (stages ``container``, ``decode``).
        """
        frame = self._crop(frame)
        orientation = orientation_of(frame)
        size = frame.width, frame.height
        shown = shown_size(size, orientation, pixel_aspect(self.media) if aspect is None else aspect)
        if self.display_size == (0, 0):
            self.display_size = half_size(shown, self.side)
            self._whole_size = shown
        canvas = self._canvas or self._first_canvas(shown)
        fitted = canvas if shown == self._whole_size else self._fitted(shown, canvas)
        try:
            image = orientation(self._convert(frame, *orientation.size(fitted)))
        except FFmpegError as error:
            message = f"pixel format {frame.format.name} cannot be converted; convert the clip"
            raise self.media.fail(message, stage="decode") from error
        image = image if fitted == canvas else _framed(image, canvas)
        width = half_size(canvas, self.side)[0]
        return image[:, -width:] if self.side == "right" else image[:, :width]

    def _first_canvas(self, shown: Size) -> Size:
        half = half_size(shown, self.side)
        width, height = scaled_size(*half, self.max_side)
        is_halved = half != shown
        # Unscaled, an odd column in the middle stays; scaled, both halves are alike.
        self._canvas = canvas = shown if (width, height) == half else (width * (1 + is_halved), height)
        # Flat pixels can make a small picture's shown size very large.
        self.media.check_frame_size(*canvas)
        return canvas

    def _fitted(self, shown: Size, canvas: Size) -> Size:
        fitted = fitted_size(shown, canvas)
        if fitted != canvas and shown not in self.changes:
            self.changes.append(shown)
        return fitted


def _framed(image: np.ndarray, canvas: Size) -> np.ndarray:
    """A picture in the middle of a black canvas."""
    height, width = image.shape[:2]
    framed = np.zeros((canvas[1], canvas[0], 3), np.uint8)
    top, left = (canvas[1] - height) // 2, (canvas[0] - width) // 2
    framed[top : top + height, left : left + width] = image
    return framed


class Cropper:
    """Frames without those edges; no pixel is copied."""

    def __init__(self, crop: Crop):
        self.crop = crop
        self._graph = Graph()
        self._kind: tuple = ()
        """Kind of the frames that the graph is made for."""

    def __call__(self, frame: av.VideoFrame) -> av.VideoFrame:
        width, height = self.crop.size(frame.width, frame.height)
        if (width, height) == (frame.width, frame.height):
            return frame
        kind = frame.width, frame.height, frame.format.name
        if kind != self._kind:
            self._graph, self._kind = Graph(), kind
            place = {"x": str(self.crop.left), "y": str(self.crop.top)}
            self._graph.link_nodes(
                new_buffer(self._graph, frame),
                self._graph.add("crop", w=str(width), h=str(height), exact="1", **place),
                self._graph.add("buffersink"),
            ).configure()
        self._graph.push(frame)
        return self._graph.vpull()


def new_buffer(graph: Graph, frame: av.VideoFrame) -> FilterContext:
    """Entry of a graph for frames like this one; times are of no use there, but it asks for their unit."""
    time_base = frame.time_base or Fraction(1, 1000)
    return graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=time_base)
