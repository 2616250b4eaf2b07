"""parameter_budget.py: settings that come with a model may not make more of it than its weights hold."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

from viper_e2e.errors import ViperError

_MAX_SETTING, _MAX_PREPROCESSOR_SETTING = 2**24, 2**20
"""Largest whole numbers in a backbone's files: the longest published context has 10 million places, the longest
sound that is prepared at once half a million samples."""
_NO_LIMIT = "model_max_length"
"""10³⁰ in files of transformers' where a tokenizer has none; nothing is made so long."""
_FROM_ONE = re.compile(r"((^|\.|_)heads|n_head|strides?|kernels?|distance)$")
"""Names of counts and extents that are at least 1: networks can be built with less, and do not run."""
_TENSORS_BESIDE, _VALUES_BESIDE = 2_000, 2**26
"""Allowed on top of twice the weights: tables that are computed, and parameters that a model has twice."""
_WITHOUT_WEIGHTS = (100_000, 2**36)
"""Tensors and values of a network that nothing is loaded into: more than any that is published."""
BUILDING_ERRORS = (
    *(ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, MemoryError, OSError),
    *(RuntimeError, StrictDataclassError, TypeError, ValueError),
)
"""Errors of libraries for files and settings from which they can build nothing."""


@dataclass(frozen=True)
class ParameterBudget:
    """The most tensors, and values in them, that a network may have."""

    num_tensors: int = _WITHOUT_WEIGHTS[0]
    num_values: int = _WITHOUT_WEIGHTS[1]

    @classmethod
    def of_weights(cls, shapes: Iterable[tuple[int, ...]]) -> ParameterBudget:
        """Budget of a network that loads tensors of these shapes."""
        sizes = [torch.Size(shape).numel() for shape in shapes]
        return cls(2 * len(sizes) + _TENSORS_BESIDE, 2 * sum(sizes) + _VALUES_BESIDE)


def check_buildable(
    name: str, where: Path | str, build: Callable[[], nn.Module], budget: ParameterBudget
) -> None:
    """Build a network without memory for its tensors. `ViperError`, naming ``where`` its settings are, if no
    network can be made of them or it would be larger than the budget."""
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"), _kept(budget):
            build()
    except _BuildingError as error:
        raise ViperError(f"{name}: {where}: {error}; these settings do not belong to these weights") from None
    except BUILDING_ERRORS as error:
        raise ViperError(f"{name}: no network can be built from {where} ({reason_of(error)})") from error


def reason_of(error: BaseException) -> str:
    """The kind of an error and the first line that does not only announce the next."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = next((line for line in lines if not line.endswith(":")), "no reason is given")
    reason = f"{type(error).__name__}: {first}"
    return reason if len(reason) <= 200 else f"{reason[:200]}…"


def check_settings_size(name: str, where: Path | str, settings: object) -> None:
    """`ViperError` for whole numbers that no backbone needs: libraries make lists as long as they say, and
    divide by others only when the first clip comes."""
    most = _MAX_PREPROCESSOR_SETTING if "preprocessor" in Path(where).name else _MAX_SETTING
    for path, number in _numbers(settings, ""):
        if abs(number) > most and path != _NO_LIMIT:
            raise ViperError(f"{name}: {where}: {path} is {number}; no backbone needs more than {most}")
        if number < 1 and _FROM_ONE.search(path):
            raise ViperError(f"{name}: {where}: {path} is {number}; it is at least 1 in every backbone")


class _BuildingError(Exception):
    """More would be built than the budget allows."""


@contextmanager
def _kept(budget: ParameterBudget) -> Iterator[None]:
    num_tensors = num_values = 0

    def count(_module: nn.Module, _name: str, tensor: Tensor | None) -> None:
        nonlocal num_tensors, num_values
        if tensor is None:
            return
        num_tensors += 1
        num_values += tensor.numel()
        if num_tensors > budget.num_tensors:
            raise _BuildingError(f"they make more than {budget.num_tensors:,} tensors")
        if num_values > budget.num_values:
            raise _BuildingError(f"they make more than {budget.num_values:,} parameters")

    hooks = [
        register_module_parameter_registration_hook(count),
        register_module_buffer_registration_hook(count),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _numbers(value: object, path: str) -> Iterator[tuple[str, int]]:
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield from _numbers(one, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _numbers(one, path)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield path, value
