"""compiling.py: `--compile`: the parts that get inputs of equal shapes, through `torch.compile`."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import nn

from viper_e2e.errors import ViperError
from viper_e2e.model.viper import ViPER

CACHE = "TORCHINDUCTOR_CACHE_DIR"


def keep_compiled_in(folder: Path) -> None:
    """Keep what is compiled from here on in ``folder``, unless the environment names another.

    A resumed run finds it there. Shared memory, where a run's other scratch goes, may forbid to run programs.
    """
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    # To import the compiler is enough for torch to write its default there, which nobody has asked for; since
    # then the folder for temporary files may have changed, not what it is called in there.
    default = Path(default_cache_dir())
    if Path(os.environ.get(CACHE, default)).name == default.name:
        os.environ[CACHE] = str(folder.absolute())


def check_compiler(device: torch.device) -> None:
    """Compile next to nothing; `ViperError` with what is missing, before anything expensive."""
    try:
        torch.compile(lambda x: x + 1)(torch.ones(8, device=device))
    except RuntimeError as error:  # whatever fails in there comes as torch's own kind of it
        needed = "a C++ compiler (g++, or the one that CXX names)" if device.type == "cpu" else "Triton and gcc"
        raise ViperError(
            f"--compile: torch.compile does not work on {device.type} here ({str(error).splitlines()[0]}); "
            f"it needs {needed}: install that, or leave out --compile"
        ) from error


def compile_model(model: ViPER) -> None:
    """Compile, at their first use, what gets inputs of the same shape again and again.

    Names of weights stay as they are. Outputs differ by rounding, and so may those of a resumed run, whose
    first shapes choose the kernels.
    """
    for module in compiled_parts(model).values():
        module.compile()


def compiled_parts(model: ViPER) -> dict[str, nn.Module]:
    """Parts worth compiling, by modality, with ``fusion``, as each of them declares. Never the module itself,
    whose Python code takes another way for every clip."""
    parts = {name: encoder.compile_targets(model.device) for name, encoder in model.encoders.items()}
    parts["fusion"] = model.fusion.compile_targets(model.device)
    return {
        name if number == 1 else f"{name} {number}": target
        for name, targets in parts.items()
        for number, target in enumerate(targets, 1)
    }
