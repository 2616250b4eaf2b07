"""prefix.py: encoders of which only the last blocks train: the frozen prefix before them runs once per clip."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from viper_e2e.config import Blocks
from viper_e2e.encoders.backbone import Backbone
from viper_e2e.encoders.base import Encoder, Encoders, Input
from viper_e2e.encoders.clip_view import ClipView
from viper_e2e.encoders.prepared import Prefix, TokenCache, WeightsId
from viper_e2e.encoders.weights import tensors_sha256
from viper_e2e.runtime import digest

CUTTABLE = frozenset(
    {
        *("vit", "deit", "dinov2", "dinov2_with_registers", "clip_vision_model", "siglip_vision_model"),
        *("wav2vec2", "hubert", "whisper"),
    }
)
"""transformers' families whose blocks hand on hidden states and nothing else. Others run whole in every pass:
WavLM's blocks share a bias, DINOv3's get positions."""


class PrefixEncoder(Encoder[Input]):
    """An encoder with one backbone, whose frozen prefix runs by itself while only its last blocks train.

    The prefix of a clip is cached as the tokens of a frozen encoder are.
    """

    backbone: Backbone

    @property
    def has_prefix(self) -> bool:
        """Whether its backbone trains, and is cut before its first trained block."""
        return first_trained(self.backbone) is not None

    @abstractmethod
    def encode_prefix(self, inputs: Input) -> Prefix:
        """The prefix of one clip, without gradient and by itself: it does not depend on the batch."""

    @abstractmethod
    def inputs_from_prefix(self, clip: ClipView, prefix: Prefix) -> Input:
        """Input of `forward` for a clip whose prefix is given."""

    def inputs_to_train(self, clip: ClipView, cache: TokenCache | None) -> Input:
        if not self.has_prefix:
            return self.inputs(clip)
        if clip.prepared is None or cache is None or clip.is_changed(self.name):
            prefix = self.encode_prefix(self.inputs(clip))
        else:
            made_by = self.prefix_id()
            prefix = cache.prefix(
                clip.prepared, self.name, made_by, lambda: self.encode_prefix(self.inputs(clip))
            )
        return self.inputs_from_prefix(clip, prefix)

    def prefix_id(self) -> WeightsId:
        """`weights_id` of the frozen prefix: equal as long as it stays as it is."""
        versions = sum(parameter._version for parameter in self._prefix_parameters().values())
        return self._owner(), self.backbone.num_stores, versions, first_trained(self.backbone)

    def prefix_content_id(self) -> str:
        """`content_id` of the frozen prefix."""
        kind, tensors = type(self), tensors_sha256(self._prefix_parameters())
        return digest([kind.__module__, kind.__qualname__, first_trained(self.backbone), tensors])

    def _prefix_parameters(self) -> dict[str, Tensor]:
        first, named = first_trained(self.backbone), dict(self.backbone.model.named_parameters())
        assert first is not None
        return {name: named[name] for name in self.backbone.names_before(first)}


def prefix_encoders(encoders: Encoders) -> dict[str, PrefixEncoder]:
    """Those that have a frozen prefix now, by modality."""
    return {
        name: encoder
        for name, encoder in encoders.items()
        if isinstance(encoder, PrefixEncoder) and encoder.has_prefix
    }


def first_trained(backbone: Backbone) -> int | None:
    """Index of the first block that trains; ``None`` where the backbone is not cut before it.

    Nothing in front of it trains, or changes from pass to pass. What is compiled keeps its whole.
    """
    is_compiled = getattr(backbone.model, "_compiled_call_impl", None) is not None
    if not isinstance(backbone.depth, Blocks) or is_compiled:
        return None
    kind = getattr(backbone.model.config, "model_type", "")
    return len(backbone.blocks()) - backbone.depth.number if kind in CUTTABLE else None


def run_prefix(
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


def run_from_prefix(
    backbone: Backbone,
    hidden: Float[Tensor, "N L D"],
    shortest: Float[Tensor, "1 ..."],
    layers: Sequence[int],
    **options: bool,
) -> tuple[Float[Tensor, "N L D"], list[Float[Tensor, "N L D"]]]:
    """Run the rest of the model: its output, and the hidden layers read after the cut, but for the last.

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
