"""checkpointing.py: backbones in training that recompute activations instead of keeping them."""

from __future__ import annotations

from typing import Any

from torch import nn


def checkpoint_activations(model: Any) -> None:
    """Trained blocks recompute their activations in the backward pass instead of keeping them.

    ``model``: as of `Backbone`.
    """
    tower = getattr(model, "visual", None)
    # open_clip's, of which the image tower alone trains.
    if tower is not None and hasattr(tower, "set_grad_checkpointing"):
        tower.set_grad_checkpointing(True)
    elif hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    else:  # its name before transformers 5.23
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def is_checkpointing(model: nn.Module) -> bool:
    """Whether `checkpoint_activations` was called, under either library's name for it."""
    names = ("gradient_checkpointing", "grad_checkpointing")
    return any(getattr(module, name, False) for module in model.modules() for name in names)
