"""viper_e2e: emotion recognition from raw video, end to end, in one PyTorch module."""

from __future__ import annotations

from viper_e2e import moved
from viper_e2e.runtime.version import __version__

moved.install()

# Loaded on first use, so that `import viper_e2e` costs neither torch nor transformers.
_LAZY = {"ViPER": "model", "ViPEROutput": "model", "load": "model"}

__all__ = ["ViPER", "ViPEROutput", "__version__", "load"]


def __getattr__(name: str):
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_LAZY[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
