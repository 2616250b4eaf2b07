"""building.py: the fusion head that settings name."""

from __future__ import annotations

from collections.abc import Mapping

from viper_e2e.config import FusionConfig, in_order
from viper_e2e.fusion.ensemble import EnsembleFusion
from viper_e2e.fusion.head import FusionHead
from viper_e2e.fusion.members import MembersFusion
from viper_e2e.fusion.ridge import RidgeFusion
from viper_e2e.fusion.scale import LabelScale
from viper_e2e.fusion.tokens import TokenFusion

_KINDS: dict[str, type[FusionHead]] = {
    "tokens": TokenFusion,
    "ridge": RidgeFusion,
    "ensemble": EnsembleFusion,
}


def build_fusion(
    config: FusionConfig,
    widths: Mapping[str, int],
    num_outputs: int,
    unit_interval: bool,
    scale: LabelScale | None = None,
) -> FusionHead:
    """The fusion head that `config.kind` names.

    ``widths``: modality → `embed_dim`, in the order of `modalities.in_order`. ``unit_interval``: all labels lie
    in [0, 1], which `output="auto"` answers with a sigmoid. ``scale``: from the head to other labels.
    Raises `ViperError` for sizes that do not fit together.
    """
    assert tuple(widths) == in_order(tuple(widths)), list(widths)
    sigmoid = config.output == "sigmoid" or (config.output == "auto" and unit_interval)
    head = _head_class(config.kind)
    if config.members == 1:
        return head(config, widths, num_outputs, sigmoid, scale)
    return MembersFusion(head, config, widths, num_outputs, sigmoid, scale)


def _head_class(kind: str) -> type[FusionHead]:
    if kind == "concat":
        from viper_e2e.fusion.concat import ConcatFusion  # loads transformers

        return ConcatFusion
    return _KINDS[kind]
