"""crop.py: face pixels as each encoder wants them, from whole frames or from the parts held in memory."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as pixels

from ..clip import CropSpec
from ..errors import ViperError

Window = tuple[int, int, int, int]
"""x0 y0 x1 y1 in whole pixels of the frame, exclusive upper ends."""


class FaceRegions(NamedTuple):
    """The part of every frame around its box: what is kept of a clip instead of whole frames."""

    pieces: tuple[UInt8[Tensor, "_ _ 3"], ...]
    origins: tuple[tuple[int, int], ...]
    """x, y of each piece's first pixel in its frame."""
    frame_size: tuple[int, int]
    """Width, height of the frames."""

    @property
    def num_bytes(self) -> int:
        return sum(piece.numel() for piece in self.pieces)


def cut_regions(frames: UInt8[Tensor, "N H W 3"], boxes: Float[Tensor, "N 4"], margin: float) -> FaceRegions:
    """Copies of the pixels around the boxes, ``margin`` (share of the box's size) wider on every side.

    At least an eighth of the box and 4 pixels are kept, which is what the widest resampling kernel (bicubic,
    down to 16 pixels) reads beyond the box.
    """
    height, width = frames.shape[1:3]
    sides = boxes[:, 2:] - boxes[:, :2]
    around = sides * max(margin, 1 / 8) + 4
    windows = torch.cat([(boxes[:, :2] - around).floor(), (boxes[:, 2:] + around).ceil()], 1).long()
    windows[:, 0::2].clamp_(0, width)
    windows[:, 1::2].clamp_(0, height)
    rows = windows.tolist()
    pieces = tuple(frames[i, y0:y1, x0:x1].clone() for i, (x0, y0, x1, y1) in enumerate(rows))
    return FaceRegions(pieces, tuple((x0, y0) for x0, y0, _, _ in rows), (width, height))


def crop_boxes(
    source: UInt8[Tensor, "N H W 3"] | FaceRegions, boxes: Float[Tensor, "N 4"], spec: CropSpec
) -> Float[Tensor, "N 3 size size"]:
    """Each box cut out, resized to ``spec.size`` and normalised, on the device of ``boxes``, float32.

    Boxes may reach beyond the frame, whose border pixels are then repeated (whole-pixel boxes end there
    instead). Held regions give bitwise the numbers that the whole frames give; a box for which too little was
    held is a `ViperError`.
    """
    with torch.no_grad(), torch.autocast(boxes.device.type, enabled=False):
        resized = _published(source, boxes, spec) if spec.integer_boxes else _resampled(source, boxes, spec)
        if spec.resize_in_uint8 or spec.integer_boxes:
            resized = resized.round().clamp(0, 255)
        mean, std = (
            torch.tensor(values, device=resized.device)[:, None, None] for values in (spec.mean, spec.std)
        )
        return (resized / 255 - mean) / std


def _published(
    source: UInt8[Tensor, "N H W 3"] | FaceRegions, boxes: Float[Tensor, "N 4"], spec: CropSpec
) -> Float[Tensor, "N 3 size size"]:
    """The box truncated by ``int()``, cut, and then resized as uint8, as a saved crop would be by PIL."""
    width, height = _frame_size(source)
    interpolation = InterpolationMode(spec.interpolation)
    crops = []
    for index, (x0, y0, x1, y1) in enumerate(boxes.trunc().long().tolist()):
        x0, y0 = min(max(x0, 0), width - 1), min(max(y0, 0), height - 1)
        window = (x0, y0, min(max(x1, x0 + 1), width), min(max(y1, y0 + 1), height))
        face = _cut(source, index, window).to(boxes.device).permute(2, 0, 1)
        size = [spec.size] * (2 if spec.aspect == "squash" else 1)
        face = pixels.resize(face, size, interpolation, antialias=spec.antialias)
        crops.append(pixels.center_crop(face, [spec.size, spec.size]))
    return torch.stack(crops).float()


def _resampled(
    source: UInt8[Tensor, "N H W 3"] | FaceRegions, boxes: Float[Tensor, "N 4"], spec: CropSpec
) -> Float[Tensor, "N 3 size size"]:
    """Sub-pixel boxes: the two passes of a separable resize as matrix products."""
    if spec.aspect == "short_side_center":
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2
        half = (boxes[:, 2:] - boxes[:, :2]).amin(1, keepdim=True) / 2
        boxes = torch.cat([centre - half, centre + half], 1)
    width, height = _frame_size(source)
    x_start, x_stop, across = _resampling(boxes[:, 0], boxes[:, 2], width, spec)
    y_start, y_stop, down = _resampling(boxes[:, 1], boxes[:, 3], height, spec)
    windows = torch.stack([x_start, y_start, x_stop, y_stop], 1).tolist()
    crops = []
    for index, (x0, y0, x1, y1) in enumerate(windows):
        face = _cut(source, index, (x0, y0, x1, y1)).to(boxes.device).permute(2, 0, 1).float()
        crops.append(down[index, :, : y1 - y0] @ face @ across[index, :, : x1 - x0].T)
    return torch.stack(crops)


def _resampling(
    lower: Float[Tensor, "N"], upper: Float[Tensor, "N"], length: int, spec: CropSpec
) -> tuple[Int[Tensor, "N"], Int[Tensor, "N"], Float[Tensor, "N size _"]]:
    """Along one axis: the pixels that are read, [start, stop), and the weight of each for every output pixel.

    The arithmetic of PIL's ``resize(box=…)``: kernels are stretched when shrinking (antialias), read beyond the
    box, and are renormalised at the frame's border. It is done in float64 relative to the frame, so it does not
    matter which part of the frame is at hand.
    """
    device = lower.device
    if device.type != "cuda":  # few others have float64; where pixels are read is asked for on the CPU anyway
        lower, upper = lower.cpu(), upper.cpu()
    lower, upper = lower.double(), upper.double()
    scale = (upper - lower)[:, None] / spec.size
    stretch = scale.clamp(min=1.0) if spec.antialias else torch.ones_like(scale)
    outputs = torch.arange(spec.size, device=lower.device)
    # Clamped, so that what lies beyond the frame repeats its border.
    centres = (lower[:, None] + (outputs + 0.5) * scale).clamp(0, length)
    radius = stretch * (1 if spec.interpolation == "bilinear" else 2)
    start = (centres[:, 0] - radius[:, 0]).floor().clamp(min=0).long()
    stop = (centres[:, -1] + radius[:, 0]).ceil().clamp(max=length).long()
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


def _frame_size(source: UInt8[Tensor, "N H W 3"] | FaceRegions) -> tuple[int, int]:
    return source.frame_size if isinstance(source, FaceRegions) else (source.shape[2], source.shape[1])


def _cut(source: UInt8[Tensor, "N H W 3"] | FaceRegions, index: int, window: Window) -> UInt8[Tensor, "_ _ 3"]:
    x0, y0, x1, y1 = window
    if not isinstance(source, FaceRegions):
        return source[index, y0:y1, x0:x1]
    piece, (left, top) = source.pieces[index], source.origins[index]
    if x0 < left or y0 < top or x1 > left + piece.shape[1] or y1 > top + piece.shape[0]:
        held = (left, top, left + piece.shape[1], top + piece.shape[0])
        raise ViperError(
            f"frame {index}: the crop needs pixels {window} but only {held} were held in memory; "
            "raise faces.hold_margin, or move boxes less"
        )
    return piece[y0 - top : y1 - top, x0 - left : x1 - left]
