"""model: ViPER, the one module, and its folder on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from viper_e2e.model.output import ViPEROutput
    from viper_e2e.model.viper import ViPER, load

# Loaded on first use: a model's folder can be read without torch.
_LAZY = {"ViPER": "viper", "ViPEROutput": "output", "load": "viper"}

__all__ = ["ViPER", "ViPEROutput", "load"]


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
