"""ensemble.py: the default head: a ridge and networks, each of which learns the labels alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from viper_e2e.config import FusionConfig
from viper_e2e.encoders import Stream
from viper_e2e.fusion.closed_form import RidgeFit
from viper_e2e.fusion.head import FusionHead, check_streams, rescaled
from viper_e2e.fusion.hidden_layer import HiddenLayerFusion
from viper_e2e.fusion.ridge import RidgeFusion
from viper_e2e.fusion.scale import LabelScale
from viper_e2e.fusion.tokens import TokenFusion

RIDGE_SHARE = 0.5
"""Weight of the ridge in the answer; networks share the rest evenly. From few clips a ridge is steadier."""


class EnsembleFusion(FusionHead):
    """A ridge and a hidden layer on each modality's pooled tokens, a small Perceiver on the tokens.

    They err differently: from few clips a ridge is the best of them, a Perceiver sees when something happens
    and what belongs together. Trained as the ridge's residual they would learn nothing: with more features
    than clips a ridge leaves no residual on the clips it was fitted to. So in training mode each network
    answers for itself, to be taught alone, and the ridge is fitted in closed form at the end of an epoch
    (`fit`); in evaluation mode there is one answer, their weighted mean. Before the first fit the networks
    answer without the ridge. ``hidden_dim`` 0: the Perceiver is the only network.
    Hansen and Salamon 1990, "Neural Network Ensembles".
    """

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
        # The scale is that of the networks; the ridge is fitted to the labels themselves.
        own = replace(config, rescale=False)
        self.tokens = TokenFusion(own, widths, num_outputs, sigmoid, scale)
        self.hidden_layer = (
            HiddenLayerFusion(own, widths, num_outputs, sigmoid, scale) if config.hidden_dim > 0 else None
        )
        self.ridge = RidgeFusion(replace(own, output="linear"), widths, num_outputs, sigmoid=False)
        self.ridge.requires_grad_(False)
        self.register_buffer("is_fitted", torch.tensor(False))

    @property
    def networks(self) -> list[FusionHead]:
        """The networks: the heads that learn by steps."""
        return [self.tokens] if self.hidden_layer is None else [self.tokens, self.hidden_layer]

    @property
    def num_networks(self) -> int:
        return len(self.networks)

    def compile_targets(self, device: torch.device) -> list[nn.Module]:
        return self.tokens.compile_targets(device)

    def fit(self, fit: RidgeFit) -> None:
        """Take over what was fitted to the pooled tokens of the training clips."""
        self.ridge.linear.take(fit)
        if self.hidden_layer is not None:
            self.hidden_layer.take(fit)
        self.is_fitted.fill_(True)

    def forward(
        self,
        streams: dict[str, Stream],
        face_found: Bool[Tensor, "B T"],
        duration_seconds: Float[Tensor, "B"],
        hidden: Bool[Tensor, "B M"] | None = None,
    ) -> Float[Tensor, "B *K E"]:
        """Intensities, float32 also under autocast; in training mode those of each of K networks.

        Arguments as for `TokenFusion`.
        """
        check_streams(streams, self.modalities)
        arguments = streams, face_found, duration_seconds, hidden
        answers = torch.stack([network(*arguments) for network in self.networks], 1)
        if not self.training:
            answers = self._joined(answers.mean(1), self.ridge(*arguments))
        return rescaled(answers) if self.rescale else answers

    def _joined(self, networks: Float[Tensor, "B E"], ridge: Float[Tensor, "B E"]) -> Float[Tensor, "B E"]:
        ridge = ridge.to(networks.dtype)
        if self.scale is not None:
            ridge = self.scale.within(ridge)
        elif self.sigmoid:  # labels end at 0 and 1, a line does not
            ridge = ridge.clamp(0.0, 1.0)
        return torch.where(self.is_fitted, RIDGE_SHARE * ridge + (1 - RIDGE_SHARE) * networks, networks)
