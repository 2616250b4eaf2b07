"""ridge.py: the head that is fitted in closed form, linear in a clip's pooled tokens."""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Bool, Float
from torch import Tensor

from viper_e2e.config import FusionConfig
from viper_e2e.encoders import Stream
from viper_e2e.errors import ViperError
from viper_e2e.fusion.closed_form import LinearPath
from viper_e2e.fusion.head import FusionHead, check_streams, rescaled
from viper_e2e.fusion.pooling import known_features, num_features, pool, pooled_rows
from viper_e2e.fusion.scale import LabelScale


class RidgeFusion(FusionHead):
    """Linear in each modality's tokens, pooled over a clip; fitted in closed form, never by steps.

    What is absent or hidden is set to its training mean. Outputs are in units of the labels, whatever their
    range, and are not clipped to it, but that a class comes as shares of 1.
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
        if config.output == "sigmoid":
            raise ViperError(
                "--model.fusion.output sigmoid: a ridge is linear; leave it out, or take another --head"
            )
        # It was fitted to the labels themselves: of the scale it is read which are probabilities.
        self.linear = LinearPath(num_features(widths), num_outputs, config.max_deviations)

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
        intensities = self.linear(pooled_rows(pooled), known_features(pooled))
        if self.scale is not None:
            intensities = self.scale.within(intensities)
        return rescaled(intensities) if self.rescale else intensities
