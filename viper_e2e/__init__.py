"""viper_e2e: emotion recognition from raw video, end to end, in one PyTorch module.

A trained model: `load` (a folder or a hub id), `ViPER`, and what it returns, `ViPEROutput`. Its stages by
themselves: `ShardSet` (clips in shards), `ClipDecoder` (bytes to frames and sound), `FaceCropper` (frames to
faces). `score` scores every clip of a source and gives each a `Prediction`, or several: `Wanted` says what of
(windows of long clips, say). Settings: `ModelConfig`, `TrainConfig`. Errors: `ViperError` (what was given to us
is wrong), and of one clip, `ClipError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from viper_e2e import moved
from viper_e2e.errors import ClipError, ViperError
from viper_e2e.runtime.version import __version__

if TYPE_CHECKING:
    from viper_e2e.config.schema import ModelConfig, TrainConfig
    from viper_e2e.decoding.decoder import ClipDecoder
    from viper_e2e.faces import FaceCropper
    from viper_e2e.model.output import ViPEROutput
    from viper_e2e.model.prediction import Prediction
    from viper_e2e.model.viper import ViPER, load
    from viper_e2e.scoring.score import Wanted, score
    from viper_e2e.shards.reading import ShardSet

moved.install()

# Loaded on first use, so that `import viper_e2e` costs neither torch nor transformers.
_LAZY = {
    "ClipDecoder": "decoding",
    "FaceCropper": "faces",
    "ModelConfig": "config",
    "Prediction": "model.prediction",
    "ShardSet": "shards",
    "TrainConfig": "config",
    "ViPER": "model",
    "ViPEROutput": "model",
    "Wanted": "scoring.score",
    "load": "model",
    "score": "scoring.score",
}

__all__ = [
    "ClipDecoder",
    "ClipError",
    "FaceCropper",
    "ModelConfig",
    "Prediction",
    "ShardSet",
    "TrainConfig",
    "ViPER",
    "ViPEROutput",
    "ViperError",
    "Wanted",
    "__version__",
    "load",
    "score",
]


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_LAZY[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
