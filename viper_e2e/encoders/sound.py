"""sound.py: a clip's sound in pieces for a speech model, and which hidden states make which token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from viper_e2e.encoders.prepared import Prefix


class ClipSound(NamedTuple):
    """Sound of one clip."""

    runs: list[tuple[float, Float[Tensor, "_"]]]
    """``(start_seconds, samples)``: unbroken stretches of mono sound on the clip's clock, in order."""
    seconds: Float[Tensor, "T"]
    """Instants that want a token. Under ``windows`` only their number counts."""
    stream_seconds: float
    """Length of the whole audio stream, from the start of the first run."""
    used: Bool[Tensor, "T"] | None = None
    """Whether each instant exists; ``None``: all do."""
    prefix: Prefix | None = None
    """Prefix of its pieces, which do not run from their beginning then."""


class PiecePlan(NamedTuple):
    """A clip in pieces."""

    pieces: list[Float[Tensor, "_"]]
    starts: list[float]
    """Spans: start of each piece in seconds. Windows: the token each piece belongs to."""
    seconds: Float[Tensor, "T"]


class Frames(NamedTuple):
    """Places of the hidden states in the sound: the centres of their receptive fields, in samples."""

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


@dataclass(frozen=True)
class Pieces:
    """Pieces of sound that a speech model hears at once, and the hidden states that make each token."""

    sound: str
    """``spans`` or ``windows``, as in `DecodingConfig`."""
    span_seconds: float
    sample_rate: int
    longest_piece: int
    """Length in samples."""
    frames: Frames
    normalises: bool
    """Whether the model wants its input at mean 0 and variance 1."""

    def plan(self, clip: ClipSound) -> PiecePlan:
        """The pieces of a clip, and when its tokens are."""
        return self._windows(clip) if self.sound == "windows" else self._spans(clip)

    def _spans(self, clip: ClipSound) -> PiecePlan:
        """Runs in pieces; a token is the mean of the hidden states whose centre lies in its span."""
        pieces, starts = [], []
        for start_seconds, samples in clip.runs:
            if samples.numel() == 0:
                continue
            samples = self._normalized(samples.float())
            number = -(-len(samples) // self.longest_piece)
            for piece in samples.tensor_split(number):
                pieces.append(piece)
                starts.append(start_seconds)
                start_seconds += len(piece) / self.sample_rate
        return PiecePlan(pieces, starts, clip.seconds)

    def _windows(self, clip: ClipSound) -> PiecePlan:
        """T half-overlapping windows over the whole stream, cut or zero-padded to one second.

        As published (Vaiani et al. 2022, ``extract_audio_features.py``): length 2 · samples / (T + 1).
        """
        rate, count = self.sample_rate, len(clip.seconds)
        start_seconds = clip.runs[0][0] if clip.runs else 0.0
        places = [round((s - start_seconds) * rate) for s, _ in clip.runs]
        heard = max((p + len(x) for p, (_, x) in zip(places, clip.runs, strict=True)), default=0)
        total = round(clip.stream_seconds * rate)
        # A stream's stated length and the samples it gave differ by rounding; the samples are right.
        total = heard if abs(total - heard) <= rate // 10 else max(total, heard)
        length = total * 2 / (count + 1)
        pieces: list[Tensor] = []
        starts: list[float] = []
        for i in range(count):
            first, last = int(i * length / 2), int(i * length / 2 + length)
            window = stretch(clip.runs, places, first, min(last, first + rate))
            if window is not None:
                window = self._normalized(window.float())
                pieces.append(nn.functional.pad(window, (0, rate - len(window))))
                starts.append(i)
        centres = start_seconds + (torch.arange(count, dtype=torch.float64) + 1) * length / 2 / rate
        return PiecePlan(pieces, starts, centres)

    def belongs(self, plan: PiecePlan, counts: Sequence[int]) -> Bool[Tensor, "T S"]:
        """Whether a hidden state belongs to a token; ``counts``: states of each piece, S in all."""
        if self.sound == "windows":
            owner = torch.tensor([i for i, n in zip(plan.starts, counts, strict=True) for _ in range(n)])
            return owner[None, :] == torch.arange(len(plan.seconds))[:, None]
        centres = torch.cat(
            [
                start + self.frames.centres(n, len(piece)) / self.sample_rate
                for start, piece, n in zip(plan.starts, plan.pieces, counts, strict=True)
            ]
        )
        instants, half = plan.seconds.cpu().double()[:, None], self.span_seconds / 2
        return (centres >= instants - half) & (centres < instants + half)

    def _normalized(self, samples: Float[Tensor, "S"]) -> Float[Tensor, "S"]:
        """Zero mean and unit variance, where the backbone's preprocessor does so."""
        if not self.normalises:
            return samples
        return (samples - samples.mean()) / (samples.var(correction=0) + 1e-7).sqrt()


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
