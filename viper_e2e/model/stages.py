"""stages.py: time of each stage of the module while it is used: detection, encoders, fusion."""

from __future__ import annotations

import time
from functools import partial

import torch
from torch import nn

from viper_e2e.model.viper import ViPER


class StageClock:
    """Adds up the seconds that a model's stages take, from now on until `close`.

    On a GPU kernels run behind the program's back; with ``synchronize`` each stage is waited for, which costs
    what it measures a little. What is neither of the stages (crops, backward pass, optimizer) is not counted.
    """

    def __init__(self, model: ViPER, *, synchronize: bool = False):
        stages = {"detection": model.faces, **dict(model.encoders.items()), "fusion": model.fusion}
        self.seconds = dict.fromkeys(stages, 0.0)
        self._synchronize = synchronize and model.device.type == "cuda"
        self._began: dict[str, float] = {}
        self._handles = []
        for name, stage in stages.items():
            self._handles.append(stage.register_forward_pre_hook(partial(self._begin, name)))
            self._handles.append(stage.register_forward_hook(partial(self._end, name)))

    def reset(self) -> None:
        """Start counting from zero."""
        self.seconds = dict.fromkeys(self.seconds, 0.0)

    def shares(self, elapsed_seconds: float) -> dict[str, float]:
        """Share of the elapsed time by stage, the largest first."""
        ordered = sorted(self.seconds.items(), key=lambda item: -item[1])
        return {name: seconds / elapsed_seconds for name, seconds in ordered}

    def close(self) -> None:
        """Stop counting."""
        for handle in self._handles:
            handle.remove()

    def _now(self) -> float:
        if self._synchronize:
            torch.cuda.synchronize()
        return time.perf_counter()

    def _begin(self, name: str, stage: nn.Module, inputs: object) -> None:
        self._began[name] = self._now()

    def _end(self, name: str, stage: nn.Module, inputs: object, output: object) -> None:
        self.seconds[name] += self._now() - self._began[name]
