"""device_without_float64.py: a stand-in for an Apple GPU, whose tensors the CPU computes.

Like the device, it refuses float64, an operation on tensors here and there, and NumPy without a way through
`.cpu()`. What C++ computes by itself (gradients) is not looked at; it has the types of what went forward.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

DEVICE = torch.device("mps")
HERE = torch.device("cpu")
_TO_HERE = (torch.Tensor.cpu, torch.Tensor.tolist, torch.Tensor.item)
_MOVING = (torch.Tensor.to, torch.Tensor.copy_, torch.Tensor.type_as, torch.Tensor.__getitem__)
"""What takes tensors from both sides, or indices from here."""


class There(torch.Tensor):
    """A tensor on the device."""

    @property
    def device(self) -> torch.device:
        return DEVICE

    @property
    def is_cpu(self) -> bool:
        return False

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


class _Intercepting(TorchFunctionMode):
    """Sees also what makes tensors out of nothing, or brings them over."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


@contextmanager
def device_without_float64() -> Iterator[None]:
    """The device exists."""
    with _Intercepting():
        yield


def bring(module: nn.Module) -> nn.Module:
    """``module.to(DEVICE)``, which is not to be had by `Module.to`."""
    for owner in module.modules():
        for name, parameter in list(owner._parameters.items()):
            if parameter is not None:
                there = parameter.detach().as_subclass(There)
                owner._parameters[name] = nn.Parameter(there, requires_grad=parameter.requires_grad)
        for name, buffer in list(owner._buffers.items()):
            if buffer is not None:
                owner._buffers[name] = buffer.as_subclass(There)
    return module


def _run(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    given, layout = tree_flatten((args, kwargs))
    tensors = [value for value in given if isinstance(value, torch.Tensor)]
    is_there = any(isinstance(tensor, There) for tensor in tensors)
    given = [torch.device(v) if isinstance(v, str) and v in ("mps", "cpu") else v for v in given]
    wanted = [value for value in given if isinstance(value, torch.device)]
    name = getattr(func, "__name__", str(func))
    if is_there and func in (torch.Tensor.numpy, torch.Tensor.__array__):
        raise TypeError(f"{name}: can't convert mps tensor to numpy; use .cpu() first")
    if is_there and func not in _MOVING:
        here = [t for t in tensors if not isinstance(t, There) and t.dim() > 0]
        if here:
            raise RuntimeError(f"{name}: tensors on mps and on cpu ({[tuple(t.shape) for t in here]})")
    args, kwargs = tree_unflatten([HERE if isinstance(v, torch.device) else v for v in given], layout)
    with torch._C.DisableTorchFunctionSubclass():
        result = func(*args, **kwargs)
    comes_here = func in _TO_HERE or HERE in wanted
    goes_there = not comes_here and (is_there or DEVICE in wanted)
    return tree_map(lambda value: _placed(value, goes_there, name), result)


def _placed(value: Any, goes_there: bool, name: str) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    if not goes_there:
        return value.as_subclass(torch.Tensor) if isinstance(value, There) else value
    if value.dtype in (torch.float64, torch.complex128):
        raise TypeError(f"{name}: the mps device knows no {value.dtype}")
    return value if isinstance(value, There) else value.as_subclass(There)
