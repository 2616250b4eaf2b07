"""layers.py: choice of a backbone's hidden layers, and their sum into one token."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from viper_e2e.errors import ViperError


def layers_read(count: int, depth: int, name: str) -> tuple[int, ...]:
    """``count`` hidden layers, evenly spaced from the middle of ``depth`` blocks to the last; 1: the last.

    What a backbone was not trained to forget is in its middle: the last layer alone is rarely the best
    for another task (Yang et al. 2021, "SUPERB", §4). Raises `ViperError` where there are not so many.
    """
    if count == 1:
        return (depth,)
    first = depth // 2
    if count > depth - first + 1:
        raise ViperError(
            f"{name}: layers {count}; a backbone of {depth} blocks has at most {depth - first + 1} to read, "
            "from its middle to its end"
        )
    return tuple(first + (depth - first) * i // (count - 1) for i in range(count))


def means_of(
    states: Float[Tensor, "S D"], belongs: Bool[Tensor, "T S"]
) -> tuple[Float[Tensor, "T D"], Bool[Tensor, "T"]]:
    """The mean of the states that belong to each of T tokens, zeros where none does, and whether any does."""
    belongs = belongs.to(states.device)
    share = belongs.to(states.dtype)
    with torch.autocast(states.device.type, enabled=False):
        return share @ states / share.sum(1, keepdim=True).clamp_min(1.0), belongs.any(1)


def normalised(state: Float[Tensor, "N L D"]) -> Float[Tensor, "N L D"]:
    """A layer before the last one: mean 0 and deviation 1 over D, since each has its own scale."""
    return nn.functional.layer_norm(state.float(), state.shape[-1:])


def joined(
    last: Float[Tensor, "N L D"], hidden: Sequence[Tensor] | None, layers: Sequence[int]
) -> Float[Tensor, "N L K"]:
    """The layers side by side, K = D × their number, the last one (as the model ends) at the end.

    ``hidden``: transformers' ``hidden_states``; ``None`` where the last alone is read. Earlier layers, which
    lack the final norm, are `normalised`.
    """
    states = hidden or ()
    earlier = [normalised(states[i]) for i in layers[:-1]]
    return torch.cat([*(state.to(last.dtype) for state in earlier), last], -1) if earlier else last
