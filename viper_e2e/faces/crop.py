"""crop.py: face pixels as each encoder wants them, from whole frames or from the parts cached in memory."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from viper_e2e.clip import CropSpec
from viper_e2e.errors import ViperError
from viper_e2e.faces.align import Squares, resample_square, squares_on_eyes

Window = tuple[int, int, int, int]
"""x0 y0 x1 y1 in whole pixels of the frame, exclusive upper ends."""


class FaceRegions(NamedTuple):
    """The part of every frame around its face: what is kept of a clip instead of whole frames.

    Each may come from a decode of its own size: boxes and landmarks are always in pixels of ``frame_size``.
    """

    pieces: tuple[UInt8[Tensor, "_ _ 3"], ...]
    origins: tuple[tuple[int, int], ...]
    """x, y of each piece's first pixel in the frame that it was cut from."""
    frame_size: tuple[int, int]
    """Width, height of the frames in which faces were found."""
    cut_from: tuple[tuple[int, int], ...]
    """Width, height of the frame that each piece was cut from: larger, if it was decoded again for its face."""

    @classmethod
    def of_frames(cls, frames: UInt8[Tensor, "N H W 3"]) -> FaceRegions:
        """Whole frames, as they are."""
        count, height, width, _ = frames.shape
        size = (width, height)
        return cls(tuple(frames.unbind(0)), ((0, 0),) * count, size, (size,) * count)

    @property
    def num_bytes(self) -> int:
        return sum(piece.numel() for piece in self.pieces)

    def take(self, indices: list[int]) -> FaceRegions:
        """Those of some frames."""
        pieces = tuple(self.pieces[i] for i in indices)
        origins, cut_from = (tuple(places[i] for i in indices) for places in (self.origins, self.cut_from))
        return FaceRegions(pieces, origins, self.frame_size, cut_from)

    def scales(self, device: torch.device) -> Float[Tensor, "N 2"]:
        """Pixels of each piece, across and down, per pixel of ``frame_size``."""
        sizes = torch.tensor(self.cut_from, dtype=torch.float64)
        return (sizes / torch.tensor(self.frame_size, dtype=torch.float64)).float().to(device)

    def cut(self, index: int, window: Window) -> UInt8[Tensor, "_ _ 3"]:
        """A part of a frame, in pixels of the frame that its piece was cut from; a view."""
        x0, y0, x1, y1 = window
        piece, (left, top) = self.pieces[index], self.origins[index]
        if x0 < left or y0 < top or x1 > left + piece.shape[1] or y1 > top + piece.shape[0]:
            cached = (left, top, left + piece.shape[1], top + piece.shape[0])
            raise ViperError(
                f"frame {index}: the crop needs pixels {window} but only {cached} were cached in memory; "
                "raise faces.hold_margin, or move boxes less"
            )
        return piece[y0 - top : y1 - top, x0 - left : x1 - left]


def windows_around(
    boxes: Float[Tensor, "N 4"],
    landmarks: Float[Tensor, "N 5 2"] | None,
    frame_size: tuple[int, int],
    margin: float,
) -> list[Window]:
    """The pixels that crops of these faces may read, ``margin`` (share of the box's size) wider on every side.

    At least an eighth of the box and 4 pixels more, which is what the widest resampling kernel (bicubic, down
    to 16 pixels) reads beyond the box. ``landmarks``: also what their aligned crops read.
    """
    width, height = frame_size
    margin, sides = max(margin, 1 / 8), boxes[:, 2:] - boxes[:, :2]
    around = sides * margin + 4
    lower, upper = boxes[:, :2] - around, boxes[:, 2:] + around
    if landmarks is not None:
        corners = squares_on_eyes(boxes, landmarks).corners
        around = (corners.amax(1) - corners.amin(1)).maximum(sides) * margin + 4
        lower = torch.fmin(lower, corners.amin(1) - around)
        upper = torch.fmax(upper, corners.amax(1) + around)
    windows = torch.cat([lower.floor(), upper.ceil()], 1).long()
    windows[:, 0::2].clamp_(0, width)
    windows[:, 1::2].clamp_(0, height)
    return [tuple(row) for row in windows.tolist()]


