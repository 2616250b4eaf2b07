"""counted_work.py: how often clips are decoded and encoded, and runs that are stopped midway."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import pytest

from viper_e2e.decoding import ClipDecoder
from viper_e2e.encoders import Encoder
from viper_e2e.loading import ClipBatch
from viper_e2e.training import Trainer


@contextmanager
def counted_work() -> Iterator[dict[str, Counter[str]]]:
    """By the name of each clip: how often it is `decoded` and `encoded` meanwhile."""
    counts: dict[str, Counter[str]] = {"decoded": Counter(), "encoded": Counter()}
    decode, encode = ClipDecoder.__call__, Encoder._encode_one

    def decoding(self, *args, **kwargs):
        counts["decoded"][kwargs["name"]] += 1
        return decode(self, *args, **kwargs)

    def encoding(self, clip):
        counts["encoded"][clip.name] += 1
        return encode(self, clip)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ClipDecoder, "__call__", decoding)
        patch.setattr(Encoder, "_encode_one", encoding)
        yield counts


def interrupt_steps(monkeypatch: pytest.MonkeyPatch, numbers: Collection[int]) -> list[list[ClipBatch]]:
    """As Ctrl-C in these of all steps from here on, counted from 1. Returns the clips of each step."""
    step, steps = Trainer._step, []

    def stopping(self, group):
        steps.append(group)
        if len(steps) in numbers:
            raise KeyboardInterrupt
        return step(self, group)

    monkeypatch.setattr(Trainer, "_step", stopping)
    return steps
