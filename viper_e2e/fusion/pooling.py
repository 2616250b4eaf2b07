"""pooling.py: a clip's tokens -> one row of features: mean, deviation and change of each modality."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from viper_e2e.config import looks_at_face
from viper_e2e.encoders import Stream

NUM_PARTS = 3
"""Mean, deviation, change."""
MIDDLE = (0.25, 0.75)
"""The middle of a clip, as shares of its duration: [first, second). The rest are the ends."""


class PooledStream(NamedTuple):
    """One modality of a batch of clips, pooled over time; zeros where `present` is False."""

    mean: Float[Tensor, "B D"]
    deviation: Float[Tensor, "B D"]
    """Population standard deviation over the tokens; 0 of one token alone."""
    change: Float[Tensor, "B D"]
    """Mean over the middle half of the clip − mean over its first and last quarter; 0 where either has no
    token, as in a clip of one frame."""
    present: Bool[Tensor, " B"]
    """At least one token was pooled."""


def pool(
    streams: Mapping[str, Stream],
    face_found: Bool[Tensor, "B T"],
    duration_seconds: Float[Tensor, " B"],
    hidden: Bool[Tensor, "B M"] | None = None,
) -> dict[str, PooledStream]:
    """Pool each modality over its tokens that are present and in use; float32 also under autocast.

    Arguments as for the fusion: ``streams`` (B T D each), ``face_found`` of the frames' slots, ``hidden``
    modalities in the order of ``streams``, which become absent. Modalities that look at the face leave out
    frames without one, unless no frame of the clip has one. Whatever is in a slot that is not pooled
    reaches neither values nor gradients.
    """
    pooled = {}
    for index, (name, stream) in enumerate(streams.items()):
        keep = stream.present & stream.used
        if hidden is not None:
            keep = keep & ~hidden[:, index, None]
        if looks_at_face(name):
            keep = with_face(keep, face_found)
        with torch.autocast(stream.tokens.device.type, enabled=False):
            pooled[name] = _pooled(stream, keep, duration_seconds)
    return pooled


def pooled_rows(pooled: Mapping[str, PooledStream]) -> Float[Tensor, "B F"]:
    """All features side by side, F = Σ 3·D: modality by modality its mean, deviation, change."""
    return torch.cat([part for stream in pooled.values() for part in stream[:NUM_PARTS]], 1)


def known_features(pooled: Mapping[str, PooledStream]) -> Bool[Tensor, "B F"]:
    """Whether each feature of `pooled_rows` was seen or heard."""
    return torch.cat([s.present[:, None].expand(-1, NUM_PARTS * s.mean.shape[1]) for s in pooled.values()], 1)


def num_features(widths: Mapping[str, int]) -> int:
    """F of `pooled_rows`, from each modality's width."""
    return NUM_PARTS * sum(widths.values())


def block_sizes(widths: Mapping[str, int]) -> list[int]:
    """Number of features of `pooled_rows` in each part of each modality, in order."""
    return [width for width in widths.values() for _ in range(NUM_PARTS)]


def magnitudes(
    rows: Float[Tensor, "N F"], known: Bool[Tensor, "N F"], widths: Mapping[str, int]
) -> Float[Tensor, " F"]:
    """Magnitude of the tokens behind each feature of `pooled_rows`: the root mean square over
    its modality.

    Deviation and change of tokens that are alike are what rounding leaves of them: they vary from clip to clip,
    but say nothing about it.
    """
    found = []
    sizes = [NUM_PARTS * width for width in widths.values()]
    for part, is_known in zip(rows.split(sizes, 1), known.split(sizes, 1), strict=True):
        means, counted = part[:, : part.shape[1] // NUM_PARTS], is_known[:, : part.shape[1] // NUM_PARTS]
        squares = torch.where(counted, means, 0.0).double().square().sum() / counted.sum().clamp_min(1)
        found.append(squares.sqrt().expand(part.shape[1]))
    return torch.cat(found)


def with_face(keep: Bool[Tensor, "B T"], face_found: Bool[Tensor, "B T"]) -> Bool[Tensor, "B T"]:
    """Kept slots that show a face; all kept slots of a clip without any face."""
    seen = keep & face_found
    return torch.where(seen.any(1, keepdim=True), seen, keep)


def _pooled(stream: Stream, keep: Bool[Tensor, "B T"], duration_seconds: Float[Tensor, " B"]) -> PooledStream:
    # Zeros first: NaN × 0 is NaN, and so is its gradient. float64 stays, for gradients checked numerically.
    dtype = torch.promote_types(stream.tokens.dtype, torch.float32)
    tokens = torch.where(keep[..., None], stream.tokens, 0.0).to(dtype)
    mean = mean_of_kept(tokens, keep)
    centred = torch.where(keep[..., None], tokens - mean[:, None], 0.0)
    variance = mean_of_kept(centred.square(), keep)
    # The root of 0 has no slope: it is taken of 1 there and left out.
    varies = variance > 0
    deviation = torch.where(varies, torch.where(varies, variance, 1.0).sqrt(), 0.0)
    # A clip of one frame may last no time at all.
    fraction = stream.seconds.float() / duration_seconds.float().clamp_min(1e-3)[:, None]
    is_middle = (fraction >= MIDDLE[0]) & (fraction < MIDDLE[1])
    middle, ends = keep & is_middle, keep & ~is_middle
    both = (middle.any(1) & ends.any(1))[:, None]
    # Of centred tokens: what a person looks like is large, and would be rounded into the change.
    change = torch.where(both, mean_of_kept(centred, middle) - mean_of_kept(centred, ends), 0.0)
    return PooledStream(mean, deviation, change, keep.any(1))


def mean_of_kept(values: Float[Tensor, "B T D"], keep: Bool[Tensor, "B T"]) -> Float[Tensor, "B D"]:
    """Mean over the kept slots; 0 where there is none."""
    count = keep.sum(1, keepdim=True).clamp_min(1)
    return torch.where(keep[..., None], values, 0.0).sum(1) / count
