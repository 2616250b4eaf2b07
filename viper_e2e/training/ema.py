"""ema.py: a moving average of the trained weights: what validation scores and checkpoints hold."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from viper_e2e.errors import ViperError


class WeightEMA:
    """Exponential moving average over the optimizer's steps (Polyak & Juditsky 1992), in float32.

    Only what trains is averaged: nothing is kept of frozen backbones and of the detector (`AveragedModel` of
    torch would copy the whole module). Every process computes the same average from the same weights.

    With ``decay`` 0 there is no average, and nothing here has an effect.
    """

    def __init__(self, module: nn.Module, decay: float):
        """``decay``: the share of the average that each step leaves in it, below 1; `ViperError` otherwise."""
        if not 0 <= decay < 1:
            raise ViperError(f"--ema-decay {decay:g}: give a share below 1, e.g. 0.999, or 0 for no average")
        self.decay, self.num_updates = decay, 0
        self._module = module
        self._weights: dict[str, nn.Parameter] = {}
        self._others: dict[str, Tensor] = {}
        """The averages; while they stand in for the weights, the weights."""
        self._stands_in = False
        self.join()

    def __bool__(self) -> bool:
        return self.decay > 0

    @property
    def nbytes(self) -> int:
        """Memory beside the weights."""
        return sum(tensor.nbytes for tensor in self._others.values())

    def join(self) -> None:
        """Average from here on also what trains now and did not before.

        Until now it stood still, so its average is itself: as if it had been averaged from the start.
        """
        for name, parameter in self._module.named_parameters() if self else ():
            if parameter.requires_grad and name not in self._weights:
                self._weights[name] = parameter
                self._others[name] = parameter.detach().clone()

    def update(self) -> None:
        """Move the average towards the weights that a step has made.

        Early steps move it further, so that the untrained start is soon forgotten: the rule of TensorFlow's
        `ExponentialMovingAverage` with `num_updates`.
        """
        assert not self._stands_in, "the average would be averaged"
        if not self:
            return
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        get_ema_multi_avg_fn(decay)([*self._others.values()], [*self._weights.values()], self.num_updates)
        self.num_updates += 1

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """The module computes, and is saved, with the average; afterwards its weights are back bit by bit."""
        self._exchange()
        self._stands_in = True
        try:
            yield
        finally:
            self.step_aside()

    def step_aside(self) -> None:
        """Give the module its weights back; what it holds is the average."""
        assert self._stands_in
        self._exchange()
        self._stands_in = False

    @torch.no_grad()
    def _exchange(self) -> None:
        # In place and one tensor at a time: addresses stay, and memory for one tensor is enough.
        for name, weight in self._weights.items():
            before = weight.clone()
            weight.copy_(self._others[name])
            self._others[name].copy_(before)

    # --- beside a model that is saved with the average --------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The weights themselves, while the average stands in for them."""
        assert self._stands_in, "the model beside this must be the average"
        return {"num_updates": self.num_updates, "weights": self._others}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the weights; once the module has read the average, `step_aside` gives them to it."""
        self.num_updates, self._stands_in = state["num_updates"], True
        for name, tensor in self._others.items():
            tensor.copy_(state["weights"][name])
