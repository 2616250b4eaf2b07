"""sound.py: stretches of sound, and where the hidden states of speech models lie in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Frames(NamedTuple):
    """Where in the sound the hidden states are: the centre of their receptive fields, in samples."""

    stride: int
    first: float
    minimum: int
    """Samples below which the model has nothing to say."""

    @classmethod
    def of(cls, kernels: Sequence[int], strides: Sequence[int]) -> Frames:
        stride, field = 1, 1
        for kernel, step in zip(kernels, strides, strict=True):
            field += (kernel - 1) * stride
            stride *= step
        return cls(stride, (field - 1) / 2, field)

    def number(self, num_samples: int) -> int:
        """States whose centre lies inside, at least one (Whisper, whose input is padded to 30 s)."""
        return max(1, -(-num_samples // self.stride))

    def centres(self, count: int, num_samples: int) -> Float[Tensor, "F"]:
        centres = torch.arange(count, dtype=torch.float64) * self.stride + self.first
        return centres.clamp_max(num_samples - 0.5)


def padded(x: Tensor, length: int) -> Tensor:
    """Zeros (or False) behind the first dimension."""
    return torch.cat([x, x.new_zeros(length - len(x), *x.shape[1:])]) if len(x) < length else x


def stretch(
    runs: list[tuple[float, Float[Tensor, "_"]]], places: list[int], first: int, last: int
) -> Float[Tensor, "_"] | None:
    """Samples ``first`` to ``last`` of the stream, zeros where no run has any; ``None`` if none has."""
    window = None
    for place, (_, samples) in zip(places, runs, strict=True):
        low, high = max(first, place), min(last, place + len(samples))
        if low < high:
            if window is None:
                window = samples.new_zeros(last - first)
            window[low - first : high - first] = samples[low - place : high - place]
    return window
