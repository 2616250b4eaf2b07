"""A ridge and clips unlike those it was fitted to: no number without bounds, nor by what never varied."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from viper_e2e.config import PRESETS, FusionConfig
from viper_e2e.encoders import Stream
from viper_e2e.fusion import RidgeFit, RidgeFusion, build_fusion, fit_banded_ridge, fit_known, fit_ridge
from viper_e2e.fusion.pooling import block_sizes, known_features, magnitudes, pool, pooled_rows

WIDTHS = {"audio": 24, "words": 16}
N, T = 30, 7
LOWEST, HIGHEST = 0.0, 10.0


def streams(*, varies: float, seed: int = 0) -> dict[str, Stream]:
    """Tokens of clips; those of one clip differ from one another by ``varies``."""
    made = torch.Generator().manual_seed(seed)
    slots, seconds = torch.ones(N, T, dtype=torch.bool), torch.linspace(0, 3, T).expand(N, T)
    tokens = {
        name: 3 * torch.randn(N, 1, width, generator=made) + varies * torch.randn(N, T, width, generator=made)
        for name, width in WIDTHS.items()
    }
    return {name: Stream(own, slots, slots, seconds) for name, own in tokens.items()}


def given() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.ones(N, T, dtype=torch.bool), torch.full((N,), 4.0)


def fitted(training: dict[str, Stream], *, banded: bool) -> RidgeFit:
    pooled = pool(training, *given())
    rows, known = pooled_rows(pooled), known_features(pooled)
    scale = magnitudes(rows, known, WIDTHS)
    spread = (rows - rows.mean(0)) / rows.std(0).clamp_min(1e-12)
    mixture = spread @ torch.randn(rows.shape[1], 3, generator=torch.Generator().manual_seed(2))
    targets = LOWEST + (HIGHEST - LOWEST) * torch.sigmoid(mixture / rows.shape[1] ** 0.5)
    if banded:
        fit = partial(fit_banded_ridge, block_sizes=block_sizes(WIDTHS), magnitudes=scale)
        return fit_known(lambda x, y, known: fit(x, y, known=known), rows, targets, known, scale)
    return fit_known(partial(fit_ridge, magnitudes=scale), rows, targets, known, scale)


def head(fit: RidgeFit, max_deviations: float | None) -> RidgeFusion:
    made = build_fusion(FusionConfig(kind="ridge", max_deviations=max_deviations), WIDTHS, 3, False)
    assert isinstance(made, RidgeFusion)
    made.linear.take(fit)
    return made.eval()


@pytest.mark.parametrize("banded", [False, True])
def test_what_rounding_leaves_of_tokens_that_are_alike_is_no_feature(banded):
    """Untimed words, or one second of sound for all instants: deviation and change are 1e-8 in training."""
    alike = fitted(streams(varies=0.0), banded=banded)
    pooled = pooled_rows(pool(streams(varies=0.0), *given()))
    sizes = block_sizes(WIDTHS)
    parts = alike.weights.split(sizes)
    means, deviations, changes = (torch.cat(parts[kind::3]) for kind in range(3))
    assert pooled.split(sizes, 1)[1].abs().max() > 0, "rounding leaves something"
    assert means.abs().max() > 0
    assert not deviations.any()
    assert not changes.any()
    # Without bounds on deviations, too.
    answers = head(alike, None)(streams(varies=1.0), *given())
    assert answers.min() > LOWEST - 10
    assert answers.max() < HIGHEST + 10


@pytest.mark.parametrize("banded", [False, True])
def test_a_clip_far_from_all_of_training_gets_no_number_without_bounds(banded):
    """Videos of still pictures vary by what a codec leaves; people do by a thousand times as much."""
    still = fitted(streams(varies=1e-3), banded=banded)
    moving = streams(varies=1.0)
    within = (HIGHEST - LOWEST) * 10
    assert head(still, None)(moving, *given()).abs().max() > within, "what bounds are for"
    assert head(still, PRESETS["tiny"]().fusion.max_deviations)(moving, *given()).abs().max() < within


def test_clips_of_training_are_not_cut_off():
    fit = fitted(streams(varies=1.0), banded=True)
    same, bounds = streams(varies=1.0), PRESETS["base"]().fusion.max_deviations
    assert torch.equal(head(fit, bounds)(same, *given()), head(fit, None)(same, *given()))
