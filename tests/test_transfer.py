"""Nothing is copied on the CPU; to a GPU (faked here) copies run beside, and nobody reads them early."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
import torch

from viper_e2e.model.transfer import Transfer


class FakeStream:
    """Of a GPU that is not there: writes down what it is asked for."""

    def __init__(self, name: str, log: list):
        self.name, self.log = name, log

    def record_event(self) -> str:
        self.log.append(("event", self.name))
        return "event"

    def wait_event(self, event: str) -> None:
        self.log.append(("wait", self.name))


@pytest.fixture
def log(monkeypatch) -> list:
    """What a faked GPU is asked for, in order; its tensors stay where they are."""
    log: list = []
    beside, computing = FakeStream("beside", log), FakeStream("computing", log)
    current = [computing]

    @contextmanager
    def on(stream):
        current.append(stream)
        yield
        current.pop()

    def moved(tensor, *to, **how):
        log.append(("copy", current[-1].name, to, how))
        return tensor

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: beside)
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: current[-1])
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: log.append(("pin",)) or self)
    monkeypatch.setattr(torch.Tensor, "to", moved)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, stream: log.append(("keep", stream.name)))
    return log


ARRAYS = [np.arange(12, dtype=np.uint8).reshape(3, 4), np.ones(2, np.float32)]


def test_on_the_cpu_it_is_the_same_memory():
    tensors = Transfer(torch.device("cpu")).send(ARRAYS)()
    assert [t.data_ptr() for t in tensors] == [array.ctypes.data for array in ARRAYS]


def test_to_a_gpu_everything_is_copied_beside_from_pinned_memory_without_waiting(log):
    gpu = torch.device("cuda")
    Transfer(gpu).send(ARRAYS)
    copy = ("copy", "beside", (gpu,), {"non_blocking": True})
    assert log == [("pin",), copy, ("pin",), copy, ("event", "beside")]


def test_what_computes_waits_for_the_copies_and_keeps_their_memory(log):
    arrive = Transfer(torch.device("cuda")).send(ARRAYS)
    del log[:]
    tensors = arrive()
    assert log == [("wait", "computing"), ("keep", "computing"), ("keep", "computing")]
    assert [t.data_ptr() for t in tensors] == [array.ctypes.data for array in ARRAYS]


def test_what_is_on_the_gpu_already_stays_as_it_is(log, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda self: True))
    Transfer(torch.device("cuda")).send(ARRAYS)
    assert log == [("event", "beside")]
