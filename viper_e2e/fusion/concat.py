"""concat.py: the published head: all modalities in the channels of one token, through a Perceiver."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import PerceiverConfig, PerceiverModel
from transformers.models.perceiver.modeling_perceiver import PerceiverClassificationDecoder

from viper_e2e.config import FusionConfig
from viper_e2e.encoders import Stream
from viper_e2e.fusion.head import FusionHead, check_heads, check_streams, to_intensities
from viper_e2e.fusion.scale import LabelScale


class ConcatFusion(FusionHead):
    """The published head: streams side by side in the channels of one token, transformers' Perceiver.

    No time features and no masks: the outputs do not depend on the order of tokens, an absent modality is
    zeros. So are slots not in use, of which `spreads_frames` leaves none.
    State names are those of the authors' released checkpoints under ``perceiver.``. Vaiani et al. 2022,
    "ViPER: Video-based Perceiver for Emotion Recognition"; Jaegle et al. 2021, "Perceiver IO".
    """

    spreads_frames = True

    def __init__(
        self,
        config: FusionConfig,
        widths: Mapping[str, int],
        num_outputs: int,
        sigmoid: bool,
        scale: LabelScale | None = None,
    ):
        super().__init__(config, widths, num_outputs, sigmoid, scale)
        check_heads(config, config.latent_dim, "num_latent_heads", "num_cross_heads")
        check_heads(config, sum(widths.values()), "num_cross_heads")
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
        check_streams(streams, self.modalities)
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
        return to_intensities(logits, self.sigmoid, self.rescale, self.scale)

    def compile_targets(self, device: torch.device) -> list[nn.Module]:
        return [self.perceiver.encoder]
