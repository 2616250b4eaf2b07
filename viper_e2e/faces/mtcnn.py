"""mtcnn.py: facenet-pytorch's MTCNN weights behind a detector that is batched from end to end.

The three networks, thresholds and box arithmetic are those of ``facenet_pytorch.models.utils.detect_face``
(Zhang et al. 2016, "Joint Face Detection and Alignment using Multi-task Cascaded CNNs"). What differs is how
the pixels get there: out of one summed-area table per frame (`summed_area.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from viper_e2e.faces.summed_area import area_crops, area_resize, summed_area

PYRAMID_FACTOR = 0.709
"""Each pyramid level is this much smaller than the one before (areas halve)."""
FIRST_STAGE_CELL = 12
"""Pixels seen by one output of the first network; its stride is 2."""
PIXELS_PER_CHUNK = {"cpu": 2**21, "cuda": 2**25}
"""Frames are taken in chunks of this many pixels: what stays near a CPU's cache, 0.4 GB of table on a GPU."""
CANDIDATES_PER_CHUNK = {"cpu": 64, "cuda": 4096}


class MTCNN(nn.Module):
    """Every face in every frame of one clip.

    Its weights are buffers outside the state dict: they come with facenet-pytorch, are never trained and never
    saved, and no optimizer, parameter count or ``.train()`` of a parent sees them.
    """

    def __init__(self, min_face_size: int, thresholds: tuple[float, float, float]):
        # Loads torchvision and with it torch's compiler: seconds, for models that look at faces alone.
        from facenet_pytorch.models.mtcnn import ONet, PNet, RNet

        super().__init__()
        self.min_face_size = min_face_size
        self.thresholds = thresholds
        self.propose_net = _as_buffers(_with_quick_pooling(PNet()))
        self.refine_net = _as_buffers(_with_quick_pooling(RNet()))
        self.output_net = _as_buffers(_with_quick_pooling(ONet()))

    @property
    def device(self) -> torch.device:
        return next(self.buffers()).device

    @torch.no_grad()
    def forward(self, frames: UInt8[Tensor, "N H W 3"]) -> list[Float[Tensor, "_ 15"]]:
        """One row ``x0 y0 x1 y1 probability`` and five landmarks (``x y`` each: the eye on the picture's left,
        the one on its right, nose, the two corners of the mouth) per face, most probable first, on the CPU.

        Boxes are not yet clipped to the frame. Results depend on these frames alone.
        """
        kind = "cpu" if self.device.type == "cpu" else "cuda"
        height, width = frames.shape[1:3]
        step = max(1, PIXELS_PER_CHUNK[kind] // (height * width))
        with torch.autocast(self.device.type, enabled=False), _whole_float32():
            return [faces for chunk in frames.split(step) for faces in self._detect(chunk, kind)]

    def _detect(self, frames: UInt8[Tensor, "N H W 3"], kind: str) -> list[Float[Tensor, "_ 15"]]:
        sums = summed_area(frames.to(self.device, non_blocking=True))
        boxes, frame_index = self._propose(sums)
        boxes, frame_index = self._refine(sums, boxes, frame_index, CANDIDATES_PER_CHUNK[kind])
        faces, frame_index = self._finish(sums, boxes, frame_index, CANDIDATES_PER_CHUNK[kind])
        faces, frame_index = faces.cpu(), frame_index.cpu()
        keep = suppress_contained(faces[:, :5], frame_index, 0.7)
        faces, frame_index = faces[keep], frame_index[keep]
        return [faces[frame_index == index] for index in range(len(frames))]

    def _propose(self, sums: Int[Tensor, "N _ _ 3"]) -> tuple[Float[Tensor, "K 5"], Int[Tensor, "K"]]:
        """The fully convolutional first network over an image pyramid."""
        height, width = sums.shape[1] - 1, sums.shape[2] - 1
        found, frame_index, level_index = [], [], []
        for level, scale in enumerate(pyramid_scales(height, width, self.min_face_size)):
            images = area_resize(sums, int(height * scale + 1), int(width * scale + 1))
            offsets, probabilities = self.propose_net(_normalised(images))
            frame, row, column = (probabilities[:, 1] >= self.thresholds[0]).nonzero(as_tuple=True)
            x0, y0 = (((2 * cell + 1) / scale).floor() for cell in (column, row))
            x1, y1 = (((2 * cell + FIRST_STAGE_CELL) / scale).floor() for cell in (column, row))
            score = probabilities[frame, 1, row, column]
            found.append(
                torch.cat([torch.stack([x0, y0, x1, y1, score], 1), offsets[frame, :, row, column]], dim=1)
            )
            frame_index.append(frame)
            level_index.append(torch.full_like(frame, level))
        if not found:  # the frame is smaller than the smallest face looked for
            return sums.new_zeros((0, 5), dtype=torch.float32), sums.new_zeros(0, dtype=torch.long)
        boxes, frame, levels = torch.cat(found), torch.cat(frame_index), torch.cat(level_index)
        keep = _most_probable(boxes, frame * len(found) + levels, 0.5)
        boxes, frame = boxes[keep], frame[keep]
        keep = _most_probable(boxes, frame, 0.7)
        boxes, frame = boxes[keep], frame[keep]
        return _squared(_shifted(boxes[:, :5], boxes[:, 5:], border=0)), frame

    def _refine(
        self, sums: Int[Tensor, "N _ _ 3"], boxes: Float[Tensor, "K 5"], frame: Int[Tensor, "K"], step: int
    ) -> tuple[Float[Tensor, "R 5"], Int[Tensor, "R"]]:
        boxes, frame, crops = _candidates(sums, boxes, frame, 24)
        if len(boxes) == 0:
            return boxes, frame
        offsets, probabilities = _in_chunks(self.refine_net, crops, step)
        boxes, frame, offsets = _passing(boxes, frame, offsets, probabilities[:, 1], self.thresholds[1])
        keep = _most_probable(boxes, frame, 0.7)
        return _squared(_shifted(boxes[keep], offsets[keep], border=1)), frame[keep]

    def _finish(
        self, sums: Int[Tensor, "N _ _ 3"], boxes: Float[Tensor, "K 5"], frame: Int[Tensor, "K"], step: int
    ) -> tuple[Float[Tensor, "R 15"], Int[Tensor, "R"]]:
        boxes, frame, crops = _candidates(sums, boxes, frame, 48)
        if len(boxes) == 0:
            return boxes.new_zeros((0, 15)), frame
        offsets, landmarks, probabilities = _in_chunks(self.output_net, crops, step)
        seen = torch.cat([offsets, landmarks], dim=1)
        boxes, frame, seen = _passing(boxes, frame, seen, probabilities[:, 1], self.thresholds[2])
        return torch.cat([_shifted(boxes, seen[:, :4], border=1), _placed(seen[:, 4:], boxes)], dim=1), frame


@contextmanager
def _whole_float32() -> Iterator[None]:
    """Without TF32, which cuDNN convolves in by default: at 10 bits, faces near a threshold come and go."""
    # torch puts it into the module as it is imported, where no type checker looks.
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    usual = convolutions.fp32_precision
    convolutions.fp32_precision = "ieee"
    try:
        yield
    finally:
        convolutions.fp32_precision = usual


def _most_probable(boxes: Float[Tensor, "K _"], groups: Int[Tensor, " K"], overlap: float) -> Int[Tensor, "_"]:
    """Indices of boxes that overlap no more probable one of their group by more than that."""
    from torchvision.ops import batched_nms

    return batched_nms(boxes[:, :4], boxes[:, 4], groups, overlap)


def pyramid_scales(height: int, width: int, min_face_size: int) -> list[float]:
    """Scales at which a face of ``min_face_size`` pixels, and larger ones, fill the first network's cell."""
    scale = FIRST_STAGE_CELL / min_face_size
    shorter = min(height, width) * scale
    scales = []
    while shorter >= FIRST_STAGE_CELL:
        scales.append(scale)
        scale, shorter = scale * PYRAMID_FACTOR, shorter * PYRAMID_FACTOR
    return scales


# --- boxes ---------------------------------------------------------------------------------------


def suppress_contained(
    boxes: Float[Tensor, "K 5"], frame: Int[Tensor, "K"], threshold: float
) -> Int[Tensor, "R"]:
    """Indices of boxes to keep, most probable first: none shares more than ``threshold`` of the smaller box's
    area with a better one of its frame (MTCNN's "Min" suppression)."""
    x0, y0, x1, y1, score = boxes.unbind(1)
    area = (x1 - x0 + 1) * (y1 - y0 + 1)
    overlap_width = torch.minimum(x1[:, None], x1) - torch.maximum(x0[:, None], x0) + 1
    overlap_height = torch.minimum(y1[:, None], y1) - torch.maximum(y0[:, None], y0) + 1
    share = overlap_width.clamp(min=0) * overlap_height.clamp(min=0) / torch.minimum(area[:, None], area)
    rivals = (share > threshold) & (frame[:, None] == frame)
    alive = torch.ones(len(boxes), dtype=torch.bool)
    keep = []
    for index in score.argsort(descending=True).tolist():
        if alive[index]:
            keep.append(index)
            alive &= ~rivals[index]
    return torch.tensor(keep, dtype=torch.long)


def _candidates(
    sums: Int[Tensor, "N _ _ 3"], boxes: Float[Tensor, "K 5"], frame: Int[Tensor, "K"], size: int
) -> tuple[Float[Tensor, "R 5"], Int[Tensor, "R"], Float[Tensor, "R 3 {size} {size}"]]:
    """Crops of the boxes for the next network; boxes that lie outside the frame are dropped."""
    height, width = sums.shape[1] - 1, sums.shape[2] - 1
    x0, y0, x1, y1 = boxes[:, :4].trunc().long().unbind(1)
    # One-based inclusive pixels, as in the original MATLAB code that facenet-pytorch follows.
    whole = torch.stack(
        [x0.clamp(min=1) - 1, y0.clamp(min=1) - 1, x1.clamp(max=width), y1.clamp(max=height)], dim=1
    )
    inside = ((whole[:, 2] > whole[:, 0]) & (whole[:, 3] > whole[:, 1])).nonzero()[:, 0]
    boxes, frame = boxes[inside], frame[inside]
    return boxes, frame, _normalised(area_crops(sums, frame, whole[inside], size))


def _passing(
    boxes: Float[Tensor, "K 5"],
    frame: Int[Tensor, "K"],
    offsets: Float[Tensor, "K F"],
    probabilities: Float[Tensor, "K"],
    threshold: float,
) -> tuple[Float[Tensor, "R 5"], Int[Tensor, "R"], Float[Tensor, "R F"]]:
    passed = (probabilities > threshold).nonzero()[:, 0]
    boxes = torch.cat([boxes[passed, :4], probabilities[passed, None]], dim=1)
    return boxes, frame[passed], offsets[passed]


def _shifted(boxes: Float[Tensor, "K 5"], offsets: Float[Tensor, "K 4"], border: int) -> Float[Tensor, "K 5"]:
    """Each side moved by the network's offset, a share of the box's size."""
    sides = boxes[:, 2:4] - boxes[:, :2] + border
    return torch.cat([boxes[:, :4] + offsets * sides.repeat(1, 2), boxes[:, 4:]], dim=1)


def _placed(shares: Float[Tensor, "K 10"], boxes: Float[Tensor, "K 5"]) -> Float[Tensor, "K 10"]:
    """Landmarks, five x and five y in shares of the box that the network saw, as ``x y`` pairs in the frame."""
    sides = boxes[:, 2:4] - boxes[:, :2] + 1
    points = shares.unflatten(1, (2, 5)).transpose(1, 2) * sides[:, None] + boxes[:, None, :2] - 1
    return points.flatten(1)


def _squared(boxes: Float[Tensor, "K 5"]) -> Float[Tensor, "K 5"]:
    sides = boxes[:, 2:4] - boxes[:, :2]
    longer = sides.amax(1, keepdim=True)
    corner = boxes[:, :2] + sides * 0.5 - longer * 0.5
    return torch.cat([corner, corner + longer, boxes[:, 4:]], dim=1)


# --- networks ------------------------------------------------------------------------------------


def _normalised(images: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N 3 H W"]:
    return (images - 127.5) * 0.0078125


def _in_chunks(net: nn.Module, crops: Float[Tensor, "K 3 S S"], step: int) -> list[Float[Tensor, "K _"]]:
    return [torch.cat(pieces) for pieces in zip(*(net(chunk) for chunk in crops.split(step)), strict=True)]


class _QuickMaxPool2d(nn.Module):
    """``nn.MaxPool2d(size, 2, ceil_mode=True)`` by whole slices: PyTorch's own is a scalar loop on the CPU and
    took a quarter of the detector's time."""

    def __init__(self, size: int):
        super().__init__()
        self.size = size

    def forward(self, images: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C _ _"]:
        for dim in (2, 3):
            length = images.shape[dim]
            count = -(-(length - self.size) // 2) + 1
            missing = 2 * (count - 1) + self.size - length
            if missing:
                last = images.narrow(dim, length - 1, 1)
                images = torch.cat([images, *[last] * missing], dim)
            taps = [
                images.narrow(dim, tap, 2 * count - 1)[(slice(None),) * dim + (slice(None, None, 2),)]
                for tap in range(self.size)
            ]
            images = taps[0]
            for tap in taps[1:]:
                images = torch.maximum(images, tap)
        return images


def _with_quick_pooling(net: nn.Module) -> nn.Module:
    for name, module in list(net.named_children()):
        if isinstance(module, nn.MaxPool2d) and isinstance(module.kernel_size, int):
            setattr(net, name, _QuickMaxPool2d(module.kernel_size))
    return net


def _as_buffers(net: nn.Module) -> nn.Module:
    for module in net.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            delattr(module, name)
            module.register_buffer(name, parameter.detach(), persistent=False)
    return net.eval()
