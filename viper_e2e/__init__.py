"""viper_e2e: emotion recognition from raw video, end to end, in one PyTorch module.

A trained model: `load` (a folder or a hub id), `ViPER`, and what it returns, `ViPEROutput`. Its stages by
themselves: `ShardSet` (clips in shards), `ClipDecoder` (bytes to frames and sound), `FaceCropper` (frames to
faces). `score` scores every clip of a source and gives each a `Prediction`, or several: `Wanted` says what of
(windows of long clips, say). Settings: `ModelConfig`, `TrainConfig`. Errors: `ViperError` (what was given to us
is wrong), and of one clip, `ClipError`.
"""

import lazy_loader

from viper_e2e import moved

# What `__init__.pyi` lists, here and in each wing, is loaded on first use: `import viper_e2e` costs no torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

moved.install()
