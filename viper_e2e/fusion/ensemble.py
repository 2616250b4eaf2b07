"""ensemble.py: the default head: the mean of a ridge and a Perceiver, each of which learns the labels alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from viper_e2e.config import FusionConfig
from viper_e2e.fusion.outputs import check_streams, rescaled
from viper_e2e.fusion.ridge import RidgeFusion
from viper_e2e.fusion.tokens import TokenFusion
from viper_e2e.ridge import RidgeFit
from viper_e2e.scale import LabelScale
from viper_e2e.stream import Stream


class EnsembleFusion(nn.Module):
    """A ridge on what each modality's tokens come to, and a small Perceiver on the tokens themselves.

    They err differently: from few clips a ridge is the better one, a Perceiver sees when something happens
    and what belongs together. Trained as the ridge's residual it would learn nothing: with more features than
    clips a ridge leaves no residual on the clips it was fitted to. So in training mode the output is the
    Perceiver's own, and the ridge is fitted in closed form at the end of an epoch (`fit`); in evaluation mode
    it is the mean of both. Before the first fit the Perceiver answers alone.
    Hansen and Salamon 1990, "Neural Network Ensembles".
    """

    def __init__(self, config: FusionConfig, widths: Mapping[str, int], num_outputs: int, sigmoid: bool):
        super().__init__()
        self.modalities = tuple(widths)
        self.sigmoid, self.rescale = sigmoid, config.rescale
        own = replace(config, rescale=False)
        self.tokens = TokenFusion(own, widths, num_outputs, sigmoid)
        self.ridge = RidgeFusion(replace(own, output="linear"), widths, num_outputs, sigmoid=False)
        self.ridge.requires_grad_(False)
        self.register_buffer("is_fitted", torch.tensor(False))

    @property
    def scale(self) -> LabelScale | None:
        """Of the Perceiver; the ridge is fitted to the labels themselves."""
        return self.tokens.scale

    @scale.setter
    def scale(self, scale: LabelScale | None) -> None:
        self.tokens.scale = scale

    def fit(self, fit: RidgeFit) -> None:
        """Take over what was fitted to the pooled tokens of the training clips."""
        self.ridge.linear.take(fit)
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
        intensities = self.tokens(streams, face_found, duration_seconds, hidden)
        if not self.training:
            ridge = self.ridge(streams, face_found, duration_seconds, hidden).to(intensities.dtype)
            if self.sigmoid and self.scale is None:  # labels end at 0 and 1, a line does not
                ridge = ridge.clamp(0.0, 1.0)
            intensities = torch.where(self.is_fitted, (intensities + ridge) / 2, intensities)
        return rescaled(intensities) if self.rescale else intensities
