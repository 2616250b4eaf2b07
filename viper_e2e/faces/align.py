"""align.py: the upright square that a face's eyes span, and its pixels: roll and scale are removed."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

EYE_DISTANCE = 0.42
"""Between the eyes, as a share of the crop's side: the face is then about as large as in its box."""
EYE_HEIGHT = 0.4
"""Height of the line through the eyes, as a share of the crop's side, from its upper edge."""
SIDE_RANGE = (0.8, 1.6)
"""Range of the crop's side, in units of the square root of the box's area. A head that turns brings its eyes
together; their distance alone would enlarge its crop without end."""
MAX_SAMPLES = 8
"""Most samples per output pixel and axis, where a face is larger than its crop."""


class Squares(NamedTuple):
    """Squares that may be turned: a point (u, v) of the crop, 0 to 1 both ways, lies at origin + u·x + v·y."""

    origins: Float[Tensor, "*n 2"]
    """The upper left corners as they lie once upright, x y in pixels (0 0: the frame's own corner)."""
    x_axes: Float[Tensor, "*n 2"]
    y_axes: Float[Tensor, "*n 2"]

    @property
    def corners(self) -> Float[Tensor, "*n 4 2"]:
        right, lower = self.origins + self.x_axes, self.origins + self.y_axes
        return torch.stack([self.origins, right, lower, right + self.y_axes], dim=-2)

    def take(self, index: int) -> Squares:
        return Squares(*(part[index] for part in self))

    def scaled(self, scales: Float[Tensor, "*n 2"]) -> Squares:
        """The same squares in a frame that is larger by these factors, across and down."""
        return Squares(*(part * scales for part in self))

    def moved(self, x: float, y: float) -> Squares:
        return self._replace(origins=self.origins + self.origins.new_tensor([x, y]))


def squares_on_eyes(boxes: Float[Tensor, "N 4"], landmarks: Float[Tensor, "N 5 2"]) -> Squares:
    """The square of each face in which its eyes are level, `EYE_DISTANCE` apart and `EYE_HEIGHT` down.

    Differentiable in ``landmarks``; NaN where these are.
    """
    left, right = landmarks[:, 0], landmarks[:, 1]
    between = right - left
    distance = between.norm(dim=1, keepdim=True).clamp(min=1e-6)
    size = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1, keepdim=True).sqrt()
    side = (distance / EYE_DISTANCE).maximum(SIDE_RANGE[0] * size).minimum(SIDE_RANGE[1] * size)
    x_axes = between / distance * side
    y_axes = torch.stack([-x_axes[:, 1], x_axes[:, 0]], dim=1)
    return Squares((left + right) / 2 - x_axes / 2 - EYE_HEIGHT * y_axes, x_axes, y_axes)


def moved_with(
    landmarks: Float[Tensor, "N 5 2"] | None, boxes: Float[Tensor, "N 4"], moved: Float[Tensor, "N 4"]
) -> Float[Tensor, "N 5 2"] | None:
    """Landmarks moved as their boxes were, so that aligned crops change as much."""
    if landmarks is None:
        return None
    scale = (moved[:, 2:] - moved[:, :2]) / (boxes[:, 2:] - boxes[:, :2])
    return (landmarks - boxes[:, None, :2]) * scale[:, None] + moved[:, None, :2]


def resample_square(
    image: Float[Tensor, "C H W"], square: Squares, size: int, interpolation: str, *, antialias: bool = True
) -> Float[Tensor, "C size size"]:
    """The pixels of one square, differentiable in both; beyond the image its border is repeated.

    ``interpolation``: ``bilinear`` or ``bicubic``. Where the square is larger than the output, each output
    pixel is the mean of several samples spread over it, so that nothing between them is lost.
    """
    longest = float(square.x_axes.detach().norm().maximum(square.y_axes.detach().norm()))
    samples = min(MAX_SAMPLES, max(1, math.ceil(longest / size - 1e-6))) if antialias else 1
    count = size * samples
    at = (torch.arange(count, device=image.device, dtype=image.dtype) + 0.5) / count
    across, down = at[None, :, None], at[:, None, None]
    points = square.origins + across * square.x_axes + down * square.y_axes
    # grid_sample counts from -1 to 1 between the outer edges of the outermost pixels.
    grid = points * 2 / points.new_tensor([image.shape[2], image.shape[1]]) - 1
    sampled = F.grid_sample(
        image[None], grid[None].to(image.dtype), interpolation, padding_mode="border", align_corners=False
    )
    return F.avg_pool2d(sampled, samples)[0] if samples > 1 else sampled[0]
