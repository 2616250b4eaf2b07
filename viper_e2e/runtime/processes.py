"""processes.py: all communication among the processes of a run; names a process that is missing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor

from viper_e2e.errors import ViperError

STORE_SECONDS = 5.0
"""How long the store is asked who is missing; it lives in the first process or in torchrun."""

Item = TypeVar("Item")


class Processes:
    """The processes that train one model together; with one process nothing is sent.

    Before each collective call, a process notes in the store how many it has come to. When one has died or
    hangs, the others fail (a closed connection, a time limit) and can tell who came to fewer.

    Rows with which the device computes go by the backend of the device. Numbers and records that the processes
    agree on are on the CPU and stay there, in a gloo group of their own: beside NCCL they neither wait for
    what the GPU still computes nor does the GPU have to know float64.
    """

    def __init__(self, accelerator: Accelerator):
        self.index, self.count = accelerator.process_index, accelerator.num_processes
        self.is_main = accelerator.is_main_process
        self.accelerator = accelerator
        self._num_collectives = 0
        self._store = None
        if self.count > 1:
            # A connection of our own: torchrun serves the store and outlives every process of the run.
            store = dist.TCPStore(
                os.environ["MASTER_ADDR"],
                int(os.environ["MASTER_PORT"]),
                is_master=False,
                timeout=timedelta(seconds=STORE_SECONDS),
            )
            self._store = dist.PrefixStore("viper", store)
            handler = accelerator.init_handler
            # Also where the device's backend is gloo itself: one way, which every test walks.
            group = dist.new_group(backend="gloo", timeout=handler.timeout if handler else None)
            assert isinstance(group, dist.ProcessGroup), group  # every process is a member
            self._on_cpu = group

    def wait(self, purpose: str) -> None:
        """Until all have come here."""
        if self.count > 1:
            with self.collective(purpose):
                dist.barrier(group=self._on_cpu)

    def gather_scalars(self, *numbers: int | float, purpose: str) -> Tensor:
        """Everyone's numbers, a row per process, float64."""
        row = torch.tensor([numbers], dtype=torch.float64)
        if self.count == 1:
            return row
        with self.collective(purpose):
            rows = [torch.empty_like(row) for _ in range(self.count)]
            dist.all_gather(rows, row, group=self._on_cpu)
            return torch.cat(rows)

    def gather(self, rows: Tensor, *, purpose: str) -> Tensor:
        """Everyone's rows on the device, in the order of processes, without gradient."""
        if self.count == 1:
            return rows
        with self.collective(purpose):
            return self.accelerator.gather(rows)

    def gather_list(self, items: list[Item], *, purpose: str) -> list[Item]:
        """Everyone's items, in the order of processes."""
        if self.count == 1:
            return items
        with self.collective(purpose):
            lists: list[list[Item]] = [[] for _ in range(self.count)]
            dist.all_gather_object(lists, items, group=self._on_cpu)
            return [item for one in lists for item in one]

    @contextmanager
    def collective(self, purpose: str) -> Iterator[None]:
        """Around what needs all processes; :class:`LostProcessError` names one that is missing."""
        self._note(f"{self._num_collectives + 1} {purpose}")
        self._num_collectives += 1
        try:
            yield
        except RuntimeError as error:
            if self._store is None or not _is_about_processes(error):
                raise
            raise LostProcessError(f"process {self.index}, {purpose}: {self._who_is_missing()}") from error

    @contextmanager
    def telling_failures(self) -> Iterator[None]:
        """Leave a message for the others, who will find this process gone."""
        try:
            yield
        except BaseException as error:
            if self._store is not None and not isinstance(error, LostProcessError):
                with suppress(RuntimeError):  # the store may have gone down with the first process
                    self._store.set(f"failure {self.index}", f"{type(error).__name__}: {error}")
            raise

    def _note(self, text: str) -> None:
        if self._store is None:
            return
        try:
            self._store.set(str(self.index), text)
        except RuntimeError as error:
            raise LostProcessError(
                f"process {self.index}: process 0, which keeps the store, is gone"
            ) from error

    def _who_is_missing(self) -> str:
        complaints = []
        for other in range(self.count):
            if other == self.index:
                continue
            try:
                complaint = self._about(other)
            except RuntimeError:
                complaint = f"process {other} cannot be reached: the store in process 0 is gone"
            if complaint:
                complaints.append(complaint)
        return "; ".join(complaints) or "a process was lost on the way; torchrun's summary names it"

    def _about(self, other: int) -> str:
        """The trouble of another process, or an empty string."""
        assert self._store is not None
        if self._store.check([f"failure {other}"]):
            return f"process {other} failed: {self._store.get(f'failure {other}').decode()}"
        number, _, purpose = self._store.get(str(other)).decode().partition(" ")
        if int(number) < self._num_collectives:
            return f"process {other} did not arrive; it was last seen at: {purpose}; it died or hangs"
        return ""


class LostProcessError(ViperError):
    """Another process of the run is gone."""


def _is_about_processes(error: RuntimeError) -> bool:
    # gloo's failures are plain RuntimeErrors that begin with its own file name.
    return isinstance(error, dist.DistError) or "gloo" in str(error)
