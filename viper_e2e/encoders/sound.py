"""sound.py: stretches of sound, where the hidden states lie in them, and Whisper's spectrogram."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import WhisperConfig
from transformers.audio_utils import mel_filter_bank


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


class LogMel(nn.Module):
    """Whisper's input: log-mel spectrograms of 30 s, zero-padded (Radford et al. 2022, section 2.2)."""

    filters: Float[Tensor, "M K"]

    def __init__(self, preprocessor: Mapping[str, Any], architecture: WhisperConfig):
        super().__init__()
        self.num_fft = preprocessor.get("n_fft", 400)
        self.hop = preprocessor.get("hop_length", 160)
        rate = preprocessor.get("sampling_rate", 16_000)
        # The encoder halves the number of frames and takes exactly this many.
        self.num_samples = 2 * architecture.max_source_positions * self.hop
        filters = mel_filter_bank(
            num_frequency_bins=1 + self.num_fft // 2,
            num_mel_filters=architecture.num_mel_bins,
            min_frequency=0.0,
            max_frequency=8000.0,
            sampling_rate=rate,
            norm="slaney",
            mel_scale="slaney",
        )
        self.register_buffer("filters", torch.from_numpy(filters.T.astype(np.float32)), persistent=False)

    def forward(self, pieces: list[Float[Tensor, "_"]]) -> Float[Tensor, "N M F"]:
        """float32 sound, each piece at most 30 s -> 3,000 frames, float32 whatever autocast says."""
        samples = torch.stack([padded(piece.float(), self.num_samples) for piece in pieces])
        with torch.autocast(samples.device.type, enabled=False):
            window = torch.hann_window(self.num_fft, device=samples.device)
            spectrum = torch.stft(samples, self.num_fft, self.hop, window=window, return_complex=True)
            mel = self.filters.float() @ spectrum[..., :-1].abs().square()
            log = mel.clamp_min(1e-10).log10()
            return (torch.maximum(log, log.amax((1, 2), keepdim=True) - 8.0) + 4.0) / 4.0


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
