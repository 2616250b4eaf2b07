"""lora.py: adapters, small matrices that train beside a backbone's frozen weights (LoRA), through peft."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from viper_e2e.config import BackboneConfig
from viper_e2e.errors import ViperError

_QUERY_VALUE = ("query", "value", "q_proj", "v_proj", "linear_q", "linear_v", "qkv")
"""Names of models for the layers that make queries and values (`qkv`: with keys, all in one)."""


def add_adapters(name: str, model: nn.Module, blocks: Sequence[nn.Module], config: BackboneConfig) -> None:
    """Put an adapter beside the query and the value projection of every block, in place.

    Where attention never calls its projections (open_clip's, WavLM's), an adapter there would have no effect:
    the feed-forward layers of these blocks have one instead. Until they are trained, adapters add exactly zero.
    `ViperError` where settings make no sense, peft is missing, or a block has no such layer.

    Source: Hu et al. 2022, https://openreview.net/forum?id=nZeVKeeFYf9
    """
    if config.lora_rank < 1 or not 0 <= config.lora_dropout < 1:
        raise ViperError(
            f"{name}: lora_rank is {config.lora_rank} and lora_dropout {config.lora_dropout}; allowed are a "
            "rank of 1 or more (0: no LoRA) and a dropout from 0 to below 1"
        )
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ViperError(f"{name}: LoRA needs peft: pip install peft") from error
    names = {id(module): module_name for module_name, module in model.named_modules()}
    targets = [f"{names[id(block)]}.{layer}" for block in blocks for layer in _layers_of(name, block)]
    if not targets:
        raise ViperError(f"{name}: has no row of blocks to put LoRA adapters into")
    settings = LoraConfig(
        r=config.lora_rank,
        # Any number scales; its annotation knows whole ones alone.
        lora_alpha=config.lora_alpha,  # type: ignore[arg-type]
        lora_dropout=config.lora_dropout,
        target_modules=targets,
    )
    inject_adapter_in_model(settings, model)


def is_adapter(parameter_name: str) -> bool:
    """Whether a parameter (or tensor of a state dict) belongs to an adapter, by the names that peft gives."""
    return ".lora_A." in parameter_name or ".lora_B." in parameter_name


def without_untrained(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All but adapters that add exactly zero, as all do until they are trained, whatever was drawn for them."""
    return {
        name: tensor
        for name, tensor in tensors.items()
        if not is_adapter(name) or tensors[name.replace(".lora_A.", ".lora_B.")].any()
    }


def _layers_of(name: str, block: nn.Module) -> list[str]:
    """Names within a block of the layers that have an adapter."""
    from transformers.models.wavlm.modeling_wavlm import WavLMAttention  # seconds, for models with LoRA alone

    # Attention that takes the weights out of its layers and never calls these.
    reads_weights = (nn.MultiheadAttention, WavLMAttention)
    layers = [layer for layer, module in block.named_modules() if isinstance(module, nn.Linear)]
    # peft's own way into nn.MultiheadAttention adds to the weights and takes away again in every pass, after
    # which they are no longer exactly the frozen ones.
    closed = tuple(f"{path}." for path, module in block.named_modules() if isinstance(module, reads_weights))
    if closed:
        found = [layer for layer in layers if not layer.startswith(closed)]
    else:
        found = [layer for layer in layers if layer.rpartition(".")[2] in _QUERY_VALUE]
    if not found:
        raise ViperError(
            f"{name}: LoRA finds none of {', '.join(_QUERY_VALUE)} in a {type(block).__name__}; "
            f"train its last blocks instead (--unfreeze {name}=2)"
        )
    return found