def cut_regions(
    frames: UInt8[Tensor, "N H W 3"],
    boxes: Float[Tensor, "N 4"],
    margin: float,
    landmarks: Float[Tensor, "N 5 2"] | None = None,
) -> FaceRegions:
    """Copies of the pixels around the faces; see `windows_around`."""
    size = (frames.shape[2], frames.shape[1])
    windows = windows_around(boxes, landmarks, size, margin)
    pieces = tuple(frames[i, y0:y1, x0:x1].clone() for i, (x0, y0, x1, y1) in enumerate(windows))
    return FaceRegions(pieces, tuple((x0, y0) for x0, y0, _, _ in windows), size, (size,) * len(frames))


def crop_boxes(
    source: UInt8[Tensor, "N H W 3"] | FaceRegions,
    boxes: Float[Tensor, "N 4"],
    spec: CropSpec,
    landmarks: Float[Tensor, "N 5 2"] | None = None,
) -> Float[Tensor, "N 3 size size"]:
    """Each face cut out, resized to ``spec.size`` and normalised, on the device of ``boxes``, float32.

    By its box, or, with ``spec.align``, by its eyes where ``landmarks`` tells them. Both may reach beyond the
    frame, whose border pixels are then repeated (whole-pixel boxes end there instead). Cached regions give
    bitwise the numbers that the whole frames give; a face for which too little was cached is a `ViperError`.
    """
    with torch.no_grad(), torch.autocast(boxes.device.type, enabled=False):
        regions = source if isinstance(source, FaceRegions) else FaceRegions.of_frames(source)
        resized = _resized(regions, boxes, spec, landmarks)
        if spec.resize_in_uint8 or spec.integer_boxes:
            resized = resized.round().clamp(0, 255)
        mean, std = (
            torch.tensor(values, device=resized.device)[:, None, None] for values in (spec.mean, spec.std)
        )
        return (resized / 255 - mean) / std


def _resized(
    regions: FaceRegions,
    boxes: Float[Tensor, "N 4"],
    spec: CropSpec,
    landmarks: Float[Tensor, "N 5 2"] | None,
) -> Float[Tensor, "N 3 size size"]:
    by_box = _published if spec.integer_boxes else _resampled
    if spec.align == "box" or landmarks is None:
        return by_box(regions, boxes * regions.scales(boxes.device).repeat(1, 2), spec)
    seen = landmarks[:, :2].isfinite().flatten(1).all(1)
    crops = boxes.new_empty(len(boxes), 3, spec.size, spec.size)
    for part, is_seen in ((seen, True), (~seen, False)):
        indices = part.nonzero()[:, 0].tolist()
        if indices:
            some = regions.take(indices)
            if is_seen:
                crops[part] = _turned(some, squares_on_eyes(boxes[part], landmarks[part]), spec)
            else:
                crops[part] = _resized(some, boxes[part], spec, None)
    return crops


def _turned(regions: FaceRegions, squares: Squares, spec: CropSpec) -> Float[Tensor, "N 3 size size"]:
    """Each square's window of pixels, the same from whatever was kept of the frame, then resampled."""
    device = squares.origins.device
    squares = squares.scaled(regions.scales(device))
    corners = squares.corners
    lower, upper = (corners.amin(1) - 3).floor().long(), (corners.amax(1) + 3).ceil().long()
    crops = []
    for index, ((x0, y0), (x1, y1)) in enumerate(zip(lower.tolist(), upper.tolist(), strict=True)):
        window = _within(regions.cut_from[index], x0, y0, x1, y1)
        image = regions.cut(index, window).to(device).permute(2, 0, 1).float()
        square = squares.take(index).moved(-float(window[0]), -float(window[1]))
        crops.append(resample_square(image, square, spec.size, spec.interpolation, antialias=spec.antialias))
    return torch.stack(crops)


def _within(size: tuple[int, int], x0: int, y0: int, x1: int, y1: int) -> tuple[int, int, int, int]:
    """The part of a window that lies in an image of this size, width and height: at least a pixel."""
    width, height = size
    x0, y0 = min(max(x0, 0), width - 1), min(max(y0, 0), height - 1)
    return x0, y0, min(max(x1, x0 + 1), width), min(max(y1, y0 + 1), height)


