"""hidden_layer.py: the head with one hidden layer on a clip's pooled tokens."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from viper_e2e.config import FusionConfig
from viper_e2e.encoders import Stream
from viper_e2e.fusion.closed_form import RidgeFit
from viper_e2e.fusion.head import FusionHead, check_streams, to_intensities
from viper_e2e.fusion.pooling import known_features, num_features, pool, pooled_rows
from viper_e2e.fusion.scale import LabelScale

NUM_INPUTS_AT_FULL_RATE = 1_000
"""Under Adam each weight moves by the learning rate, so that of more inputs than these the layer would move
faster than the rest of the head: they are scaled down, and their weights start larger in turn.
Yang et al. 2022, "Tensor Programs V"."""
MAX_DEVIATIONS = 5.0
"""Standardised features are cut off there."""


class HiddenLayerFusion(FusionHead):
    """One hidden layer on the pooled features of `RidgeFusion`, with dropout before and after it.

    Features are standardised by what a ridge was fitted to (`take`); until then nothing but the mean of the
    labels is learned. What is absent or hidden is set to its training mean.
    """

    means: Tensor
    scales: Tensor
    is_fitted: Tensor

    def __init__(
        self,
        config: FusionConfig,
        widths: Mapping[str, int],
        num_outputs: int,
        sigmoid: bool,
        scale: LabelScale | None = None,
    ):
        super().__init__(config, widths, num_outputs, sigmoid, scale)
        size = num_features(widths)
        self.gain = min(1.0, NUM_INPUTS_AT_FULL_RATE / size)
        self.register_buffer("means", torch.zeros(size))
        self.register_buffer("scales", torch.ones(size))
        self.register_buffer("is_fitted", torch.tensor(False))
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.inner = nn.Linear(size, config.hidden_dim)
        self.outer = nn.Linear(config.hidden_dim, num_outputs)
        with torch.no_grad():
            self.inner.weight.div_(self.gain)

    @torch.no_grad()
    def take(self, fit: RidgeFit) -> None:
        """The scales of the features it was fitted to."""
        self.means.copy_(fit.means)
        self.scales.copy_(fit.scales)
        self.is_fitted.fill_(True)

    def forward(
        self,
        streams: dict[str, Stream],
        face_found: Bool[Tensor, "B T"],
        duration_seconds: Float[Tensor, "B"],
        hidden: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B E"]:
        """Intensities, float32 also under autocast. Arguments as for `TokenFusion`."""
        check_streams(streams, self.modalities)
        pooled = pool(streams, face_found, duration_seconds, hidden)
        rows, known = pooled_rows(pooled), known_features(pooled)
        with torch.autocast(rows.device.type, enabled=False):
            rows = (torch.where(known, rows, self.means).to(self.inner.weight.dtype) - self.means) / self.scales
            rows = torch.where(self.is_fitted, rows.clamp(-MAX_DEVIATIONS, MAX_DEVIATIONS), 0.0)
            inner = nn.functional.gelu(self.inner(self.gain * self.dropout(rows)))
            logits = self.outer(self.dropout(inner))
        return to_intensities(logits, self.sigmoid, self.rescale, self.scale)
