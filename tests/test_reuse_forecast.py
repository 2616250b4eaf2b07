"""What is said where memory holds only a part of the clips: how many, for how long, and what would hold all."""

from __future__ import annotations

import numpy as np
import pytest

from viper_e2e.config import Size
from viper_e2e.loading import ClipCache
from viper_e2e.training.reuse_forecast import ReuseForecast, Rounds, said_seconds, said_size


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def said(rounds, budget, *, clip_bytes=100, seconds=2.0, batch=4, free=10**12):
    """What is told while all clips of the first epoch pass, and after how many of this process."""
    store, clock, lines = ClipCache(budget), Clock(), []
    forecast = ReuseForecast(store, rounds, lambda line: lines.append((line, clock.now)), lambda: free, clock)
    forecast.begin()
    for first in range(0, rounds.num_train // rounds.num_processes, batch):
        for i in range(first, first + batch):
            store.offer(str(i), np.zeros(clip_bytes, np.uint8))
            clock.now += seconds
        forecast.see(batch)
    return lines


def test_it_is_told_once_after_the_first_clips_for_all_trainings_and_epochs():
    ((line, at),) = said(Rounds(800, 224, epochs=20, trainings=5), budget=41_250)
    assert at == 100 + 16 * 2
    # 612 clips, 99 passes beside the first, two seconds each.
    assert line == (
        "holding about 412 of 1,024 clips in 42kB; the other 612 are decoded and encoded again in each of "
        "5 trainings × 20 epochs: about 33 h 40 min more; --reuse-memory 108kB would hold all"
    )
    assert Size.parse("108kB").num_bytes >= 1024 * 100


def test_one_training_is_told_of_its_epochs_and_many_processes_of_all_their_clips():
    ((line, _),) = said(Rounds(64, 0, epochs=3), budget=3_200)
    assert "holding about 32 of 64 clips" in line
    assert "the other 32 are decoded and encoded again in each of 3 epochs: about 2 min more" in line
    ((line, _),) = said(Rounds(64, 0, epochs=3, num_processes=2), budget=1_600)
    assert line.startswith("holding 32 of 64 clips")
    assert "the other 32 are" in line
    # Each process encodes its own half at the same time.
    assert "about 64 s more" in line
    assert line.endswith("would hold all in each process")
    ((line, _),) = said(Rounds(64, 0, epochs=1, trainings=3), budget=3_200)
    assert "in each of 3 trainings: about" in line


@pytest.mark.parametrize(
    ("rounds", "budget"),
    [
        (Rounds(64, 16, epochs=3), 8_000),  # all are held
        (Rounds(64, 16, epochs=1), 800),  # none passes twice
        (Rounds(64, 16, epochs=3), 0),  # nothing was asked to be held
    ],
)
def test_nothing_is_told_where_nothing_is_lost(rounds, budget):
    assert not said(rounds, budget)


def test_what_nearly_fits_is_told_once_memory_is_full():
    ((line, at),) = said(Rounds(64, 0, epochs=3), budget=6_000)
    assert at > 100 + 59 * 2
    assert line.startswith("holding 60 of 64 clips")


def test_no_size_is_proposed_that_the_device_does_not_have():
    ((line, _),) = said(Rounds(64, 0, epochs=3), budget=3_200, free=1_000)
    assert line.endswith("; all take 6.8kB")
    ((line, _),) = said(Rounds(64, 0, epochs=3), budget=50)
    assert "holding 0 of 64 clips" in line
    assert line.endswith("; --reuse-memory has no room for even one")


def test_sizes_hold_what_they_say_and_times_are_short():
    for number in (1, 999, 1_000, 1_001, 8_730_000_001, 10**12 + 1):
        assert Size.parse(said_size(number)).num_bytes >= number
    assert said_size(8_730_000_001) == "8.8GB"
    assert [said_seconds(s) for s in (0.2, 99.0, 100.0, 3_599.0, 11_400.0)] == [
        "1 s",
        "99 s",
        "2 min",
        "1 h 0 min",
        "3 h 10 min",
    ]
