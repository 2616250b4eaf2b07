"""fusion: token streams of all modalities -> intensities, by one of several heads."""

from __future__ import annotations

from collections.abc import Mapping

from viper_e2e.config.schema import MODALITIES, FusionConfig
from viper_e2e.fusion.concat import ConcatFusion
from viper_e2e.fusion.ensemble import EnsembleFusion
from viper_e2e.fusion.hidden_layer import HiddenLayerFusion
from viper_e2e.fusion.hiding import sample_hidden
from viper_e2e.fusion.outputs import rescaled
from viper_e2e.fusion.ridge import RidgeFusion
from viper_e2e.fusion.scale import LabelScale
from viper_e2e.fusion.tokens import TokenFusion, time_features

__all__ = [
    "ConcatFusion",
    "EnsembleFusion",
    "Fusion",
    "HiddenLayerFusion",
    "RidgeFusion",
    "TokenFusion",
    "build_fusion",
    "num_networks",
    "rescaled",
    "sample_hidden",
    "time_features",
]

Fusion = TokenFusion | ConcatFusion | RidgeFusion | EnsembleFusion


def build_fusion(
    config: FusionConfig,
    widths: Mapping[str, int],
    num_outputs: int,
    unit_interval: bool,
    scale: LabelScale | None = None,
) -> Fusion:
    """The fusion head that `config.kind` names.

    ``widths``: modality → `embed_dim`, in the order of `MODALITIES`. ``unit_interval``: all labels lie in
    [0, 1], which `output="auto"` answers with a sigmoid. ``scale``: from the head to other labels.
    Raises `ViperError` for sizes that do not fit together.
    """
    assert list(widths) == [m for m in MODALITIES if m in widths], list(widths)
    sigmoid = config.output == "sigmoid" or (config.output == "auto" and unit_interval)
    kinds = {"tokens": TokenFusion, "concat": ConcatFusion, "ridge": RidgeFusion, "ensemble": EnsembleFusion}
    return kinds[config.kind](config, widths, num_outputs, sigmoid, scale)


def num_networks(fusion: Fusion) -> int:
    """How many answer for themselves in training mode."""
    return len(fusion.networks) if isinstance(fusion, EnsembleFusion) else 1
