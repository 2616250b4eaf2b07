"""fusion.py: token streams of all modalities -> intensities, through a Perceiver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import pi

import torch
from jaxtyping import Bool, Float
from perceiver_pytorch import Perceiver
from torch import Tensor, nn
from transformers import PerceiverConfig, PerceiverModel
from transformers.models.perceiver.modeling_perceiver import PerceiverClassificationDecoder

from .config import LOOKING, MODALITIES, FusionConfig
from .errors import ViperError
from .pooling import known_features, num_features, pool, pooled_rows
from .ridge import LinearPath
from .scale import LabelScale
from .stream import Stream

NUM_SECONDS_BANDS = 10
NUM_FRACTION_BANDS = 6
NUM_TIME_FEATURES = 2 * (NUM_SECONDS_BANDS + NUM_FRACTION_BANDS) + 2


def build_fusion(
    config: FusionConfig,
    widths: Mapping[str, int],
    num_outputs: int,
    unit_interval: bool,
    scale: LabelScale | None = None,
) -> TokenFusion | ConcatFusion | RidgeFusion:
    """The fusion head that `config.kind` names.

    ``widths``: modality → `embed_dim`, in the order of `MODALITIES`. ``unit_interval``: all labels lie in
    [0, 1], which `output="auto"` answers with a sigmoid. ``scale``: from the head to other labels.
    Raises `ViperError` for sizes that do not fit together.
    """
    assert list(widths) == [m for m in MODALITIES if m in widths], list(widths)
    sigmoid = config.output == "sigmoid" or (config.output == "auto" and unit_interval)
    kinds = {"tokens": TokenFusion, "concat": ConcatFusion, "ridge": RidgeFusion}
    fusion = kinds[config.kind](config, widths, num_outputs, sigmoid)
    fusion.scale = scale
    return fusion


class TokenFusion(nn.Module):
    """Each modality is a stream of tokens of its own; latents read whatever is there (perceiver-pytorch).

    A token is its projected content + its modality's embedding + its time. Where nothing was seen or heard
    the content is a learned missing token, so every clip of every combination takes the same path and every
    parameter gets a gradient (zero where it had no part) in every step: DDP needs no search for unused ones.
    Jaegle et al. 2021, "Perceiver: General Perception with Iterative Attention".
    """

    def __init__(self, config: FusionConfig, widths: Mapping[str, int], num_outputs: int, sigmoid: bool):
        super().__init__()
        _check_heads(config, config.latent_dim, "num_cross_heads", "num_latent_heads")
        self.modalities = tuple(widths)
        self.sigmoid, self.rescale = sigmoid, config.rescale
        self.scale: LabelScale | None = None
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
        # Only where some modality looks at a face; else it would be a parameter without a gradient.
        if any(name in LOOKING for name in widths):
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
        _check_streams(streams, self.modalities)
        tokens, used = [], []
        for index, (name, stream) in enumerate(streams.items()):
            keep = stream.present & stream.used
            if hidden is not None:
                keep = keep & ~hidden[:, index, None]
            content = self._content(name, index, stream.tokens, keep)
            if name in LOOKING:
                # Only beside a kept token: a hidden modality must not tell whether there was a face.
                no_face = (keep & ~face_found)[..., None]
                content = content + torch.where(no_face, self.no_face_embedding, 0.0)
            times = time_features(stream.seconds, duration_seconds).to(content.dtype)
            content = content + self.modality_embedding[index] + self.time(times)
            # A masked token still passes through LayerNorm and matrix products: zeros, never garbage.
            tokens.append(torch.where(stream.used[..., None], content, 0.0))
            used.append(stream.used)
        latents = self.perceiver(torch.cat(tokens, 1), mask=torch.cat(used, 1), return_embeddings=True)
        with torch.autocast(latents.device.type, enabled=False):
            logits = self.perceiver.to_logits(latents.to(self.missing_token.dtype))
        return _output(logits, self.sigmoid, self.rescale, self.scale)

    def _content(
        self, name: str, index: int, tokens: Float[Tensor, "B T D"], keep: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B T F"]:
        # Selecting after the projection alone would let a NaN in an unread slot reach the weights' gradient.
        tokens = torch.where(keep[..., None], tokens, 0.0).to(self.missing_token.dtype)
        return torch.where(keep[..., None], self.projections[name](tokens), self.missing_token[index])


class ConcatFusion(nn.Module):
    """The published head: streams side by side in the channels of one token, transformers' Perceiver.

    No time features and no masks: the outputs do not depend on the order of tokens, an absent modality is
    zeros. So are slots not in use; `model.py` leaves none, it spreads a short clip's frames over all slots.
    State names are those of the authors' released checkpoints under ``perceiver.``. Vaiani et al. 2022,
    "ViPER: Video-based Perceiver for Emotion Recognition"; Jaegle et al. 2021, "Perceiver IO".
    """

    def __init__(self, config: FusionConfig, widths: Mapping[str, int], num_outputs: int, sigmoid: bool):
        super().__init__()
        _check_heads(config, config.latent_dim, "num_latent_heads", "num_cross_heads")
        _check_heads(config, sum(widths.values()), "num_cross_heads")
        self.modalities = tuple(widths)
        self.sigmoid, self.rescale = sigmoid, config.rescale
        self.scale: LabelScale | None = None
        sizes = PerceiverConfig(
            d_model=sum(widths.values()),
            num_latents=config.num_latents,
            d_latents=config.latent_dim,
            num_blocks=config.depth,
            num_self_attends_per_block=config.self_attends_per_block,
            num_self_attention_heads=config.num_latent_heads,
            num_cross_attention_heads=config.num_cross_heads,
            attention_probs_dropout_prob=config.dropout,
            num_labels=num_outputs,
        )
        decoder = PerceiverClassificationDecoder(
            sizes,
            num_channels=config.latent_dim,
            trainable_position_encoding_kwargs={"num_channels": config.latent_dim, "index_dims": 1},
            use_query_residual=True,
        )
        self.perceiver = PerceiverModel(sizes, decoder=decoder)

    def forward(
        self,
        streams: dict[str, Stream],
        face_found: Bool[Tensor, "B T"],
        duration_seconds: Float[Tensor, "B"],
        hidden: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B E"]:
        """Intensities, float32 also under autocast. Arguments as for `TokenFusion`; the published head knows
        neither times nor whether a face was found, so `face_found` and `duration_seconds` are not read."""
        _check_streams(streams, self.modalities)
        channels = []
        for index, stream in enumerate(streams.values()):
            keep = stream.present & stream.used
            if hidden is not None:
                keep = keep & ~hidden[:, index, None]
            channels.append(torch.where(keep[..., None], stream.tokens, 0.0))
        latents = self.perceiver.embeddings.latents
        inputs = torch.cat(channels, -1).to(latents.dtype)
        latents = self.perceiver.encoder(
            self.perceiver.embeddings(batch_size=len(inputs)), inputs=inputs
        ).last_hidden_state
        # Encoder and decoder are called apart so that the decoder can stay out of autocast.
        with torch.autocast(latents.device.type, enabled=False):
            decoder, latents = self.perceiver.decoder, latents.to(inputs.dtype)
            logits = decoder(decoder.decoder_query(inputs), latents).logits
        return _output(logits, self.sigmoid, self.rescale, self.scale)


class RidgeFusion(nn.Module):
    """Linear in what each modality's tokens come to over a clip; fitted in closed form, never by steps.

    What is absent or hidden stands at its training mean. Outputs are in units of the labels, whatever their
    range, and are not clipped to it.
    """

    def __init__(self, config: FusionConfig, widths: Mapping[str, int], num_outputs: int, sigmoid: bool):
        super().__init__()
        if config.output == "sigmoid":
            raise ViperError(
                "--model.fusion.output sigmoid: a ridge is linear; leave it out, or take another --head"
            )
        self.modalities = tuple(widths)
        self.rescale = config.rescale
        self.scale: LabelScale | None = None
        """Not read: it was fitted to the labels themselves."""
        self.linear = LinearPath(num_features(widths), num_outputs)

    def forward(
        self,
        streams: dict[str, Stream],
        face_found: Bool[Tensor, "B T"],
        duration_seconds: Float[Tensor, "B"],
        hidden: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B E"]:
        """Intensities, float32 also under autocast. Arguments as for `TokenFusion`."""
        _check_streams(streams, self.modalities)
        pooled = pool(streams, face_found, duration_seconds, hidden)
        intensities = self.linear(pooled_rows(pooled), known_features(pooled))
        return rescaled(intensities) if self.rescale else intensities


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


def sample_hidden(present: Bool[Tensor, "B M"], p: float, seeds: Sequence[int]) -> Bool[Tensor, "B M"]:
    """Modality dropout: which present modalities to hide from each clip, each with probability ``p``.

    One seed per clip and nothing else decides, so a clip's draw does not depend on its batch, process or
    worker. If all that is present would go, the one with the highest draw stays.
    """
    assert len(seeds) == len(present), (len(seeds), len(present))
    num_modalities = present.shape[1]
    draws = torch.stack(
        [torch.rand(num_modalities, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    ).to(present.device)
    # The highest draw among the present is the last to be hidden, so sparing it only matters when all go.
    spared = torch.where(present, draws, -1.0).argmax(1, keepdim=True)
    return ((draws < p) & present).scatter(1, spared, False)


def _output(
    logits: Float[Tensor, "B E"], sigmoid: bool, rescale: bool, scale: LabelScale | None
) -> Float[Tensor, "B E"]:
    # float64 stays: gradients are checked numerically in it.
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    intensities = logits.sigmoid() if sigmoid else logits
    if scale is not None:
        intensities = scale.to_labels(logits, intensities)
    return rescaled(intensities) if rescale else intensities


def rescaled(intensities: Float[Tensor, "B E"]) -> Float[Tensor, "B E"]:
    """Each row divided by its maximum, a constant to the gradient (published option); one ≤ 0 leaves it."""
    top = intensities.detach().amax(dim=1, keepdim=True)
    return intensities / torch.where(top > 0, top, torch.ones_like(top))


def _check_streams(streams: dict[str, Stream], modalities: tuple[str, ...]) -> None:
    assert tuple(streams) == modalities, (tuple(streams), modalities)


def _check_heads(config: FusionConfig, width: int, *names: str) -> None:
    for name in names:
        heads = getattr(config, name)
        if heads < 1 or width % heads:
            raise ViperError(
                f"fusion.{name}={heads} does not divide the width {width} it splits: choose a divisor"
            )
