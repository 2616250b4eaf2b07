"""counted_work.py: how often clips are decoded and encoded, and runs that are stopped midway."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import pytest

from support.training_runs import hook_trainings
from viper_e2e.decoding import ClipDecoder
from viper_e2e.encoders import TokenCache
from viper_e2e.loading import ClipBatch
from viper_e2e.training.hooks import TrainerHooks


@contextmanager
def counted_work() -> Iterator[dict[str, Counter[str]]]:
    """By the name of each clip: how often it is `decoded` meanwhile, and `encoded` by a frozen encoder."""
    counts: dict[str, Counter[str]] = {"decoded": Counter(), "encoded": Counter()}
    decode, keep = ClipDecoder.__call__, TokenCache.keep

    def decoding(self, *args, **kwargs):
        counts["decoded"][kwargs["name"]] += 1
        return decode(self, *args, **kwargs)

    def keeping(self, clip, *made):
        counts["encoded"][clip.name] += 1
        return keep(self, clip, *made)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ClipDecoder, "__call__", decoding)
        patch.setattr(TokenCache, "keep", keeping)
        yield counts


def interrupt_steps(monkeypatch: pytest.MonkeyPatch, numbers: Collection[int]) -> list[list[ClipBatch]]:
    """As Ctrl-C in these of all steps from here on, counted from 1. Returns the clips of each step."""
    steps: list[list[ClipBatch]] = []

    def stopping(_: object, group: list[ClipBatch]) -> None:
        steps.append(group)
        if len(steps) in numbers:
            raise KeyboardInterrupt

    hook_trainings(monkeypatch, TrainerHooks(before_step=stopping))
    return steps
