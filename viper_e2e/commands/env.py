"""env.py: `viper env`: versions, devices and decoders, for bug reports."""

from __future__ import annotations

import os
from importlib.util import find_spec

from viper_e2e.config import EnvConfig
from viper_e2e.errors import ExitCode
from viper_e2e.runtime import __version__, versions


def run_env(_: EnvConfig) -> int:
    """Print a line each for versions, cores, GPUs, decoders and where weights are looked for."""
    import torch

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    decoders = ["pyav", *(name for name in ("decord", "torchcodec") if find_spec(name))]
    rows = {
        "viper_e2e": __version__,
        **{name: version for name, version in versions().items() if name != "viper-e2e"},
        "cores": f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()}",
        "GPUs": ", ".join(gpus) or "none",
        "decoders": ", ".join(decoders),
        **{name: os.environ.get(name, "not set") for name in ("VIPER_BACKBONES", "HF_HOME", "HF_HUB_OFFLINE")},
    }
    for name, value in rows.items():
        print(f"{name:<18}{value}")
    return ExitCode.OK
