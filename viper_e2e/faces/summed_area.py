"""summed_area.py: averages over whole-pixel blocks of frames, all of them out of one table of sums a frame.

Every resize of facenet-pytorch's MTCNN is such an average ("area"): the pyramid as well as thousands of
candidate crops are read out of the table, exactly and without a Python loop over crops (Crow 1984,
"Summed-area tables for texture mapping").
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor


def summed_area(frames: UInt8[Tensor, "N H W 3"]) -> Int[Tensor, "N H+1 W+1 3"]:
    """``sums[n, y, x]`` is the sum of all pixels above and left of (y, x).

    int32 may wrap around in very large frames; differences come out right all the same, because no block that
    is asked for sums to 2³¹.
    """
    count, height, width, _ = frames.shape
    sums = torch.zeros((count, height + 1, width + 1, 3), dtype=torch.int32, device=frames.device)
    along_rows = frames.to(torch.int32).cumsum_(2)
    if frames.device.type == "cpu":  # three times faster there than cumsum along an outer dimension
        for y in range(height):
            torch.add(sums[:, y, 1:], along_rows[:, y], out=sums[:, y + 1, 1:])
    else:
        torch.cumsum(along_rows, 1, dtype=torch.int32, out=sums[:, 1:, 1:])
    return sums


def area_resize(sums: Int[Tensor, "N _ _ 3"], height: int, width: int) -> Float[Tensor, "N 3 {height} {width}"]:
    """The result of ``F.interpolate(frames, (height, width), mode="area")``, from the table."""
    start = torch.zeros(1, dtype=torch.long, device=sums.device)
    top, bottom = (edge[0] for edge in _block_edges(start, start + sums.shape[1] - 1, height))
    left, right = (edge[0] for edge in _block_edges(start, start + sums.shape[2] - 1, width))
    rows = sums.index_select(1, bottom) - sums.index_select(1, top)
    blocks = rows.index_select(2, right) - rows.index_select(2, left)
    return _channels_first(blocks) / (bottom - top)[:, None] / (right - left)


def area_crops(
    sums: Int[Tensor, "N _ _ 3"], frame: Int[Tensor, "K"], boxes: Int[Tensor, "K 4"], size: int
) -> Float[Tensor, "K 3 {size} {size}"]:
    """Whole-pixel boxes (exclusive upper ends) cut out and area-resized to a square, from the table."""
    left, right = _block_edges(boxes[:, 0], boxes[:, 2], size)
    top, bottom = _block_edges(boxes[:, 1], boxes[:, 3], size)
    first_row = (frame * sums.shape[1])[:, None]
    upper, lower = first_row + top, first_row + bottom
    blocks = _at(sums, lower, right)
    blocks = blocks.sub_(_at(sums, upper, right)).sub_(_at(sums, lower, left)).add_(_at(sums, upper, left))
    averages = _channels_first(blocks.view(len(boxes), size, size, 3))
    return averages / (bottom - top)[:, None, :, None] / (right - left)[:, None, None, :]


def _at(sums: Int[Tensor, "N _ width 3"], y: Int[Tensor, "K S"], x: Int[Tensor, "K S"]) -> Int[Tensor, "KSS 3"]:
    """Entries where a box's rows, counted through all tables, cross its columns."""
    return sums.view(-1, 3).index_select(0, ((y * sums.shape[2])[:, :, None] + x[:, None, :]).view(-1))


def _channels_first(blocks: Int[Tensor, "N H W 3"]) -> Float[Tensor, "N 3 H W"]:
    return blocks.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)


def _block_edges(
    start: Int[Tensor, "K"], stop: Int[Tensor, "K"], count: int
) -> tuple[Int[Tensor, "K {count}"], Int[Tensor, "K {count}"]]:
    """Borders of ``count`` blocks over [start, stop): adaptive average pooling's floor and ceil."""
    length = (stop - start)[:, None]
    index = torch.arange(count, device=start.device)
    lower = (index * length).div(count, rounding_mode="floor")
    upper = ((index + 1) * length + count - 1).div(count, rounding_mode="floor")
    return start[:, None] + lower, start[:, None] + upper
