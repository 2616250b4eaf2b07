"""prefix.py: a backbone cut before its first trained block; the part before the cut runs once per clip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from viper_e2e.config import Blocks
from viper_e2e.encoders.backbone import Backbone
from viper_e2e.encoders.prepared import WeightsId

CUTTABLE = frozenset(
    {
        *("vit", "deit", "dinov2", "dinov2_with_registers", "clip_vision_model", "siglip_vision_model"),
        *("wav2vec2", "hubert", "whisper"),
    }
)
"""transformers' families whose blocks hand on hidden states and nothing else. Others run whole in every pass:
WavLM's blocks share a bias, DINOv3's get positions."""


class _Entrance(nn.Module):
    """Stands for the blocks that were run before: whatever comes in, their output is passed on."""

    def __init__(self, hidden: Tensor):
        super().__init__()
        self.hidden = hidden

    def forward(self, _: Tensor, *others: object, **more: object) -> Tensor:
        return self.hidden


class _Exit(nn.Module):
    """Stands for the blocks that are run later: what comes in is kept."""

    def forward(self, hidden: Tensor, *others: object, **more: object) -> Tensor:
        self.hidden = hidden
        return hidden


def first_trained(backbone: Backbone) -> int | None:
    """Index of the first block that trains; ``None`` where the backbone is not cut before it.

    Nothing in front of it trains, or changes from pass to pass. What is compiled keeps its whole.
    """
    is_compiled = getattr(backbone.model, "_compiled_call_impl", None) is not None
    if not isinstance(backbone.depth, Blocks) or is_compiled:
        return None
    kind = getattr(backbone.model.config, "model_type", "")
    return len(backbone.blocks()) - backbone.depth.number if kind in CUTTABLE else None


def prefix_names(backbone: Backbone) -> list[str]:
    """Parameters in front of the cut."""
    cut = first_trained(backbone)
    assert cut is not None
    return backbone.names_before(cut)


def run_before(
    backbone: Backbone, inputs: Float[Tensor, "N ..."], layers: Sequence[int], **options: bool
) -> tuple[Float[Tensor, "N L D"], list[Float[Tensor, "N L D"]]]:
    """Run the frozen prefix: input of the first trained block, and the hidden layers read before it.

    ``options``: of the model's own forward pass.
    """
    cut, blocks, leave = first_trained(backbone), backbone.blocks(), _Exit()
    assert cut is not None
    with (
        torch.no_grad(),
        _reading(blocks, [i for i in layers if i < cut]) as read,
        _row(backbone, [*blocks[:cut], leave]),
        backbone.computing(inputs.device),
    ):
        backbone.model(backbone.as_input(inputs), **options)
    return leave.hidden, read


def run_after(
    backbone: Backbone,
    hidden: Float[Tensor, "N L D"],
    shortest: Float[Tensor, "1 ..."],
    layers: Sequence[int],
    **options: bool,
) -> tuple[Float[Tensor, "N L D"], list[Float[Tensor, "N L D"]]]:
    """How the model ends, and those of the hidden layers read that come after the cut, but for the last.

    ``shortest``: the least input that the model takes. It passes through what comes before all blocks and
    is thrown away there; whatever the model does after its blocks is thus done to ``hidden``.
    """
    cut, blocks = first_trained(backbone), backbone.blocks()
    assert cut is not None
    with (
        _reading(blocks, [i for i in layers if cut < i < len(blocks)]) as read,
        _row(backbone, [_Entrance(hidden), *blocks[cut:]]),
        backbone.computing(hidden.device),
    ):
        output = backbone.model(backbone.as_input(shortest), **options)
    return output.last_hidden_state, ([hidden] if cut in layers else []) + read


@contextmanager
def _row(backbone: Backbone, modules: Sequence[nn.Module]) -> Iterator[None]:
    """The model goes through these in place of its blocks."""
    first = backbone.blocks()[0]
    holder, name, whole = next(
        (module, name, child)
        for module in backbone.model.modules()
        for name, child in module.named_children()
        if isinstance(child, nn.ModuleList) and len(child) and child[0] is first
    )
    holder._modules[name] = nn.ModuleList(modules)
    try:
        yield
    finally:
        holder._modules[name] = whole


@contextmanager
def _reading(blocks: Sequence[nn.Module], layers: Sequence[int]) -> Iterator[list[Tensor]]:
    """Collect the inputs of these blocks, in order, as they run."""
    read: list[Tensor] = []

    def keep(_: nn.Module, arguments: tuple[Any, ...]) -> None:
        read.append(arguments[0])

    hooks = [blocks[i].register_forward_pre_hook(keep) for i in layers]
    try:
        yield read
    finally:
        for hook in hooks:
            hook.remove()


def prefix_id(backbone: Backbone, owner: object) -> WeightsId:
    """As `Encoder.weights_id`, of what comes before the cut."""
    named = dict(backbone.model.named_parameters())
    versions = sum(named[name]._version for name in prefix_names(backbone))
    return owner, backbone.num_stores, versions, first_trained(backbone)
