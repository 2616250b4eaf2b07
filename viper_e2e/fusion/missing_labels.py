"""missing_labels.py: a ridge where labels are missing: each target on the clips that have it, joined."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from viper_e2e.fusion.closed_form import MIN_CLIPS, RidgeFit, moments

Fit = Callable[[Float[Tensor, "N F"], Float[Tensor, "N E"], Bool[Tensor, "N F"]], RidgeFit]


@torch.no_grad()
def fit_known(
    fit: Fit,
    features: Float[Tensor, "N F"],
    targets: Float[Tensor, "N E"],
    known: Bool[Tensor, "N F"],
    magnitudes: Float[Tensor, " F"] | None = None,
) -> RidgeFit:
    """``fit`` of the rows whose targets are known, for each group of targets that are known in the same rows.

    ``targets``: NaN where one is missing. Features are standardised as over all rows, which is what stands for
    an unknown feature too. A target known in fewer than `MIN_CLIPS` rows is predicted as its mean, or as 0.
    """
    has_label = targets.isfinite()
    if bool(has_label.all()):
        return fit(features, targets, known)
    means, scales, _ = moments(features.detach().cpu().double(), known.cpu(), magnitudes)
    num_features, num_outputs = features.shape[1], targets.shape[1]
    weights = torch.zeros(num_features, num_outputs, dtype=torch.float64)
    intercepts, penalties, errors = torch.zeros(3, num_outputs, dtype=torch.float64)
    groups: dict[bytes, list[int]] = {}
    for column, rows in enumerate(has_label.cpu().T):
        groups.setdefault(rows.numpy().tobytes(), []).append(column)
    for columns in groups.values():
        rows = has_label[:, columns[0]]
        if int(rows.sum()) < MIN_CLIPS:
            intercepts[columns] = targets[:, columns].double().nanmean(0).nan_to_num().cpu()
            continue
        own = fit(features[rows], targets[rows][:, columns], known[rows])
        # The same line in units of the features over all rows.
        slopes = own.weights / own.scales[:, None]
        weights[:, columns] = slopes * scales[:, None]
        intercepts[columns] = own.intercepts + (means - own.means) @ slopes
        penalties[columns], errors[columns] = own.penalties, own.loo_errors
    return RidgeFit(means, scales, weights, intercepts, penalties, errors)