def _published(
    source: FaceRegions, boxes: Float[Tensor, "N 4"], spec: CropSpec
) -> Float[Tensor, "N 3 size size"]:
    """The box truncated by ``int()``, cut, and then resized as uint8, as a saved crop would be by PIL."""
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as pixels

    interpolation = InterpolationMode(spec.interpolation)
    crops = []
    for index, (x0, y0, x1, y1) in enumerate(boxes.trunc().long().tolist()):
        window = _within(source.cut_from[index], x0, y0, x1, y1)
        face = source.cut(index, window).to(boxes.device).permute(2, 0, 1)
        size = [spec.size] * (2 if spec.aspect == "squash" else 1)
        face = pixels.resize(face, size, interpolation, antialias=spec.antialias)
        crops.append(pixels.center_crop(face, [spec.size, spec.size]))
    return torch.stack(crops).float()


def _resampled(
    source: FaceRegions, boxes: Float[Tensor, "N 4"], spec: CropSpec
) -> Float[Tensor, "N 3 size size"]:
    """Sub-pixel boxes: the two passes of a separable resize as matrix products."""
    if spec.aspect == "short_side_center":
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2
        half = (boxes[:, 2:] - boxes[:, :2]).amin(1, keepdim=True) / 2
        boxes = torch.cat([centre - half, centre + half], 1)
    widths, heights = torch.tensor(source.cut_from).unbind(1)
    x_start, x_stop, across = _resampling(boxes[:, 0], boxes[:, 2], widths, spec)
    y_start, y_stop, down = _resampling(boxes[:, 1], boxes[:, 3], heights, spec)
    windows = torch.stack([x_start, y_start, x_stop, y_stop], 1).tolist()
    crops = []
    for index, (x0, y0, x1, y1) in enumerate(windows):
        face = source.cut(index, (x0, y0, x1, y1)).to(boxes.device).permute(2, 0, 1).float()
        crops.append(down[index, :, : y1 - y0] @ face @ across[index, :, : x1 - x0].T)
    return torch.stack(crops)


def _resampling(
    lower: Float[Tensor, "N"], upper: Float[Tensor, "N"], length: Int[Tensor, "N"], spec: CropSpec
) -> tuple[Int[Tensor, "N"], Int[Tensor, "N"], Float[Tensor, "N size _"]]:
    """Along one axis: the pixels that are read, [start, stop), and the weight of each for every output pixel.

    The arithmetic of PIL's ``resize(box=…)``: kernels are stretched when shrinking (antialias), read beyond the
    box, and are renormalised at the frame's border. It is done in float64 relative to the frame, so it does not
    matter which part of the frame is at hand.
    """
    device = lower.device
    if device.type != "cuda":  # few others have float64; where pixels are read is asked for on the CPU anyway
        lower, upper = lower.cpu(), upper.cpu()
    lower, upper, length = lower.double(), upper.double(), length.to(lower.device)
    scale = (upper - lower)[:, None] / spec.size
    stretch = scale.clamp(min=1.0) if spec.antialias else torch.ones_like(scale)
    outputs = torch.arange(spec.size, device=lower.device)
    # Clamped, so that what lies beyond the frame repeats its border.
    centres = (lower[:, None] + (outputs + 0.5) * scale).clamp(min=0).minimum(length[:, None])
    radius = stretch * (1 if spec.interpolation == "bilinear" else 2)
    start = (centres[:, 0] - radius[:, 0]).floor().clamp(min=0).long()
    stop = (centres[:, -1] + radius[:, 0]).ceil().long().minimum(length)
    first = (centres - radius).floor().long()
    taps = torch.arange(int(2 * radius.max()) + 2, device=lower.device)
    pixel = first[:, :, None] + taps
    weights = _kernel((pixel + 0.5 - centres[:, :, None]) / stretch[:, :, None], spec)
    weights = weights * ((pixel >= start[:, None, None]) & (pixel < stop[:, None, None]))
    weights = (weights / weights.sum(2, keepdim=True)).float()
    table = weights.new_zeros(len(start), spec.size, int((stop - start).max()))
    column = (pixel - start[:, None, None]).clamp(0, table.shape[2] - 1)
    return start, stop, table.scatter_add_(2, column, weights).to(device)


def _kernel(x: Float[Tensor, "N size taps"], spec: CropSpec) -> Float[Tensor, "N size taps"]:
    x = x.abs()
    if spec.interpolation == "bilinear":
        return (1 - x).clamp(min=0)
    a = -0.5 if spec.antialias else -0.75  # PIL's constant; PyTorch's where it does not follow PIL
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((x - 5) * x + 8) * x * a - 4 * a
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))
