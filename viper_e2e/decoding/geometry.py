"""geometry.py: orientation and shown size of a decoded picture: upright, in square pixels."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np

from viper_e2e.clip import Side
from viper_e2e.decoding.media import ClipMedia

Size = tuple[int, int]
"""Width, height."""


@dataclass(frozen=True)
class Orientation:
    """One of the eight ways in which a stored picture can lie; as done one after the other."""

    swaps_axes: bool = False
    """Rows become columns (a picture is transposed)."""
    mirrors_x: bool = False
    """Then left and right change places."""
    mirrors_y: bool = False
    """Then top and bottom do."""

    @property
    def is_mirrored(self) -> bool:
        """Whether no turning alone would do it: letters would stay reversed."""
        return (self.swaps_axes + self.mirrors_x + self.mirrors_y) % 2 == 1

    @property
    def degrees(self) -> int:
        """Counter-clockwise turn, 0 to 270, of the picture, or of its mirror image (left and right changed)."""
        if self.swaps_axes:
            return 90 if self.mirrors_y else 270
        return 180 if self.mirrors_y else 0

    def size(self, size: Size) -> Size:
        """Size of a picture once it is upright."""
        return size[::-1] if self.swaps_axes else size

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """The picture (``H W …``) laid right; a view."""
        if self.swaps_axes:
            image = image.swapaxes(0, 1)
        return image[:: -1 if self.mirrors_y else 1, :: -1 if self.mirrors_x else 1]


_UPRIGHT = Orientation()


def orientation_of(frame: av.VideoFrame) -> Orientation:
    """Orientation that makes a frame upright, from its display matrix.

    A matrix between the eight (turned by a few degrees) counts as the nearest.
    """
    matrix = _display_matrix(frame)
    if matrix is None:
        return _UPRIGHT
    # FFmpeg's libavutil/display.h: x' = a x + c y, y' = b x + d y.
    (a, b), (c, d) = matrix[0, :2].tolist(), matrix[1, :2].tolist()
    # Axes as they lie now against axes exchanged: the share of the matrix on each diagonal, signs left aside.
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(mirrors_x=a < 0, mirrors_y=d < 0)
    return Orientation(swaps_axes=True, mirrors_x=c < 0, mirrors_y=b < 0)


def side_data(frame: av.VideoFrame, kind: str) -> bytes | None:
    """Side data of a frame; `ValueError` if it has some that PyAV does not know."""
    found = frame.side_data.get(kind)
    # PyAV's stub takes side data for a dict of motion vectors.
    return None if found is None else bytes(found)  # type: ignore[call-overload]


def _display_matrix(frame: av.VideoFrame) -> np.ndarray | None:
    """float64, 3×3 as FFmpeg lays it out, or None."""
    try:
        found = side_data(frame, "DISPLAYMATRIX")
    except ValueError:
        # PyAV does not know one of the other kinds of side data and then shows none: it still tells the turn.
        turn = np.deg2rad(frame.rotation)
        cos, sin = np.cos(turn), np.sin(turn)
        return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    return None if found is None else np.frombuffer(found, np.int32)[:9].reshape(3, 3).astype(np.float64)


def pixel_aspect(media: ClipMedia) -> Fraction:
    """Width of a stored pixel over its height; what the container says comes before what the codec does.

    As the codec stands: in mid-stream it may change.
    """
    for aspect in (media.video.sample_aspect_ratio, media.video.codec_context.sample_aspect_ratio):
        # None, or 0/1, where nothing is said; PyAV 19 has rationals of its own.
        if aspect is not None and aspect.numerator > 0 and aspect.denominator > 0:
            return Fraction(aspect.numerator, aspect.denominator)
    return Fraction(1)


def shown_size(size: Size, orientation: Orientation, aspect: Fraction) -> Size:
    """The size at which a player shows a stored picture, in square pixels.

    Its shown width is stretched or shrunk, its shown height stays (FFmpeg's ``scale=iw*sar:ih``, which comes
    behind its turning), rounded down as there.
    """
    width, height = orientation.size(size)
    if orientation.swaps_axes:
        aspect = 1 / aspect
    return max(1, width * aspect.numerator // aspect.denominator), height


def scaled_size(width: int, height: int, max_side: int | None) -> Size:
    """Width, height with the longer side at most `max_side`; never larger than given."""
    if max_side is None or max(width, height) <= max_side:
        return width, height
    scale = max_side / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def half_size(size: Size, side: Side) -> Size:
    """The size of one side of a picture; an odd column in the middle belongs to neither half."""
    return size if side == "full" else (max(1, size[0] // 2), size[1])


def fitted_size(size: Size, canvas: Size) -> Size:
    """The largest size of the same shape that fits into a canvas; all of it if the shapes hardly differ."""
    (width, height), (room_x, room_y) = size, canvas
    scale = min(room_x / width, room_y / height)
    fitted = max(1, round(width * scale)), max(1, round(height * scale))
    is_alike = all(part >= room * 0.98 - 1 for part, room in zip(fitted, canvas, strict=True))
    return canvas if is_alike else fitted
