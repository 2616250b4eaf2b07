"""fusions.py: streams of random tokens, and fusion heads for them."""

from __future__ import annotations

import torch
from torch import Tensor

from viper_e2e.config import FusionConfig
from viper_e2e.config.modalities import MODALITIES
from viper_e2e.encoders import Stream
from viper_e2e.fusion import (
    EnsembleFusion,
    build_fusion,
)
from viper_e2e.fusion.closed_form import fit_ridge
from viper_e2e.fusion.pooling import known_features, pool, pooled_rows

WIDTHS = {"visual": 12, "audio": 8, "textual": 16, "action_units": 4, "motion": 8}
B, T, E = 3, 6, 7


def config(kind: str = "tokens", **changes) -> FusionConfig:
    sizes = {"dim": 16, "num_latents": 4, "latent_dim": 16, "depth": 2, "self_attends_per_block": 1}
    heads = {"num_cross_heads": 2, "num_latent_heads": 2, "dropout": 0.0}
    return FusionConfig(kind=kind, **{**sizes, **heads, **changes})


def fusion(kind: str = "tokens", widths=WIDTHS, unit_interval: bool = True, **changes):
    torch.manual_seed(0)
    kind, changes = ("tokens", {**changes, "change": True}) if kind == "change" else (kind, changes)
    head = build_fusion(config(kind, **changes), widths, E, unit_interval).eval()
    if isinstance(head, EnsembleFusion):
        head.fit(some_fit(widths))
    return head


def some_fit(widths=WIDTHS):
    """Of a ridge, to four batches of `streams` and made-up labels."""
    batches = [{n: stream(w, 10 * b + i) for i, (n, w) in enumerate(widths.items())} for b in range(1, 5)]
    pooled = [pool(batch, face(), SECONDS) for batch in batches]
    features, known = (torch.cat([f(p) for p in pooled]) for f in (pooled_rows, known_features))
    return fit_ridge(features, torch.rand(len(features), E, generator=torch.Generator().manual_seed(1)), known)


def stream(width: int, seed: int = 0, present: bool = True) -> Stream:
    generator = torch.Generator().manual_seed(seed)
    return Stream(
        torch.randn(B, T, width, generator=generator) if present else torch.zeros(B, T, width),
        torch.full((B, T), present),
        torch.ones(B, T, dtype=torch.bool),
        torch.linspace(0, 2, T).expand(B, T),
    )


def streams(present=MODALITIES, widths=WIDTHS) -> dict[str, Stream]:
    return {name: stream(width, i, name in present) for i, (name, width) in enumerate(widths.items())}


def face(found: bool = True) -> Tensor:
    return torch.full((B, T), found)


SECONDS = torch.tensor([2.0, 2.0, 2.0])
