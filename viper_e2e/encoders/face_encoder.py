"""face_encoder.py: the base of encoders of the face: crops of a clip's frames, and their slots."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from viper_e2e.clip import CropSpec
from viper_e2e.encoders.base import Encoder, Stream
from viper_e2e.encoders.clip_view import ClipView
from viper_e2e.encoders.prepared import Prefix


class FaceCrops(NamedTuple):
    """Face crops of one clip."""

    crops: Float[Tensor, "N 3 S S"]
    """Crops of its distinct frames in order, by the encoder's `crop_spec`; a blank one if unreadable."""
    frame_seconds: Float[Tensor, " N"]
    frame: Int[Tensor, " T"]
    """Number of the crop that each slot shows."""
    used: Bool[Tensor, " T"]
    is_readable: bool
    prefix: Prefix | None = None
    """Replaces the crops, which are absent then."""

    @classmethod
    def of(cls, clip: ClipView, spec: CropSpec) -> FaceCrops:
        return cls(clip.crops(spec), clip.frame_seconds, clip.frame, clip.used, clip.is_readable)

    @classmethod
    def from_prefix(cls, clip: ClipView, spec: CropSpec, prefix: Prefix) -> FaceCrops:
        none = torch.zeros(0, 3, spec.size, spec.size, device=clip.frame.device)
        return cls(none, clip.frame_seconds, clip.frame, clip.used, clip.is_readable, prefix)


class FaceEncoder(Encoder[FaceCrops]):
    """Embeds each crop by itself; `embed` is all that a subclass adds."""

    crop_spec: CropSpec

    @abstractmethod
    def embed(self, pixels: Float[Tensor, "N 3 S S"]) -> Float[Tensor, "N D"]:
        """Crops cut by ``crop_spec`` (normalised) -> an embedding of each; float32."""

    def inputs(self, clip: ClipView) -> FaceCrops:
        return FaceCrops.of(clip, self.crop_spec)

    def forward(self, inputs: Sequence[FaceCrops]) -> Stream:
        if self.is_frozen:
            tokens = torch.stack([self.embed(clip.crops)[clip.frame] for clip in inputs])
        else:
            tokens = self.embed_together(inputs).unflatten(0, (len(inputs), -1))
        return stream_of(inputs, tokens, [clip.frame_seconds[clip.frame] for clip in inputs])

    def embed_together(self, inputs: Sequence[FaceCrops]) -> Float[Tensor, "N D"]:
        """An embedding of each slot of each clip, in one pass.

        A fixed shape whatever is absent, so that every process runs every parameter in every step.
        """
        return self.embed(torch.cat([clip.crops[clip.frame] for clip in inputs]))

    def example_input(self) -> FaceCrops:
        return crops_of_noise(self.crop_spec, next(self.parameters()).device)


def stream_of(
    inputs: Sequence[FaceCrops], tokens: Float[Tensor, "B T D"], seconds: Sequence[Float[Tensor, " T"]]
) -> Stream:
    """All there but what belongs to unreadable clips, whose tokens are zeros."""
    readable = torch.tensor([clip.is_readable for clip in inputs], device=tokens.device)
    present = readable[:, None].expand(-1, tokens.shape[1])
    tokens = torch.where(present[..., None], tokens, torch.zeros_like(tokens))
    return Stream(tokens, present, torch.stack([clip.used for clip in inputs]), torch.stack(list(seconds)))


def crops_of_noise(spec: CropSpec, device: torch.device) -> FaceCrops:
    """One crop, the same at every call."""
    crop = torch.randn(1, 3, spec.size, spec.size, generator=torch.Generator().manual_seed(0)).to(device)
    first = torch.zeros(1, dtype=torch.long, device=device)
    return FaceCrops(crop, torch.zeros(1, device=device), first, torch.ones_like(first, dtype=torch.bool), True)
