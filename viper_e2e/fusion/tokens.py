"""tokens.py: token streams of all modalities -> intensities, through a Perceiver."""

from __future__ import annotations

from collections.abc import Mapping
from math import pi

import torch
from jaxtyping import Bool, Float
from perceiver_pytorch import Perceiver
from torch import Tensor, nn

from viper_e2e.config import FusionConfig, looks_at_face
from viper_e2e.encoders import Stream
from viper_e2e.fusion.head import FusionHead, check_heads, check_streams, to_intensities
from viper_e2e.fusion.pooling import mean_of_kept, with_face
from viper_e2e.fusion.scale import LabelScale

NUM_SECONDS_BANDS = 10
NUM_FRACTION_BANDS = 6
NUM_TIME_FEATURES = 2 * (NUM_SECONDS_BANDS + NUM_FRACTION_BANDS) + 2
CHANGE_GAIN = 2.0
"""Within a clip tokens differ by a fraction of what they differ between clips."""


class TokenFusion(FusionHead):
    """Each modality is a stream of tokens of its own; latents read whatever is there (perceiver-pytorch).

    A token is its projected content + its modality's embedding + its time. Where nothing was seen or heard
    the content is a learned missing token, so every clip of every combination takes the same path and every
    parameter gets a gradient (zero where it had no part) in every step: DDP needs no search for unused ones.
    Jaegle et al. 2021, "Perceiver: General Perception with Iterative Attention".
    """

    def __init__(
        self,
        config: FusionConfig,
        widths: Mapping[str, int],
        num_outputs: int,
        sigmoid: bool,
        scale: LabelScale | None = None,
    ):
        super().__init__(config, widths, num_outputs, sigmoid, scale)
        check_heads(config, config.latent_dim, "num_cross_heads", "num_latent_heads")
        # LayerNorm first: a frozen backbone's scale is whatever its pre-training left.
        self.projections = nn.ModuleDict(
            {
                name: nn.Sequential(nn.LayerNorm(width), nn.Linear(width, config.dim))
                for name, width in widths.items()
            }
        )
        self.modality_embedding = nn.Parameter(0.02 * torch.randn(len(widths), config.dim))
        self.missing_token = nn.Parameter(0.02 * torch.randn(len(widths), config.dim))
        self.time = nn.Linear(NUM_TIME_FEATURES, config.dim)
        self._at_faces = frozenset(filter(looks_at_face, widths))
        # Only where some modality looks at a face; else it would be a parameter without a gradient.
        if self._at_faces:
            self.no_face_embedding = nn.Parameter(0.02 * torch.randn(config.dim))
        self.perceiver = Perceiver(
            input_axis=1,
            input_channels=config.dim,
            # Its own features are positions in the array, in the compute dtype; ours are times, in fp32.
            fourier_encode_data=False,
            num_freq_bands=0,
            max_freq=1.0,
            depth=config.depth,
            num_latents=config.num_latents,
            latent_dim=config.latent_dim,
            cross_heads=config.num_cross_heads,
            cross_dim_head=config.latent_dim // config.num_cross_heads,
            latent_heads=config.num_latent_heads,
            latent_dim_head=config.latent_dim // config.num_latent_heads,
            self_per_cross_attn=config.self_attends_per_block,
            attn_dropout=config.dropout,
            ff_dropout=config.dropout,
            num_classes=num_outputs,
        )
        self.reads_change = config.change
        if config.change:
            self.change_projections = nn.ModuleDict(
                {name: nn.Linear(width, config.dim) for name, width in widths.items()}
            )
            self.change_embedding = nn.Parameter(0.02 * torch.randn(len(widths), config.dim))

    def forward(
        self,
        streams: dict[str, Stream],
        face_found: Bool[Tensor, "B T"],
        duration_seconds: Float[Tensor, "B"],
        hidden: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B E"]:
        """Intensities, float32 also under autocast.

        ``streams``: the modalities of `widths`, in that order. ``face_found``: of the visual slots.
        ``hidden``: modalities kept from a clip (dropout in training, ablation in evaluation). A hidden
        modality is treated exactly as an absent one, so that dropout rehearses what absence looks like.
        """
        check_streams(streams, self.modalities)
        tokens, used = [], []
        for index, (name, stream) in enumerate(streams.items()):
            keep = stream.present & stream.used
            if hidden is not None:
                keep = keep & ~hidden[:, index, None]
            content = self._content(name, index, stream.tokens, keep)
            if name in self._at_faces:
                # Only beside a kept token: a hidden modality must not tell whether there was a face.
                no_face = (keep & ~face_found)[..., None]
                content = content + torch.where(no_face, self.no_face_embedding, 0.0)
            times = self.time(time_features(stream.seconds, duration_seconds).to(content.dtype))
            contents = [content + self.modality_embedding[index]]
            if self.reads_change:
                seen = with_face(keep, face_found) if name in self._at_faces else keep
                contents.append(self._change(name, index, stream.tokens, seen) + self.change_embedding[index])
            # A masked token still passes through LayerNorm and matrix products: zeros, never garbage.
            tokens += [torch.where(stream.used[..., None], content + times, 0.0) for content in contents]
            used += [stream.used] * len(contents)
        latents = self.perceiver(torch.cat(tokens, 1), mask=torch.cat(used, 1), return_embeddings=True)
        with torch.autocast(latents.device.type, enabled=False):
            logits = self.perceiver.to_logits(latents.to(self.missing_token.dtype))
        return to_intensities(logits, self.sigmoid, self.rescale, self.scale)

    def compile_targets(self, device: torch.device) -> list[nn.Module]:
        return [self.perceiver]

    def _content(
        self, name: str, index: int, tokens: Float[Tensor, "B T D"], keep: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B T F"]:
        # Selecting after the projection alone would let a NaN in an unread slot reach the weights' gradient.
        tokens = torch.where(keep[..., None], tokens, 0.0).to(self.missing_token.dtype)
        return torch.where(keep[..., None], self.projections[name](tokens), self.missing_token[index])

    def _change(
        self, name: str, index: int, tokens: Float[Tensor, "B T D"], keep: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B T F"]:
        """Difference of each kept token from the clip's mean, after tokens are brought to one scale: normalised
        by itself, a change would lose how large it is."""
        tokens = torch.where(keep[..., None], tokens, 0.0).to(self.missing_token.dtype)
        tokens = nn.functional.layer_norm(tokens, tokens.shape[-1:])
        change = CHANGE_GAIN * (tokens - mean_of_kept(tokens, keep)[:, None])
        change = torch.where(keep[..., None], change, 0.0)
        return torch.where(keep[..., None], self.change_projections[name](change), self.missing_token[index])


def time_features(
    seconds: Float[Tensor, "B T"], duration_seconds: Float[Tensor, "B"]
) -> Float[Tensor, "B T F"]:
    """When a token is, as float32: sines and cosines of seconds and of the fraction of the clip.

    Periods double from 0.5 s to 256 s, and from two clips to 1/16 clip (two slots at T = 32). In fp32 and
    outside autocast: in bfloat16 12.3 s and 12.35 s are one number.
    """
    with torch.autocast(seconds.device.type, enabled=False):
        seconds = seconds.float()
        # A clip of one frame may last no time at all.
        fraction = (seconds / duration_seconds.float().clamp_min(1e-3)[:, None]).clamp(0.0, 1.0)
        octaves = 2.0 ** torch.arange(NUM_SECONDS_BANDS, device=seconds.device)
        cycles = torch.cat(
            [seconds[..., None] / (0.5 * octaves), fraction[..., None] * 0.5 * octaves[:NUM_FRACTION_BANDS]], -1
        )
        angles = 2 * pi * cycles
        return torch.cat(
            [angles.sin(), angles.cos(), fraction[..., None], seconds.clamp_min(0.0).log1p()[..., None]], -1
        )
