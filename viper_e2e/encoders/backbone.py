"""backbone.py: one pretrained network: which of its blocks train, its dtype, where its weights came from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from viper_e2e.config import All, BackboneConfig, Blocks, Depth, Frozen, LoRA
from viper_e2e.encoders.lora import add_adapters, is_adapter
from viper_e2e.errors import ViperError


@dataclass(frozen=True)
class Origin:
    """Origin of a backbone's weights."""

    spec: str
    revision: str | None = None
    tensors_sha256: str | None = None
    """``None``: random, or bundled with the checkpoint: nothing outside could replace these weights."""
    small_files: dict[str, bytes] = field(default_factory=dict)
    """Config, preprocessor and tokenizer, to be copied into a checkpoint."""


class DepthGroup(NamedTuple):
    """Trainable parameters at one depth, for layer-wise learning-rate decay."""

    backbone: str
    part: str
    """``stem``, ``block 1`` … ``block n``, ``top`` (what follows the last block), or ``LoRA block 1`` …"""
    layers_from_top: int
    """0 for the top, 1 for the last block, … n + 1 for the stem: the exponent of the decay."""
    parameters: list[nn.Parameter]


def contains_any(*words: str) -> Callable[[str], bool]:
    """A judge of parameter names: does one contain one of ``words``?"""
    return lambda name: any(word in name for word in words)


_no_name = contains_any()


