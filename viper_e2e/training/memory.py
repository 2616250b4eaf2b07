"""memory.py: device memory that a training step needs, measured on one clip beforehand."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from rich.table import Table

from viper_e2e.config import Blocks, Frozen, LoRA, TrainConfig
from viper_e2e.encoders import Backbone, PreparedClip, TokenCache, checkpoint_activations, is_checkpointing
from viper_e2e.errors import ViperError
from viper_e2e.model import ViPER, in_mode
from viper_e2e.runtime import table

GIGABYTE = 1000**3


@dataclass(frozen=True)
class Needs:
    """Bytes on the device. Sums are lower bounds: what the backward pass needs for moments is not in them."""

    weights: int
    gradients: int
    optimizer: int
    """AdamW keeps two numbers per trained weight."""
    per_step: int
    """Kept for the backward pass whatever the number of clips: weights in half precision, the sentence bank."""
    per_clip: int
    """Kept for the backward pass, and the clip itself."""
    average: int = 0
    """``--ema-decay`` keeps one number more."""
    cached: int = 0
    """``--reuse-memory``: reported, but no reason to refuse, since a small corpus takes only a part of it."""

    def beyond_weights(self, batch_size: int) -> int:
        """Bytes still to be allocated once the weights are."""
        fixed = self.gradients + self.optimizer + self.average + self.per_step
        return fixed + batch_size * self.per_clip

    def largest_batch(self, free: int) -> int:
        """Clips of a micro-batch that fit into ``free`` bytes beside the weights; 0: not even one."""
        return max(0, (free - self.beyond_weights(0)) // max(1, self.per_clip))


def measure(
    module: ViPER,
    clip: PreparedClip,
    *,
    cache: TokenCache | None = None,
    copies: int = 1,
    averaged: bool = False,
    cached: int = 0,
) -> Needs:
    """Run the forward pass on one and on two copies of a clip, and count what is kept for the backward pass.

    Nothing is compiled for it: compiled, a model keeps no more, and what is tried here is never run again.
    ``cache``: where frozen encoders leave what they make of the clip: they run once, and not again in the step.
    ``copies``: of all gradients; 2 where processes exchange them through buffers of their own. ``averaged``:
    whether a moving average of the weights is kept. ``cached``: bytes for clips kept between epochs.
    """
    clip_bytes = clip.nbytes
    with in_mode(module, training=True), torch.compiler.set_stance("force_eager"):
        cache = TokenCache() if cache is None else cache
        one, two = (kept_bytes(module, [clip] * count, cache) for count in (1, 2))
    trained = sum(p.nbytes for p in module.parameters() if p.requires_grad)
    return Needs(
        weights=sum(t.nbytes for t in [*module.parameters(), *module.buffers()]),
        gradients=copies * trained,
        optimizer=2 * trained,
        per_step=max(0, 2 * one - two),
        per_clip=two - one + clip_bytes,
        average=trained if averaged else 0,
        cached=cached,
    )


def kept_bytes(module: ViPER, clips: Sequence[PreparedClip], cache: TokenCache | None = None) -> int:
    """Bytes of the distinct storages that autograd keeps, without the weights."""
    weights = {t.untyped_storage().data_ptr() for t in [*module.parameters(), *module.buffers()]}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with (
        torch.random.fork_rng(),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        output = module(clips, cache=cache)
        # The graph must live until here: storages that are freed in between share an address.
        assert output.intensities.requires_grad
        return sum(kept.values())


def moments_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes that the optimizer keeps by now: none before its first step, all of them in a resumed run."""
    values = (value for state in optimizer.state.values() for value in state.values())
    return sum(value.nbytes for value in values if isinstance(value, torch.Tensor))


# --- the verdict ----------------------------------------------------------------------------------


def needs_table(needs: Needs, batch_size: int, free: int) -> Table:
    """Table of the memory of a step."""
    rows = [
        ("weights", needs.weights),
        ("gradients", needs.gradients),
        ("optimizer", needs.optimizer),
        *([("average of the weights", needs.average)] if needs.average else []),
        (f"activations and clips ({batch_size} at a time)", needs.per_step + batch_size * needs.per_clip),
        ("at least, in all", needs.weights + needs.beyond_weights(batch_size)),
        *([("clips cached in memory, up to", needs.cached)] if needs.cached else []),
        ("the device has", needs.weights + free),
    ]
    return table("memory of a step", ("", "GB"), [(name, f"{size / GIGABYTE:.3f}") for name, size in rows])


def check_fits(
    module: ViPER,
    needs: Needs,
    clip: PreparedClip,
    free: int,
    config: TrainConfig,
) -> None:
    """`ViperError` that names settings which would fit, where the device has too little memory.

    The model is of no further use then: to be sure of what it proposes, this changes what is trained.
    """
    wanted = needs.beyond_weights(config.batch_size)
    if wanted <= free:
        return
    message = (
        f"training needs at least {(needs.weights + wanted) / GIGABYTE:.1f} GB, the device has "
        f"{(needs.weights + free) / GIGABYTE:.1f} GB"
    )
    for settings, smaller in _smaller(module, needs, clip):
        batch = min(smaller.largest_batch(free), config.batch_size)
        if batch:
            more = math.ceil(config.batch_size * config.accumulation / batch)
            fitting = [*settings, f"--batch-size {batch}", f"--accumulation {more}"]
            raise ViperError(f"{message}; would fit: {' '.join(fitting)}")
    raise ViperError(
        f"{message}; even the frozen model does not fit: choose smaller backbones or another device"
    )


def _smaller(module: ViPER, needs: Needs, clip: PreparedClip) -> Iterator[tuple[list[str], Needs]]:
    """Ever smaller trainings, each with the settings that make it and what it was measured to need."""
    yield [], needs
    copies = 2 if needs.gradients > needs.optimizer // 2 else 1

    def remeasured() -> Needs:
        averaged = needs.average > 0
        return measure(module, clip, copies=copies, averaged=averaged, cached=needs.cached)

    trained = [backbone for backbone in module.backbones.values() if not backbone.is_frozen]
    settings = []
    for backbone in trained:
        if not is_checkpointing(backbone.model):
            checkpoint_activations(backbone.model)
            settings = ["--gradient-checkpointing"]
    if settings:
        yield settings, remeasured()
    by_blocks = [backbone for backbone in trained if not isinstance(backbone.depth, LoRA)]
    num_blocks = max(map(_num_trained, by_blocks), default=0)
    while by_blocks and num_blocks > 1:
        num_blocks //= 2
        words = []
        for backbone in by_blocks:
            fewer = min(_num_trained(backbone), num_blocks)
            backbone.set_training_depth(Blocks(fewer) if fewer else Frozen())
            words.append(f"{backbone.name}={backbone.depth}")
        yield [*settings, f"--unfreeze {','.join(words)}"], remeasured()
    for backbone in trained:
        backbone.set_training_depth(Frozen())
    if trained:
        without_lora = [] if len(by_blocks) == len(trained) else ["without --lora"]
        yield ["--freeze all", *without_lora], remeasured()


def _num_trained(backbone: Backbone) -> int:
    """Number of its blocks that train."""
    return backbone.depth.number if isinstance(backbone.depth, Blocks) else len(backbone.blocks())
