"""precision.py: the precision of training and scoring, and how `auto` decides between float32 and bfloat16."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, TypeVar

import torch

from viper_e2e.config import MixedPrecision
from viper_e2e.encoders import Encoder
from viper_e2e.model.modes import in_mode
from viper_e2e.model.viper import ViPER
from viper_e2e.runtime import Processes, console

LEAST_GAIN = 1.1
"""bfloat16 has to be this much faster: it costs digits, and times are never quite the same twice."""
ENOUGH_SECONDS = 0.1
"""An encoder that has been timed this long, at least once, is timed no more."""


Asked = TypeVar("Asked", bound=MixedPrecision)


class Choice(NamedTuple):
    """A precision, and why."""

    precision: Literal["no", "bf16"]
    """``no`` (float32) or ``bf16``."""
    reason: str


def compute_dtype(precision: MixedPrecision) -> torch.dtype:
    """Type in which frozen weights are stored, and trained ones are computed."""
    return {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def resolve_precision(
    precision: Asked, model: ViPER, processes: Processes | None = None
) -> Asked | Literal["no", "bf16"]:
    """``precision`` itself, or what ``auto`` resolves to: the same in all processes; reported in a line."""
    if precision != "auto":
        return precision
    choice = Choice("no", "the first process decides")
    if processes is None or processes.is_main:
        choice = fastest_precision(model)
        console.print(f"--mixed-precision auto: {choice.precision}, since {choice.reason}")
    if processes is None:
        return choice.precision
    is_half = processes.gather_scalars(float(choice.precision == "bf16"), purpose="choosing a precision")[0, 0]
    return "bf16" if is_half else "no"


def fastest_precision(model: ViPER) -> Choice:
    """The faster precision on the model's device: known of a GPU, measured on a processor.

    A processor may know bfloat16 and still gain nothing by it in narrow layers, so every encoder is timed on
    what one of its tokens is made from.
    """
    if model.device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Choice("bf16", "this GPU computes in bfloat16")
        return Choice("no", "this GPU does not compute in bfloat16")
    return choose_precision(
        {name: measured(encoder) for name, encoder in model.encoders.items() if encoder.backbones()}
    )


def choose_precision(seconds: Mapping[str, tuple[float, float]]) -> Choice:
    """Choose by the seconds that each encoder takes for one token in float32 and in bfloat16."""
    if not seconds:
        return Choice("no", "no backbone would gain from bfloat16")
    single, half = (sum(column) for column in zip(*seconds.values(), strict=True))
    gain = single / half
    names = ", ".join(seconds)
    taken = f"one token of {names} takes {1000 * single:,.1f} ms in float32, {1000 * half:,.1f} ms in bfloat16"
    return Choice("bf16" if gain >= LEAST_GAIN else "no", f"{taken} ({gain:.2f} times as fast)")


@torch.no_grad()
def measured(encoder: Encoder, clock: Callable[[], float] = time.process_time) -> tuple[float, float]:
    """Seconds for one token in float32 and in bfloat16: the shortest of several turns of either.

    CPU seconds (of all threads), which other work on the machine disturbs least. The encoder's weights and the
    random generators are as before.
    """
    inputs, shortest, spent = [encoder.example_input()], [math.inf, math.inf], 0.0
    with in_mode(encoder, training=False):
        encoder(inputs)  # kernels are chosen, and sentences embedded, in the first pass
        half = copy.deepcopy(encoder)
        half.to_compute_dtype(torch.bfloat16)
        half(inputs)
        while spent < ENOUGH_SECONDS:
            for which, contender in enumerate((encoder, half)):
                since = clock()
                contender(inputs)
                elapsed = clock() - since
                shortest[which] = min(shortest[which], elapsed)
                spent += elapsed
    return shortest[0], shortest[1]