class Backbone(nn.Module):
    """One pretrained network: its blocks, which of them train, and the dtype it computes in.

    Frozen means: eval mode from birth, no gradient, stored in the compute dtype. What is trained is kept in
    float32 and runs under autocast; so is everything after the first trained block. LoRA adapters are float32
    too; the weights they stand beside stay stored and computed as frozen ones are.
    """

    def __init__(
        self,
        name: str,
        model: nn.Module,
        origin: Origin,
        config: BackboneConfig,
        *,
        blocks: Sequence[nn.Module],
        top: Callable[[str], bool] = _no_name,
        idle: Callable[[str], bool] = _no_name,
        never_trains: str | None = None,
    ):
        """``config``: whether it has adapters. ``blocks`` first to last. ``top`` and ``idle`` judge parameter
        names: what follows the last block although it is registered earlier, and what no forward pass reads
        (never trained). ``never_trains``: why it can only be frozen, for the message."""
        super().__init__()
        if config.lora_rank:
            add_adapters(name, model, blocks, config)
        self.name = name
        # Of transformers or open_clip: what it has, `config` and layers, differs from family to family.
        self.model: Any = model
        self.origin = origin
        self.depth: Depth = Frozen()
        self.compute_dtype: torch.dtype | None = None
        self._blocks = tuple(blocks)
        self._has_adapters = bool(config.lora_rank)
        self._never_trains = never_trains
        self._was_trained = False
        self._first_later = math.inf
        self.num_stores = 0
        """How often weights were stored in another dtype, which may round them."""
        self._exact: dict[str, Tensor] = {}
        """Weights that are stored rounded now and trained later, in full precision, on the CPU."""
        self._part = self._parts(top, idle)
        self.set_training_depth(self.least_depth)

    def blocks(self) -> tuple[nn.Module, ...]:
        """Transformer blocks, first to last: what ``depth`` counts."""
        return self._blocks

    def _parts(self, top: Callable[[str], bool], idle: Callable[[str], bool]) -> dict[str, int | None]:
        """Parameter name → 0 stem, 1 … n blocks, n + 1 top, ``None`` idle."""
        block_of = {id(p): i for i, block in enumerate(self._blocks, 1) for p in block.parameters()}
        parts: dict[str, int | None] = {}
        seen_blocks = False
        for name, parameter in self.model.named_parameters():
            if idle(name):
                parts[name] = None
            elif id(parameter) in block_of:
                parts[name], seen_blocks = block_of[id(parameter)], True
            else:
                follows = seen_blocks or top(name)
                parts[name] = len(self._blocks) + 1 if follows else 0
        return parts

    def names_before(self, block: int) -> list[str]:
        """Parameters that stand in front of this block (counted from 0): the stem's, and earlier blocks'."""
        return [name for name, part in self._part.items() if part is not None and part <= block]

    # --- training depth and dtype ---------------------------------------------------------------

    @property
    def is_frozen(self) -> bool:
        return self.depth == Frozen()

    @property
    def least_depth(self) -> Frozen | LoRA:
        """Default training depth: adapters, if there are any."""
        return LoRA() if self._has_adapters else Frozen()

    def set_training_depth(self, depth: Depth) -> None:
        """Train this much from here on; `ViperError` where it has not so many blocks, or has adapters, beside
        which nothing else can train."""
        self._check(depth)
        self.depth = depth
        self._was_trained |= not self._keeps_weights
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(self._is_trained(name))
        self._store()
        self.train(self.training)

    @contextmanager
    def trying_depth(self, depth: Depth) -> Iterator[None]:
        """`set_training_depth`, undone afterwards: to measure what it would take."""
        before, was_trained, num_stores = self.depth, self._was_trained, self.num_stores
        self.set_training_depth(depth)
        try:
            yield
        finally:
            self.set_training_depth(before)
            # What was widened has been rounded to what it was.
            self._was_trained, self.num_stores = was_trained, num_stores

    def expect_training_depth(self, depth: Depth) -> None:
        """Say, before weights are rounded to the compute dtype, that a later phase trains to ``depth``: it will
        begin with what the backbone came with, not with what rounding has left."""
        self._check(depth)
        if isinstance(depth, Frozen | LoRA):
            return
        first = len(self._blocks) + 1 - depth.number if isinstance(depth, Blocks) else 0
        self._first_later = min(first, self._first_later)

    @property
    def _keeps_weights(self) -> bool:
        """Nothing that came with the backbone is trained, at most what was added beside it."""
        return isinstance(self.depth, Frozen | LoRA)

    def _is_trained(self, name: str) -> bool:
        part, number = self._part[name], len(self._blocks)
        if is_adapter(name):
            return isinstance(self.depth, LoRA)
        if self._keeps_weights or part is None:
            return False
        return not isinstance(self.depth, Blocks) or number - self.depth.number < part <= number

    def _check(self, depth: Depth) -> None:
        number = len(self._blocks)
        if depth != Frozen() and self._never_trains is not None:
            raise ViperError(f"{self.name}: {self._never_trains}")
        if isinstance(depth, LoRA) and not self._has_adapters:
            raise ViperError(f"{self.name}: has no LoRA adapters that could train; add --lora {self.name}=8")
        if self._has_adapters and not isinstance(depth, Frozen | LoRA):
            raise ViperError(
                f"{self.name}: has LoRA adapters, which train beside frozen weights, so it cannot train "
                f"'{depth}' as well; leave out --lora, or what unfreezes {self.name}: --unfreeze, "
                f"--unfreeze-at, or the preset (add --freeze {self.name})"
            )
        if isinstance(depth, Blocks) and depth.number > number:
            raise ViperError(
                f"{self.name}: cannot train '{depth}' of {self.origin.spec}; allowed: none, all, "
                + (f"or the last 1 to {number} blocks" if number else "since it has no row of blocks to count")
            )

    def to_compute_dtype(self, dtype: torch.dtype) -> None:
        """Frozen weights are stored in ``dtype``; trained ones stay float32 and run under autocast to it."""
        self.compute_dtype = dtype
        self._store()

    def _store(self) -> None:
        named = self.model.named_parameters
        first_trained = min(
            (
                part
                for name, parameter in named()
                if parameter.requires_grad and not is_adapter(name)
                if (part := self._part[name]) is not None
            ),
            default=None,
        )
        for name, parameter in named():
            part = self._part[name]
            # A trained block hands float32 on to what follows, so that stays float32 too. Scalars (CLIP's logit
            # scale) lose what matters in half precision and weigh nothing.
            behind = first_trained is not None and part is not None and part >= first_trained
            if behind or is_adapter(name) or parameter.ndim == 0:
                if parameter.dtype.itemsize < 4:
                    self.num_stores += 1
                    exact = self._exact.pop(name, parameter.data)
                    parameter.data = exact.to(parameter.device, torch.float32)
            elif self.compute_dtype is not None and parameter.is_floating_point():
                self.num_stores += parameter.dtype != self.compute_dtype
                is_rounded = self.compute_dtype.itemsize < parameter.dtype.itemsize
                if is_rounded and part is not None and part >= self._first_later:
                    self._exact[name] = parameter.data.cpu()
                parameter.data = parameter.data.to(self.compute_dtype)

    def train(self, mode: bool = True) -> Backbone:
        """Only what is trained, or has adapters that are, enters training mode (dropout); the rest stays in
        eval."""
        super().train(False)
        self.training = mode
        if self.depth == All():
            self.model.train(mode)
        elif not self.is_frozen:
            last = self.depth.number if isinstance(self.depth, Blocks) else len(self._blocks)
            for block in self._blocks[-last:]:
                block.train(mode)
        return self

    @contextmanager
    def computing(self, device: torch.device) -> Iterator[None]:
        """The autocast state this backbone runs in; an unset compute dtype leaves the caller's as it is."""
        context: AbstractContextManager[object]
        if self.compute_dtype is None:
            context = nullcontext()
        elif self._keeps_weights or self.compute_dtype == torch.float32:
            context = torch.autocast(device.type, enabled=False)
        else:
            context = torch.autocast(device.type, dtype=self.compute_dtype)
        with context:
            yield

    @contextmanager
    def computing_exactly(self, device: torch.device, reads: Callable[[str], bool]) -> Iterator[None]:
        """float32 arithmetic on the weights as they are stored, rounded or not; without gradient.

        ``reads``: the names of the parameters that will be read.
        """
        named = self.model.named_parameters()
        rounded = {p: p.data for name, p in named if p.dtype.itemsize < 4 and reads(name)}
        for parameter, stored in rounded.items():
            parameter.data = stored.float()
        try:
            with torch.autocast(device.type, enabled=False):
                yield
        finally:
            for parameter, stored in rounded.items():
                parameter.data = stored

    def as_input(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """``x`` in the dtype of the first weights."""
        return x.to(next(self.model.parameters()).dtype)

    # --- what others ask ------------------------------------------------------------------------

    def depth_groups(self) -> list[DepthGroup]:
        """Trainable parameters, stem first; parts without any are left out."""
        top = len(self._blocks) + 1
        names = ["stem", *(f"block {i}" for i in range(1, top)), "top"]
        groups: dict[int, list[nn.Parameter]] = {}
        for name, parameter in self.model.named_parameters():
            part = self._part[name]
            if parameter.requires_grad and part is not None:
                groups.setdefault(part, []).append(parameter)
        if isinstance(self.depth, LoRA):
            names = [f"LoRA {name}" for name in names]
        return [DepthGroup(self.name, names[part], top - part, groups[part]) for part in sorted(groups)]

    def record(self) -> dict[str, Any] | None:
        """``{"spec", "revision", "tensors_sha256"}`` if the files it came from still are what it is, adapters
        aside."""
        if self.origin.tensors_sha256 is None or self._was_trained:
            return None
        keys = ("spec", "revision", "tensors_sha256")
        return {key: getattr(self.origin, key) for key in keys}


def at_least_float32(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Tokens leave an encoder in float32 (float64 in a double-precision model)."""
    return x.float() if x.dtype.itemsize < 4 else x
