"""transfer.py: decoded clips to the module's device; to a GPU on a stream beside the one that computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from viper_e2e.clip import Pixels


class Transfer:
    """Sends a batch's arrays to a device, all before the first is needed.

    To the CPU: the same memory. To a GPU: through pinned memory and on a stream of their own, so that later
    clips are copied while the first are looked at, and nobody waits; from other memory a copy would wait for
    everything that the GPU has been asked for before. What is there already stays as it is.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self._beside = torch.cuda.Stream(device) if device.type == "cuda" else None

    def send(self, arrays: Sequence[Pixels | np.ndarray | Tensor]) -> Callable[[], list[Tensor]]:
        """Begin; the function returned gives the tensors, for work that is asked for after its call."""
        if self._beside is None:
            tensors = [_tensor(array).to(self.device) for array in arrays]
            return lambda: tensors
        with torch.cuda.stream(self._beside):
            tensors = [
                array if array.is_cuda else array.pin_memory().to(self.device, non_blocking=True)
                for array in map(_tensor, arrays)
            ]
            sent = self._beside.record_event()

        def arrive() -> list[Tensor]:
            computing = torch.cuda.current_stream(self.device)
            computing.wait_event(sent)
            for tensor in tensors:
                tensor.record_stream(computing)  # its memory is not given away while work here still reads it
            return tensors

        return arrive


def _tensor(array: Pixels | np.ndarray | Tensor) -> Tensor:
    return array if isinstance(array, Tensor) else torch.from_numpy(array)
