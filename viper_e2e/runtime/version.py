"""version.py: versions of this package and of every other that can change a number."""

from __future__ import annotations

import platform
import sys

__version__ = "0.6.0"

VERSIONS_OF = [
    "viper-e2e",
    "torch",
    "torchvision",
    "torchaudio",
    "transformers",
    "perceiver-pytorch",
    "av",
    "decord",
    "torchcodec",
    "kornia",
    "facenet-pytorch",
    "open_clip_torch",
    "accelerate",
    "webdataset",
]


def versions() -> dict[str, str]:
    """Versions of Python and of every package that can change a number."""
    from importlib import metadata  # not for `import viper_e2e`

    found = {"python": sys.version.split()[0], "platform": platform.platform()}
    for name in VERSIONS_OF:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
